//! What of the store is used, by which names, and taking away the rest.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::{
    Digest, Image, Store,
    derived::derived_id,
    failed,
    index::Index,
    manifest::{MAX_DEPTH, is_index, read_image},
    partial,
    scratch::{self, ScratchDirectory},
};
use crate::{Error, Result};

/// What an image takes of the disk.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes of its blobs that are other names' as well, out of [`Image::size`].
    pub shared: u64,
    /// Bytes on the disk of its layers as far as they are unpacked, shared ones included.
    pub unpacked: u64,
}

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs, and halves of blobs.
    pub blobs: usize,
    /// Unpacked layers.
    pub layers: usize,
    /// Bytes on the disk that they took.
    pub bytes: u64,
}

/// Content that a name leads to.
#[derive(Debug, Default)]
struct Reached {
    /// With the sizes that their descriptors claim.
    blobs: BTreeMap<Digest, u64>,
    layers: BTreeSet<Digest>,
}

impl Store {
    /// All images in their variants for this host with what they take, sorted by name.
    ///
    /// # Errors
    /// As for [`images`](Self::images).
    pub fn usage(&self) -> Result<Vec<ImageUsage>> {
        let index = Index::read(self.root())?;
        let mut users: BTreeMap<Digest, BTreeSet<usize>> = BTreeMap::new();
        let mut reached = Vec::new();
        for (number, (_, descriptor)) in index.entries().iter().enumerate() {
            let mut own = Reached::default();
            self.reach(descriptor, 0, &mut own)?;
            for blob in own.blobs.keys() {
                users.entry(*blob).or_default().insert(number);
            }
            reached.push(own);
        }
        let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
        let mut list = Vec::new();
        for ((name, descriptor), own) in index.entries().iter().zip(reached) {
            let image = read_image(self, name, descriptor)?;
            let is_shared = |digest: &Digest| users.get(digest).is_some_and(|users| users.len() > 1);
            let mut seen = HashSet::new();
            let shared =
                image.layers.iter().filter(|layer| is_shared(&layer.digest) && seen.insert(layer.digest));
            let shared: u64 = shared.fold(0, |sum, layer| sum.saturating_add(layer.size));
            let mut unpacked = 0;
            for layer in &own.layers {
                unpacked += match sizes.get(layer) {
                    Some(size) => *size,
                    None => {
                        let size = tree_bytes(&self.layer_directory(layer));
                        let size = size.map_err(failed(format!("measure layer {layer}"), self.root()))?;
                        *sizes.entry(*layer).or_insert(size)
                    }
                };
            }
            list.push(ImageUsage { image, shared, unpacked });
        }
        Ok(list)
    }

    /// Takes away what no name leads to: blobs, and unpacked layers that are not in `used` either, the directories that
    /// nodes have. `used` is asked when nobody can begin to use another.
    ///
    /// # Errors
    /// [`Error::StoreInUse`] when somebody has a promise ([`share`](Self::share)). The documents of an image cannot be read,
    /// which leaves everything as it is; or something cannot be removed.
    pub fn prune(&self, used: impl FnOnce() -> Result<Vec<PathBuf>>) -> Result<Pruned> {
        let root = self.root();
        let lock = scratch::try_lock_directory(&root.join("blobs"));
        let _lock = lock.map_err(failed("lock the image store", root))?.ok_or(Error::StoreInUse)?;
        let used = used()?;
        let mut reached = Reached::default();
        for (_, descriptor) in Index::read(root)?.entries() {
            self.reach(descriptor, 0, &mut reached)?;
        }
        self.remove_unreached(&reached, &used).map_err(failed("prune the image store", root))
    }

    fn remove_unreached(&self, reached: &Reached, used: &[PathBuf]) -> io::Result<Pruned> {
        let mut pruned = Pruned::default();
        for (digest, path) in digests(&self.root().join("blobs/sha256"))? {
            if !reached.blobs.contains_key(&digest) {
                pruned.bytes += fs_err::symlink_metadata(&path)?.blocks() * 512;
                fs_err::remove_file(&path)?;
                pruned.blobs += 1;
            }
        }
        for (digest, path) in digests(&self.root().join("layers"))? {
            if !reached.layers.contains(&digest) && !used.contains(&self.layer_path(&digest)) {
                pruned.bytes += tree_bytes(&path)?;
                // First out of sight, then file by file: a half removed layer must not be taken for one.
                let scratch = ScratchDirectory::acquire(&self.tmp(), &format!("removed-{}", digest.hex()))?;
                fs_err::rename(&path, scratch.path().join("layer"))?;
                pruned.layers += 1;
            }
        }
        Ok(pruned)
    }

    /// Takes away the halves of blobs that nobody is downloading.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn prune_partial(&self) -> Result<Pruned> {
        let removed = || -> io::Result<Pruned> {
            let halves = || tree_bytes(&self.root().join(partial::PARTIAL));
            let before = halves()?;
            let blobs = partial::sweep(self.root(), Duration::ZERO)?;
            Ok(Pruned { blobs, layers: 0, bytes: before.saturating_sub(halves()?) })
        };
        removed().map_err(failed("remove halves of blobs", self.root()))
    }

    /// Adds all content in the store that a descriptor leads to. Variants for other platforms may be missing.
    fn reach(&self, descriptor: &Descriptor, depth: u32, reached: &mut Reached) -> Result<()> {
        let digest = Digest::try_from(descriptor.digest())?;
        if depth > MAX_DEPTH
            || !self.has_blob(&digest)
            || reached.blobs.insert(digest, descriptor.size()).is_some()
        {
            return Ok(());
        }
        let unusable = |error: serde_json::Error| Error::InvalidImage {
            image: format!("manifest {digest}"),
            source: error.into(),
        };
        let bytes = self.read_blob(&digest)?;
        if is_index(descriptor) {
            let index: ImageIndex = serde_json::from_slice(&bytes).map_err(unusable)?;
            return index.manifests().iter().try_for_each(|entry| self.reach(entry, depth + 1, reached));
        }
        let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(unusable)?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            reached.blobs.insert(Digest::try_from(blob.digest())?, blob.size());
        }
        // One that is not there does not count.
        reached.layers.insert(derived_id(&digest));
        let config = Digest::try_from(manifest.config().digest())?;
        if self.has_blob(&config) {
            reached.layers.extend(diff_ids(&self.read_blob(&config)?));
        }
        Ok(())
    }

    pub(super) fn layer_directory(&self, diff_id: &Digest) -> PathBuf {
        self.root().join("layers").join(diff_id.hex())
    }
}

/// The layers that a configuration names; none in what is no configuration of an image (an attestation's).
fn diff_ids(config: &[u8]) -> Vec<Digest> {
    let value: serde_json::Value = serde_json::from_slice(config).unwrap_or_default();
    let ids = value.pointer("/rootfs/diff_ids").and_then(serde_json::Value::as_array);
    let ids = ids.into_iter().flatten().filter_map(|id| id.as_str());
    ids.filter_map(|id| Digest::try_new(id).ok()).collect()
}

/// The entries of a directory that are named by a digest; what is named otherwise is none of the store's.
pub(super) fn digests(directory: &Path) -> io::Result<Vec<(Digest, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(digest) = name.to_str().and_then(|hex| Digest::try_new(&format!("sha256:{hex}")).ok()) {
            found.push((digest, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Bytes on the disk of the files in a directory; of one that is not there, none.
fn tree_bytes(directory: &Path) -> io::Result<u64> {
    let (mut bytes, mut seen, mut waiting) = (0, HashSet::new(), vec![directory.to_owned()]);
    while let Some(directory) = waiting.pop() {
        let entries = match fs_err::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.nlink() < 2 || metadata.is_dir() || seen.insert(metadata.ino()) {
                bytes += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
