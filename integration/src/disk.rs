//! Disk use of clusters and the contents of the image store.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Bytes that `directory` holds for itself: allocated blocks, each file once, files that `shared` also holds (hard
/// links) not counted.
#[must_use]
pub fn own_bytes(directory: &Path, shared: &BTreeSet<(u64, u64)>) -> u64 {
    let mut seen = shared.clone();
    let mut bytes = 0;
    visit(directory, &mut |_, metadata| {
        if seen.insert((metadata.dev(), metadata.ino())) {
            bytes += metadata.blocks() * BLOCK;
        }
    });
    bytes
}

/// Device and inode of every file below `directory` that has more than one name.
#[must_use]
pub fn linked_files(directory: &Path) -> BTreeSet<(u64, u64)> {
    let mut files = BTreeSet::new();
    visit(directory, &mut |_, metadata| {
        if metadata.nlink() > 1 && !metadata.is_dir() {
            files.insert((metadata.dev(), metadata.ino()));
        }
    });
    files
}

/// What the image store holds: each blob and each unpacked layer with its identity. Unpacking, pulling or building
/// anything changes it; running a cluster must not.
#[must_use]
pub fn store_contents(state_root: &Path) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
    let images = state_root.join("images");
    let mut contents = BTreeMap::new();
    for directory in ["blobs/sha256", "layers", "tmp"] {
        for entry in fs_err::read_dir(images.join(directory)).into_iter().flatten().flatten() {
            if let Ok(metadata) = entry.metadata() {
                contents.insert(entry.path(), (metadata.ino(), metadata.modified().ok()));
            }
        }
    }
    contents
}

/// Files of the store's unpacked layers that have other names too, as nodes give them: which files they are, and what of
/// them would change if somebody wrote to them.
#[must_use]
pub fn shared_files(state_root: &Path) -> BTreeMap<PathBuf, (u64, u64, Option<SystemTime>)> {
    let mut files = BTreeMap::new();
    visit(&state_root.join("images/layers"), &mut |path, metadata| {
        if metadata.nlink() > 1 && metadata.is_file() {
            files.insert(path.to_owned(), (metadata.ino(), metadata.len(), metadata.modified().ok()));
        }
    });
    files
}

fn visit(directory: &Path, seen: &mut dyn FnMut(&Path, &std::fs::Metadata)) {
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        seen(&entry.path(), &metadata);
        if metadata.is_dir() {
            visit(&entry.path(), seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_of_the_store_are_not_counted_and_others_once() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (store, cluster) = (root.path().join("store"), root.path().join("cluster"));
        fs_err::create_dir(&store).expect("a directory");
        fs_err::create_dir(&cluster).expect("a directory");
        let content = vec![1; 1 << 20];
        fs_err::write(store.join("shared"), &content).expect("a file");
        fs_err::hard_link(store.join("shared"), cluster.join("shared")).expect("a link");
        fs_err::write(cluster.join("own"), &content).expect("a file");
        fs_err::hard_link(cluster.join("own"), cluster.join("again")).expect("a link");
        let own = own_bytes(&cluster, &linked_files(&store));
        assert!((1 << 20..2 << 20).contains(&own), "{own}");
    }
}
