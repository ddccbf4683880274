//! Images that come together: those of an archive, or of an OCI image layout in a directory.
//!
//! Only what this host's platform needs has to be there. `docker save` from Docker's containerd store and others write
//! indexes that name variants they do not bring along; as after a pull, the index stays what the image's name stands
//! for.

use std::{
    collections::HashSet,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use oci_spec::image::{Arch, Os};
use serde::Deserialize;

use super::{
    Digest, Layer, Reference,
    digest::Hashed,
    docker_archive, oci_index,
    parked::{self, ARCHIVE, BLOBS, Members},
    store::MAX_DOCUMENT,
};
use crate::{Error, Result};

const LAYOUT: &str = "OCI image layout";
const INDEX: &str = "index.json";

/// Images and their content, which stays where it is.
#[derive(Debug)]
pub struct Bundle {
    content: Content,
    images: Vec<BundleImage>,
    /// What was read and found to be what its digest says.
    verified: Mutex<HashSet<Digest>>,
}

/// An image of a [`Bundle`], in its variant for this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleImage {
    /// Its names; none if only its digests identify it.
    pub names: Vec<Reference>,
    /// The indexes that lead to the manifest, outermost first.
    pub indexes: Vec<Document>,
    /// Its manifest.
    pub manifest: Document,
    /// Its configuration, whose digest is its id.
    pub config: Document,
    /// What it is made of, bottom first.
    pub layers: Vec<Layer>,
    /// The platform that it says it is for, when that is not this host's.
    pub foreign: Option<String>,
}

/// Content that describes other content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The digest of the bytes.
    pub digest: Digest,
    /// What kind of document it is.
    pub media_type: String,
    /// The document.
    pub bytes: Vec<u8>,
}

/// Where the content of a bundle is.
#[derive(Debug)]
pub(super) struct Content {
    /// What errors call it.
    pub(super) origin: String,
    /// Whether it is a directory, which nobody has verified, and not an archive.
    layout: bool,
    /// Has the blobs, named by the hexadecimal digits of their digests.
    directory: PathBuf,
    /// The files of an archive.
    members: Members,
}

/// What an image's configuration says that matters here. Strict readers refuse configurations that run well.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

impl Bundle {
    /// Reads an archive, as `docker save` or any tool for OCI images writes it, plain or compressed with gzip or zstd.
    /// Its content is left in `parking`, see [`Store::parking`](super::Store::parking), and is needed there for as
    /// long as the bundle is used. `origin` is what errors call it.
    ///
    /// # Errors
    /// [`Error::NotImages`], [`Error::ArchiveTruncated`], [`Error::ArchiveRead`], [`Error::NoSpace`],
    /// [`Error::DigestMismatch`], and where an image is incomplete [`Error::ContentMissing`], [`Error::NoPlatform`] or
    /// [`Error::InvalidImage`].
    pub fn read_archive(origin: &str, source: impl Read, parking: &Path) -> Result<Self> {
        let members = parked::park(origin, source, parking)?;
        let directory = parking.to_owned();
        let content = Content { origin: origin.to_owned(), layout: false, directory, members };
        // Docker writes both since version 25; of the two, this one has complete names and the original manifests.
        let images = if let Some(index) = content.member(INDEX)? {
            let mut images = oci_index::images(&content, &index)?;
            if images.iter().any(|image| image.names.is_empty()) {
                docker_archive::add_names(&content, &mut images)?;
            }
            images
        } else if let Some(manifest) = content.member(docker_archive::MANIFEST)? {
            docker_archive::images(&content, &manifest)?
        } else {
            return Err(content.not_images("it has neither index.json nor manifest.json"));
        };
        Self::new(content, images)
    }

    /// Reads an OCI image layout in a directory. Its layers are read when they are needed.
    ///
    /// # Errors
    /// As for [`read_archive`](Self::read_archive), or [`Error::File`].
    pub fn open_layout(directory: &Path) -> Result<Self> {
        let content = Content {
            origin: directory.display().to_string(),
            layout: true,
            directory: directory.join(BLOBS),
            members: Members::default(),
        };
        let index = match fs_err::read(directory.join(INDEX)) {
            Ok(index) => index,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(content.not_images(error));
            }
            Err(error) => return Err(Error::file("read an OCI image layout")(error)),
        };
        let images = oci_index::images(&content, &index)?;
        Self::new(content, images)
    }

    fn new(content: Content, images: Vec<BundleImage>) -> Result<Self> {
        if images.is_empty() {
            return Err(content.not_images("there is no image in it"));
        }
        Ok(Self { content, images, verified: Mutex::default() })
    }

    /// The images; at least one.
    #[must_use]
    pub fn images(&self) -> &[BundleImage] {
        &self.images
    }

    /// Where a blob of one of the images is.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.content.blob_path(digest)
    }

    /// Reads the layers of an image that nobody has verified before. Those of an archive have been when it was read.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::ArchiveRead`].
    pub fn verify(&self, image: &BundleImage) -> Result<()> {
        if !self.content.layout {
            return Ok(());
        }
        for layer in &image.layers {
            let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            if verified.contains(&layer.digest) {
                continue;
            }
            let path = self.blob_path(&layer.digest);
            let hashed = fs_err::File::open(&path).and_then(|file| {
                let mut file = Hashed::new(file);
                io::copy(&mut file, &mut io::sink())?;
                Ok(file.into_parts().1)
            });
            let actual = hashed.map_err(self.content.unreadable())?;
            self.content.compare(&layer.digest, actual)?;
            verified.insert(layer.digest);
        }
        Ok(())
    }
}

impl BundleImage {
    /// Its id: the digest of its configuration.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.config.digest
    }
}

impl Content {
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// The digest of an archive's file.
    pub(super) fn find(&self, path: &str) -> Option<Digest> {
        self.members.find(path)
    }

    /// A document of an archive, by its path.
    pub(super) fn member(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.find(path) {
            Some(digest) => self.read(&digest),
            None => Ok(None),
        }
    }

    /// Reads and verifies a document; `None` if it is not there.
    pub(super) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let file = match fs_err::File::open(self.blob_path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unreadable()(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(self.unreadable())?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let problem = format!("{digest} is too large for a document");
            return Err(self.unreadable()(io::Error::new(io::ErrorKind::FileTooLarge, problem)));
        }
        self.compare(digest, Digest::of(&bytes))?;
        Ok(Some(bytes))
    }

    /// The size of a blob; `None` if it is not there.
    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match fs_err::metadata(self.blob_path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unreadable()(error)),
        }
    }

    fn compare(&self, expected: &Digest, actual: Digest) -> Result<()> {
        if *expected == actual {
            return Ok(());
        }
        let what = format!("{BLOBS}{} of {}", expected.hex(), self.origin);
        Err(Error::DigestMismatch { what, expected: *expected, actual })
    }

    pub(super) fn not_images(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let kind = if self.layout { LAYOUT } else { ARCHIVE };
        Error::NotImages { origin: self.origin.clone(), kind, source: source.into() }
    }

    pub(super) fn missing(&self, image: &str, what: String) -> Error {
        Error::ContentMissing { origin: self.origin.clone(), image: image.to_owned(), what }
    }

    fn unreadable(&self) -> impl FnOnce(io::Error) -> Error {
        let origin = self.origin.clone();
        move |source| Error::ArchiveRead { origin, source }
    }
}

impl Config {
    pub(super) fn parse(image: &str, bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| invalid(image, error))
    }

    pub(super) fn diff_ids(&self) -> &[String] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// The platform, when it is another than this host's. What says nothing is for any.
    pub(super) fn foreign(&self) -> Option<String> {
        let fits = |said: &str, here: String| said.is_empty() || said == here;
        let is_here =
            fits(&self.os, Os::Linux.to_string()) && fits(&self.architecture, Arch::default().to_string());
        (!is_here).then(|| format!("{}/{}", self.os, self.architecture))
    }
}

pub(super) fn invalid(image: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::InvalidImage { image: image.to_owned(), source: source.into() }
}
