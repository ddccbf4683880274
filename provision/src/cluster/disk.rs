//! What clusters, the image store and the build cache take of the disk.
//!
//! Nodes have files in common, with the store and so with each other: the layers that their roots lie on, and hard links to
//! large files of those layers in a `/var` of their own. Each is counted once, as the store's: that is what would stay when
//! the nodes go. What only nodes of one cluster have in common, such as images that were loaded into them, is the cluster's.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::clusters;
use crate::{Error, Paths, Result, state};

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// What Kiln takes of the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskUse {
    /// The clusters, by name.
    pub clusters: Vec<ClusterDisk>,
    /// The image store.
    pub store: StoreDisk,
    /// Bytes of the build cache.
    pub build_cache_bytes: u64,
}

impl DiskUse {
    /// Bytes of it all, each file once.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let clusters: u64 = self.clusters.iter().map(|cluster| cluster.own_bytes).sum();
        clusters + self.store.bytes + self.build_cache_bytes
    }
}

/// What a cluster takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterDisk {
    /// The cluster's name.
    pub name: String,
    /// Bytes that would be free without the cluster.
    pub own_bytes: u64,
    /// Bytes of the image store that its nodes use, however many of them do.
    pub shared_bytes: u64,
    /// Its nodes, by name.
    pub nodes: Vec<NodeDisk>,
}

/// What a node takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeDisk {
    /// The node's name.
    pub name: String,
    /// Bytes that would be free without the node.
    pub own_bytes: u64,
    /// Bytes that it has in common with the image store or with other nodes.
    pub shared_bytes: u64,
}

/// What the image store takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreDisk {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of all of it.
    pub bytes: u64,
    /// How many blobs there are: layers as they were pulled or built, manifests, configurations.
    pub blobs: u64,
    /// Bytes of the blobs.
    pub blob_bytes: u64,
    /// The unpacked layers, largest first.
    pub layers: Vec<LayerDisk>,
}

/// What an unpacked layer takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDisk {
    /// The digest of its uncompressed archive, without the algorithm's name.
    pub diff_id: String,
    /// Its bytes.
    pub bytes: u64,
    /// The nodes whose root lies on it.
    pub nodes: Vec<String>,
}

/// Looks at all files that are Kiln's.
///
/// # Errors
/// [`Error::Damaged`], or [`Error::File`] when files cannot be looked at.
pub fn disk_use(paths: &Paths) -> Result<DiskUse> {
    let store = paths.images();
    let mut layers = Vec::new();
    for path in children(&store.join("layers"))? {
        let measured = measure(&path)?;
        layers.push((path.join("fs"), measured, Vec::new()));
    }
    let mut found = Vec::new();
    for cluster in clusters(paths)? {
        found.push(cluster_disk(paths, &cluster, &mut layers)?);
    }
    let blobs = measure(&store.join("blobs"))?;
    let mut layers: Vec<_> = layers
        .into_iter()
        .filter_map(|(path, measured, nodes)| {
            let diff_id = path.parent()?.file_name()?.to_string_lossy().into_owned();
            Some(LayerDisk { diff_id, bytes: measured.bytes(), nodes })
        })
        .collect();
    layers.sort_by(|one, other| (other.bytes, &one.diff_id).cmp(&(one.bytes, &other.diff_id)));
    let store = StoreDisk {
        bytes: measure(&store)?.bytes(),
        blobs: children(&store.join("blobs/sha256"))?.len() as u64,
        blob_bytes: blobs.bytes(),
        path: store,
        layers,
    };
    Ok(DiskUse { clusters: found, store, build_cache_bytes: measure(&paths.build_cache())?.bytes() })
}

/// A layer by the directory that nodes use, with what it takes and the nodes that lie on it.
type Layer = (PathBuf, Measured, Vec<String>);

fn cluster_disk(paths: &Paths, cluster: &str, layers: &mut [Layer]) -> Result<ClusterDisk> {
    let mut nodes = Vec::new();
    let mut shared = Shared::default();
    for record in state::load_nodes(paths, cluster)? {
        let measured = measure(&paths.node(cluster, &record.name))?;
        let mut used = Shared::default();
        for (index, (path, layer, users)) in layers.iter_mut().enumerate() {
            if record.layers.contains(path) {
                users.push(record.name.clone());
                used.layer(index, layer);
                shared.layer(index, layer);
            }
        }
        used.links(&measured);
        shared.links(&measured);
        let (own_bytes, shared_bytes) = (measured.own_bytes(), used.bytes(layers));
        nodes.push(NodeDisk { name: record.name, own_bytes, shared_bytes });
    }
    // Of the whole: nodes may have files in common that are nobody else's, such as loaded images.
    let whole = measure(&paths.cluster(cluster))?;
    shared.links.retain(|inode, _| whole.linked.get(inode).is_none_or(|file| file.elsewhere > 0));
    let own_bytes = whole.own_bytes();
    Ok(ClusterDisk { name: cluster.to_owned(), own_bytes, shared_bytes: shared.bytes(layers), nodes })
}

/// Bytes that would be free without a directory: its files whose names are all in it. One with a name elsewhere is shared,
/// as an image's layers are.
pub(crate) fn own_bytes(directory: &Path) -> Result<u64> {
    Ok(measure(directory)?.own_bytes())
}

/// What of the store is used by one node, or by several.
#[derive(Debug, Default)]
struct Shared {
    /// Layers by their index.
    layers: HashSet<usize>,
    /// Files of those layers that have several names.
    inside: HashSet<u64>,
    /// Files that a node has in common with something else, with their bytes.
    links: BTreeMap<u64, u64>,
}

impl Shared {
    fn layer(&mut self, index: usize, layer: &Measured) {
        if self.layers.insert(index) {
            self.inside.extend(layer.linked.keys());
        }
    }

    fn links(&mut self, node: &Measured) {
        let shared = node.linked.iter().filter(|(_, file)| file.elsewhere > 0);
        self.links.extend(shared.map(|(inode, file)| (*inode, file.bytes)));
    }

    fn bytes(&self, layers: &[Layer]) -> u64 {
        let whole: u64 =
            self.layers.iter().filter_map(|index| layers.get(*index)).map(|layer| layer.1.bytes()).sum();
        let links = self.links.iter().filter(|(inode, _)| !self.inside.contains(inode));
        whole + links.map(|(_, bytes)| bytes).sum::<u64>()
    }
}

/// The files of a directory.
#[derive(Debug, Default)]
struct Measured {
    /// Bytes of directories, and of files with one name.
    single: u64,
    /// Files with several names, by inode number.
    linked: HashMap<u64, Linked>,
}

/// A file with several names.
#[derive(Debug)]
struct Linked {
    /// How many of its names are not in the directory.
    elsewhere: u64,
    bytes: u64,
}

impl Measured {
    /// Bytes of all files, each once.
    fn bytes(&self) -> u64 {
        self.single + self.linked.values().map(|file| file.bytes).sum::<u64>()
    }

    fn own_bytes(&self) -> u64 {
        let own = self.linked.values().filter(|file| file.elsewhere == 0);
        self.single + own.map(|file| file.bytes).sum::<u64>()
    }
}

/// Looks at all files of a directory; there are none if it is not there. What is mounted in it is not looked at.
fn measure(directory: &Path) -> Result<Measured> {
    look(directory).map_err(Error::file("measure files"))
}

fn look(directory: &Path) -> io::Result<Measured> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let mut measured = Measured::default();
    let top = match fs_err::symlink_metadata(directory) {
        Err(error) if gone(&error) => return Ok(measured),
        metadata => metadata?,
    };
    measured.single += top.blocks() * BLOCK;
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        // Nodes go on working: what is gone needs no space.
        let entries = match fs_err::read_dir(&directory) {
            Err(error) if gone(&error) => continue,
            entries => entries?,
        };
        for entry in entries {
            let (path, metadata) = match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?))) {
                Err(error) if gone(&error) => continue,
                found => found?,
            };
            if metadata.dev() != top.dev() {
                continue;
            }
            let bytes = metadata.blocks() * BLOCK;
            if metadata.is_dir() {
                measured.single += bytes;
                left.push(path);
            } else if metadata.nlink() == 1 {
                measured.single += bytes;
            } else {
                let linked = Linked { elsewhere: metadata.nlink(), bytes };
                let file = measured.linked.entry(metadata.ino()).or_insert(linked);
                file.elsewhere = file.elsewhere.saturating_sub(1);
            }
        }
    }
    Ok(measured)
}

/// What a directory holds, sorted; nothing if it is not there.
fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = match fs_err::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    list().map_err(Error::file("measure files"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{NodeRecord, NodeRole};

    const MIB: u64 = 1 << 20;

    fn write(path: &Path) {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, vec![1; MIB as usize]).unwrap();
    }

    fn link(from: &Path, to: &Path) {
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::hard_link(from, to).unwrap();
    }

    fn record(name: &str, layers: Vec<PathBuf>) -> NodeRecord {
        NodeRecord { role: NodeRole::Worker, image: String::new(), layers, ..NodeRecord::example(name) }
    }

    /// Whether it is that many mebibytes, and some for directories and records.
    #[track_caller]
    fn is_about(bytes: u64, mebibytes: u64) {
        assert!(
            (mebibytes * MIB..mebibytes * MIB + MIB / 4).contains(&bytes),
            "{bytes}, not {mebibytes} MiB"
        );
    }

    #[test]
    fn only_files_with_all_their_names_inside_count() {
        let root = tempfile::tempdir().unwrap();
        let (own, store) = (root.path().join("own"), root.path().join("store"));
        write(&store.join("layer"));
        link(&store.join("layer"), &own.join("deep/layer"));
        write(&own.join("deep/file"));
        link(&own.join("deep/file"), &own.join("again"));
        std::os::unix::fs::symlink("/", own.join("link")).unwrap();
        is_about(own_bytes(&own).unwrap(), 1);
        assert_eq!(own_bytes(&root.path().join("missing")).unwrap(), 0);
    }

    #[test]
    fn what_is_shared_is_counted_once() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path().join("state"), root.path().join("run"));
        let images = paths.images();
        // Two layers; of the first, a part of 1 MiB is also in the nodes' own /var.
        let [one, two] = ["11", "22"].map(|diff_id| images.join("layers").join(diff_id).join("fs"));
        write(&one.join("usr/lib"));
        write(&one.join("var/snapshot"));
        write(&two.join("etc/file"));
        write(&images.join("blobs/sha256/aa"));
        write(&paths.build_cache().join("step"));
        for (name, layers) in
            [("c-control-plane", vec![one.clone(), two.clone()]), ("c-worker", vec![one.clone()])]
        {
            state::save_node(&paths, "c", &record(name, layers)).unwrap();
            let node = paths.node("c", name);
            link(&one.join("var/snapshot"), &node.join("var/snapshot"));
            write(&node.join("upper/own"));
        }
        // Loaded into both: the store knows nothing of it, and it is the cluster's.
        let node = |name: &str| paths.node("c", name);
        write(&node("c-worker").join("var/both"));
        link(&node("c-worker").join("var/both"), &node("c-control-plane").join("var/both"));

        let used = disk_use(&paths).unwrap();
        let [cluster] = &used.clusters[..] else { panic!("{used:?}") };
        let [control_plane, worker] = &cluster.nodes[..] else { panic!("{cluster:?}") };
        is_about(control_plane.own_bytes, 1);
        is_about(control_plane.shared_bytes, 4);
        is_about(worker.own_bytes, 1);
        is_about(worker.shared_bytes, 3);
        is_about(cluster.own_bytes, 3);
        is_about(cluster.shared_bytes, 3);
        is_about(used.store.bytes, 4);
        assert_eq!(used.store.blobs, 1);
        is_about(used.store.blob_bytes, 1);
        let layers: Vec<_> =
            used.store.layers.iter().map(|layer| (&layer.diff_id[..], &layer.nodes[..])).collect();
        let both = ["c-control-plane".to_owned(), "c-worker".to_owned()];
        assert_eq!(layers, [("11", &both[..]), ("22", &both[..1])]);
        is_about(used.build_cache_bytes, 1);
        is_about(used.bytes(), 8);
    }

    #[test]
    fn nothing_takes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path().join("state"), root.path().join("run"));
        let used = disk_use(&paths).unwrap();
        assert_eq!((used.bytes(), used.clusters.len(), used.store.layers.len()), (0, 0, 0));
    }
}
