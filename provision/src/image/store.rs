//! The store of images of one host.

use std::{
    fs::DirBuilder,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use oci_spec::image::Descriptor;

use super::{
    BlobWriter, Digest, Image, Layer, Parking, Reference,
    blob::blob_path,
    failed,
    index::{self, Index},
    manifest::read_image,
    partial::{self, PARTIAL, Partial},
    scratch::{self, ScratchDirectory},
    stream::{Compression, decompress},
    unpack::{MAX_BYTES, extract},
};
use crate::{Error, Result};

/// Bytes of a manifest or configuration: several times what registries accept.
pub(super) const MAX_DOCUMENT: u64 = 16 << 20;
/// Layers that are unpacked at once. Each keeps two threads busy; beyond a few, the disk is what they wait for.
const MAX_PARALLEL: usize = 4;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The images of one host: see the [module](super). Cheap to clone; any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A promise that content stays, for as long as this lives; see [`Store::share`].
#[derive(Debug)]
pub struct InUse(#[expect(dead_code, reason = "it is held, not used")] std::fs::File);

impl Store {
    /// Opens the store in the directory `root` (the same as [`Paths::images`](crate::Paths::images)), makes it if it
    /// is missing, and removes what killed processes left half-written.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(root: &Path) -> Result<Self> {
        let store = Self { root: root.to_owned() };
        let opened = || -> io::Result<()> {
            // Layers hold set-uid programs and devices of strangers: other users of the host must not reach them.
            for directory in ["blobs/sha256", "layers", PARTIAL, "tmp"] {
                DirBuilder::new().recursive(true).mode(0o700).create(root.join(directory))?;
            }
            let layout = root.join("oci-layout");
            if !layout.exists() {
                scratch::replace_file(&store.tmp(), &layout, LAYOUT)?;
            }
            Ok(())
        };
        opened().map_err(failed(format!("open the image store {}", root.display()), root))?;
        store.sweep()?;
        Ok(store)
    }

    /// The names in the store at `root`, sorted. Makes and removes nothing, and does not look at the images.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn names(root: &Path) -> Result<Vec<Reference>> {
        Ok(Index::read(root)?.entries().iter().map(|(name, _)| name.clone()).collect())
    }

    /// Removes what killed processes left half-written; returns how many things that were. What a living process
    /// writes stays.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn sweep(&self) -> Result<usize> {
        let stale = partial::sweep(&self.root, partial::KEPT);
        stale
            .and_then(|stale| Ok(stale + scratch::sweep(&self.tmp())?))
            .map_err(failed("remove what an earlier process left in the image store", &self.root))
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob is or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.root, digest)
    }

    /// Whether the blob is there. A blob that is there is complete.
    #[must_use]
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// No temporary file can be made.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        BlobWriter::create(self.root.clone())
    }

    /// Takes a blob that is to be downloaded, or continued: `None` if it is there. While another process downloads it,
    /// this waits; `waits` is called before.
    ///
    /// # Errors
    /// The partial file cannot be made or read.
    pub fn partial_blob(&self, digest: &Digest, waits: impl FnOnce()) -> Result<Option<Partial>> {
        Partial::take(&self.root, digest, waits)
            .map_err(failed(format!("make a file for blob {digest}"), &self.root))
    }

    /// Removes what there is of a blob that is not complete, unless somebody is downloading it.
    pub fn discard_partial(&self, digest: &Digest) {
        partial::discard(&self.root, digest);
    }

    /// A promise that nothing is taken away from the store: to be held by whoever puts content in before it has a name,
    /// and by whoever uses content that no record of a node protects yet. Waits while [`prune`](Self::prune) works.
    ///
    /// # Errors
    /// The store cannot be locked.
    pub fn share(&self) -> Result<InUse> {
        let lock = scratch::share_directory(&self.root.join("blobs"));
        lock.map(InUse).map_err(failed("lock the image store", &self.root))
    }

    /// A place for the content of an archive that is being read; see [`Bundle`](super::Bundle).
    ///
    /// # Errors
    /// No temporary directory can be made.
    pub fn parking(&self) -> Result<Parking> {
        Parking::create(&self.tmp()).map_err(failed("make a directory for an archive's content", &self.root))
    }

    /// Stores a blob at once. Returns its digest and its size in bytes.
    ///
    /// # Errors
    /// The blob cannot be written; nothing is left of it then.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<(Digest, u64)> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest) {
            return Ok((digest, bytes.len() as u64));
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(failed(format!("store blob {digest}"), &self.root))?;
        writer.finish(Some(&digest))
    }

    /// Reads a blob that describes something, such as a manifest, and verifies it.
    ///
    /// # Errors
    /// [`Error::BlobMissing`], [`Error::DigestMismatch`] if it was damaged, or [`Error::ImageStore`], also for a blob
    /// of more than 16 MiB: those are read through [`blob_path`](Self::blob_path).
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let what = || format!("read blob {digest}");
        let mut bytes = Vec::new();
        let file = self.open_blob(digest)?;
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed(what(), &self.root))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(failed(what(), &self.root)(io::ErrorKind::FileTooLarge.into()));
        }
        verify(format!("blob {digest}"), *digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    pub(super) fn open_blob(&self, digest: &Digest) -> Result<fs_err::File> {
        fs_err::File::open(self.blob_path(digest)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::BlobMissing { digest: *digest },
            _ => failed(format!("read blob {digest}"), &self.root)(error),
        })
    }

    /// Gives an image, whose blobs are all in the store, a name; another image of that name loses it.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] without the manifest; the index cannot be read or written.
    pub fn tag(&self, name: &Reference, manifest: &Descriptor) -> Result<()> {
        let digest = Digest::try_from(manifest.digest())?;
        if !self.has_blob(&digest) {
            return Err(Error::BlobMissing { digest });
        }
        index::update(&self.root, |entries| {
            entries.retain(|(known, _)| known != name);
            entries.push((name.clone(), manifest.clone()));
            true
        })?;
        Ok(())
    }

    /// Takes a name away; the content stays. Returns whether there was such a name.
    ///
    /// # Errors
    /// The index cannot be read or written.
    pub fn untag(&self, name: &Reference) -> Result<bool> {
        index::update(&self.root, |entries| {
            let before = entries.len();
            entries.retain(|(known, _)| known != name);
            entries.len() < before
        })
    }

    /// The image of a name, in its variant for this host; `None` if no image has it. A name with a digest also finds
    /// an image of the same repository that has the digest but another tag.
    ///
    /// # Errors
    /// The index cannot be read, or the image is incomplete, damaged or not for this host.
    pub fn image(&self, name: &Reference) -> Result<Option<Image>> {
        let index = Index::read(&self.root)?;
        index.find(name).map(|(name, descriptor)| read_image(self, name, descriptor)).transpose()
    }

    /// What a name stands for: a manifest, or an index of several; `None` if no image has it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn descriptor(&self, name: &Reference) -> Result<Option<Descriptor>> {
        Ok(Index::read(&self.root)?.find(name).map(|(_, descriptor)| descriptor.clone()))
    }

    /// The image that `descriptor`, a manifest or an index in the store, describes, as one of this name, which it need
    /// not have.
    ///
    /// # Errors
    /// The image is incomplete, damaged or not for this host.
    pub fn read_image(&self, name: &Reference, descriptor: &Descriptor) -> Result<Image> {
        read_image(self, name, descriptor)
    }

    /// All images, sorted by name.
    ///
    /// # Errors
    /// As for [`image`](Self::image), for any of them.
    pub fn images(&self) -> Result<Vec<Image>> {
        Index::read(&self.root)?.entries().iter().map(|(name, entry)| read_image(self, name, entry)).collect()
    }

    /// Where the unpacked layer is or would be, by the digest of its uncompressed archive.
    #[must_use]
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex()).join("fs")
    }

    /// Unpacks the layers that no image had before and returns the directories of all, top first, as overlayfs and
    /// [`materialise`](super::materialise) take them. Nothing may be changed in them. If another process unpacks one of
    /// them, this waits for it.
    ///
    /// A layer that an image has twice is returned once, at its upper place: what it has below is hidden by itself,
    /// and overlayfs refuses to have a directory twice.
    ///
    /// # Errors
    /// A blob is missing or damaged, a layer is malformed or too large, or cannot be written; layers that were
    /// complete stay, of others nothing is left.
    pub fn unpack(&self, image: &Image) -> Result<Vec<PathBuf>> {
        let mut layers: Vec<&Layer> = Vec::new();
        for layer in image.layers.iter().rev() {
            if !layers.iter().any(|known| known.diff_id == layer.diff_id) {
                layers.push(layer);
            }
        }
        let missing: Vec<_> =
            layers.iter().filter(|layer| !self.layer_path(&layer.diff_id).exists()).collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers = (cores / 2).clamp(1, MAX_PARALLEL).min(missing.len());
        let queue = Mutex::new(missing.into_iter());
        let next = || queue.lock().ok().and_then(|mut queue| queue.next());
        let work = || -> Result<()> {
            while let Some(layer) = next() {
                if let Err(error) = self.unpack_layer(layer) {
                    // The others need not begin anything more.
                    while next().is_some() {}
                    return Err(error);
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            let outcomes: Vec<_> = handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
                .collect();
            outcomes.into_iter().collect::<Result<()>>()
        })?;
        Ok(layers.iter().map(|layer| self.layer_path(&layer.diff_id)).collect())
    }

    fn unpack_layer(&self, layer: &Layer) -> Result<()> {
        let diff_id = layer.diff_id;
        let destination = self.root.join("layers").join(diff_id.hex());
        let what = || format!("unpack layer {diff_id}");
        let compression = Compression::of_layer(&layer.media_type).ok_or_else(|| Error::InvalidImage {
            image: format!("layer {}", layer.digest),
            source: format!("it has the unknown media type {:?}", layer.media_type).into(),
        })?;
        let scratch = ScratchDirectory::acquire(&self.tmp(), &format!("layer-{}", diff_id.hex()))
            .map_err(failed(what(), &self.root))?;
        if destination.exists() {
            return Ok(());
        }

        let blob = self.open_blob(&layer.digest)?.into_parts().0;
        let root = scratch.path().join("fs");
        let mut current = None;
        let unpacked = || -> io::Result<_> {
            fs_err::create_dir(&root)?;
            // Not subject to the umask, unlike the mode it was made with.
            let root = fs_err::File::open(&root)?;
            rustix::fs::fchmod(&root, rustix::fs::Mode::from_raw_mode(0o755))?;
            decompress(blob, compression, MAX_BYTES, |archive| extract(archive, root.as_fd(), &mut current))
        }();
        let ((), digests) = unpacked.map_err(|error| match &current {
            Some(entry) => {
                let entry = String::from_utf8_lossy(entry).into_owned();
                match failed(format!("unpack {entry:?} of layer {diff_id}"), &self.root)(error) {
                    Error::ImageStore { source, .. } => Error::LayerEntry { layer: diff_id, entry, source },
                    error => error,
                }
            }
            None => failed(what(), &self.root)(error),
        })?;
        verify(format!("blob {}", layer.digest), layer.digest, digests.compressed)?;
        verify(format!("layer {diff_id}"), diff_id, digests.content)?;
        scratch.publish(&destination).map_err(failed(what(), &self.root))
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

fn verify(what: String, expected: Digest, actual: Digest) -> Result<()> {
    if expected == actual { Ok(()) } else { Err(Error::DigestMismatch { what, expected, actual }) }
}
