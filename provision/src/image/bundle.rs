//! Images that come together: those of an archive, or of an OCI image layout in a directory.
//!
//! Only what this host's platform needs has to be there. `docker save` from Docker's containerd store and others write
//! indexes that name variants they do not bring along; as after a pull, the index stays what the image's name stands
//! for.

use std::{
    io::{ErrorKind, Read},
    path::Path,
    sync::Arc,
};

use oci_spec::image::{Arch, Descriptor, Os};
use serde::Deserialize;

use super::{
    BlobSource, Blobs, Digest, Layer, Reference, content::Content, docker_archive, located, oci_index, parked,
};
use crate::{Error, Result};

const INDEX: &str = "index.json";

/// Images and their content, which stays where it is.
#[derive(Debug)]
pub struct Bundle {
    content: Content,
    images: Vec<BundleImage>,
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
        Self::of_archive(Content::parked(origin, parking, members))
    }

    /// Opens an archive that lies in a file. Only its headers and what describes its images are read, and its content
    /// stays where it is; `None` for a pipe or a compressed archive, which [`read_archive`](Self::read_archive) reads.
    /// Nobody verifies its layers before they are used.
    ///
    /// # Errors
    /// As for [`read_archive`](Self::read_archive); not [`Error::NoSpace`].
    pub fn open_archive(origin: &str, file: &Arc<fs_err::File>) -> Result<Option<Self>> {
        let members = located::locate(origin, file)?;
        members.map(|members| Self::of_archive(Content::located(origin, members))).transpose()
    }

    /// Reads an OCI image layout in a directory. Its layers are read when they are needed, and verified by nobody before.
    ///
    /// # Errors
    /// As for [`read_archive`](Self::read_archive), or [`Error::File`].
    pub fn open_layout(directory: &Path) -> Result<Self> {
        let content = Content::layout(directory);
        let index = match fs_err::read(directory.join(INDEX)) {
            Ok(index) => index,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(content.not_images(error));
            }
            Err(error) => return Err(Error::file("read an OCI image layout")(error)),
        };
        let images = oci_index::images(&content, &index)?;
        Self::new(content, images)
    }

    /// Takes one image from somebody else's content. `descriptor` is of its manifest or index. Its layers are read when they
    /// are needed, and verified by nobody before.
    ///
    /// # Errors
    /// [`Error::ArchiveRead`], [`Error::DigestMismatch`], [`Error::ContentMissing`], [`Error::NoPlatform`],
    /// [`Error::InvalidImage`].
    pub fn of_blobs(
        origin: &str,
        blobs: Arc<dyn Blobs>,
        descriptor: &Descriptor,
        name: Option<Reference>,
    ) -> Result<Self> {
        let content = Content::elsewhere(origin, blobs);
        let image = oci_index::image(&content, descriptor, name)?;
        Self::new(content, vec![image])
    }

    fn of_archive(content: Content) -> Result<Self> {
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

    fn new(content: Content, images: Vec<BundleImage>) -> Result<Self> {
        if images.is_empty() {
            return Err(content.not_images("there is no image in it"));
        }
        Ok(Self { content, images })
    }

    /// The images; at least one.
    #[must_use]
    pub fn images(&self) -> &[BundleImage] {
        &self.images
    }

    /// Where a blob of one of the images is.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> BlobSource {
        self.content.blob(digest)
    }

    /// What is to be said when a blob was found to be another one: an [`Error::DigestMismatch`] that names its path.
    #[must_use]
    pub fn mismatch(&self, expected: &Digest, actual: Digest) -> Error {
        self.content.mismatch(expected, actual)
    }
}

impl BundleImage {
    /// Its id: the digest of its configuration.
    #[must_use]
    pub fn id(&self) -> Digest {
        self.config.digest
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
