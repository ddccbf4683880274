//! Where the content of a bundle is, and what is known of it.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Digest,
    members::Members,
    parked::{ARCHIVE, BLOBS, Compressed, digest_of_path, start_of},
    part::FilePart,
    store::MAX_DOCUMENT,
};
use crate::{Error, Result};

const LAYOUT: &str = "OCI image layout";

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub enum BlobSource {
    /// They are a file of somebody else's.
    File(PathBuf),
    /// They are a file in a [`Parking`](super::Parking), where everything has been verified and nothing changes any more.
    Parked(PathBuf),
    /// They are a part of one.
    Part(FilePart),
    /// Somebody else has them, by their digest.
    Elsewhere(Arc<dyn Blobs>, Digest),
}

/// Somebody else's content, by digest. Asking for it may block.
pub trait Blobs: fmt::Debug + Send + Sync {
    /// The size of a blob in bytes; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be told.
    fn size(&self, digest: &Digest) -> io::Result<Option<u64>>;

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there; or it cannot be read.
    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read + Send>>;
}

impl BlobSource {
    /// Opens it for reading.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::File(path) | Self::Parked(path) => Box::new(fs_err::File::open(path)?),
            Self::Part(part) => Box::new(part.reader()),
            Self::Elsewhere(blobs, digest) => return blobs.open(digest),
        })
    }
}

/// The content of a bundle.
#[derive(Debug)]
pub(super) struct Content {
    /// What errors call it.
    pub(super) origin: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// A layout's directory of blobs, which nobody has verified.
    Layout(PathBuf),
    /// What an archive had, in a directory, named by the hexadecimal digits of the digests that it was found to have.
    Parked(PathBuf, Members<Digest>),
    /// An archive's own file, which nobody has verified.
    Located(Members<FilePart>, Mutex<Promises>),
    /// What somebody else has.
    Elsewhere(Arc<dyn Blobs>),
}

/// What is called by another name than its digest, and what that should be.
type Promises = HashMap<Digest, (String, FilePart)>;

/// A layer of an archive, by its path.
pub(super) struct FoundLayer {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) compressed: Compressed,
}

impl Content {
    pub(super) fn layout(directory: &Path) -> Self {
        Self { origin: directory.display().to_string(), place: Place::Layout(directory.join(BLOBS)) }
    }

    pub(super) fn parked(origin: &str, directory: &Path, members: Members<Digest>) -> Self {
        Self { origin: origin.to_owned(), place: Place::Parked(directory.to_owned(), members) }
    }

    pub(super) fn located(origin: &str, members: Members<FilePart>) -> Self {
        Self { origin: origin.to_owned(), place: Place::Located(members, Mutex::default()) }
    }

    pub(super) fn elsewhere(origin: &str, blobs: Arc<dyn Blobs>) -> Self {
        Self { origin: origin.to_owned(), place: Place::Elsewhere(blobs) }
    }

    /// Where a blob is, if it is there.
    pub(super) fn blob(&self, digest: &Digest) -> BlobSource {
        match &self.place {
            Place::Layout(directory) => BlobSource::File(directory.join(digest.hex())),
            Place::Parked(directory, _) => BlobSource::Parked(directory.join(digest.hex())),
            Place::Located(members, promises) => {
                let path = format!("{BLOBS}{}", digest.hex());
                let promises = promises.lock().unwrap_or_else(PoisonError::into_inner);
                let part = members.find(&path).map(|(_, part)| part);
                match part.or_else(|| promises.get(digest).map(|(_, part)| part)) {
                    Some(part) => BlobSource::Part(part.clone()),
                    // Nothing is there.
                    None => BlobSource::File(PathBuf::from(path)),
                }
            }
            Place::Elsewhere(blobs) => BlobSource::Elsewhere(Arc::clone(blobs), *digest),
        }
    }

    /// The digest of an archive's document, by its path.
    pub(super) fn find(&self, path: &str) -> Result<Option<Digest>> {
        match &self.place {
            Place::Layout(_) | Place::Elsewhere(_) => Ok(None),
            Place::Parked(_, members) => Ok(members.find(path).map(|(_, digest)| *digest)),
            Place::Located(members, promises) => {
                let Some((path, part)) = members.find(path) else { return Ok(None) };
                if let Some(digest) = digest_of_path(&path) {
                    return Ok(Some(digest));
                }
                let digest = Digest::of(&self.document(part.reader(), &path)?);
                promise(promises, digest, path, part);
                Ok(Some(digest))
            }
        }
    }

    /// A layer of an archive, by its path and by what its configuration says it is without compression. Without, that is
    /// the digest of its bytes too, so that they need not be read.
    pub(super) fn find_layer(&self, path: &str, diff_id: &Digest) -> Result<Option<FoundLayer>> {
        let found = match &self.place {
            Place::Layout(_) | Place::Elsewhere(_) => None,
            Place::Parked(directory, members) => members.find(path).map(|(_, digest)| {
                let mut file = fs_err::File::open(directory.join(digest.hex()))?;
                let compressed = Compressed::of(&start_of(&mut file)?);
                Ok(FoundLayer { digest: *digest, size: file.metadata()?.len(), compressed })
            }),
            Place::Located(members, promises) => members.find(path).map(|(path, part)| {
                let compressed = Compressed::of(&start_of(&mut part.reader())?);
                let digest = match (digest_of_path(&path), compressed) {
                    (Some(digest), _) => digest,
                    (None, Compressed::Gzip | Compressed::Zstd) => Digest::of_reader(part.reader())?,
                    (None, _) => *diff_id,
                };
                promise(promises, digest, path, part);
                Ok(FoundLayer { digest, size: part.length(), compressed })
            }),
        };
        found.transpose().map_err(self.unreadable())
    }

    /// A document of an archive, by its path.
    pub(super) fn member(&self, path: &str) -> Result<Option<Vec<u8>>> {
        match self.find(path)? {
            Some(digest) => self.read(&digest),
            None => Ok(None),
        }
    }

    /// Reads and verifies a document; `None` if it is not there.
    pub(super) fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let source = match self.blob(digest).open() {
            Ok(source) => source,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unreadable()(error)),
        };
        let bytes = self.document(source, &digest.to_string())?;
        self.compare(digest, Digest::of(&bytes))?;
        Ok(Some(bytes))
    }

    /// The size of a blob; `None` if it is not there.
    pub(super) fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = match self.blob(digest) {
            BlobSource::Part(part) => return Ok(Some(part.length())),
            BlobSource::Elsewhere(blobs, digest) => return blobs.size(&digest).map_err(self.unreadable()),
            BlobSource::File(path) | BlobSource::Parked(path) => path,
        };
        match fs_err::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unreadable()(error)),
        }
    }

    fn document(&self, source: impl Read, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(self.unreadable())?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let problem = format!("{what} is too large for a document");
            return Err(self.unreadable()(io::Error::new(io::ErrorKind::FileTooLarge, problem)));
        }
        Ok(bytes)
    }

    fn compare(&self, expected: &Digest, actual: Digest) -> Result<()> {
        if *expected == actual { Ok(()) } else { Err(self.mismatch(expected, actual)) }
    }

    /// That a blob is something else, by the path that it has here.
    pub(super) fn mismatch(&self, expected: &Digest, actual: Digest) -> Error {
        let mut path = format!("{BLOBS}{}", expected.hex());
        if let Place::Located(_, promises) = &self.place {
            let promises = promises.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((called, _)) = promises.get(expected) {
                path.clone_from(called);
            }
        }
        let what = format!("{path} of {}", self.origin);
        Error::DigestMismatch { what, expected: *expected, actual }
    }

    pub(super) fn not_images(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let kind = if matches!(self.place, Place::Layout(_)) { LAYOUT } else { ARCHIVE };
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

fn promise(promises: &Mutex<Promises>, digest: Digest, path: String, part: &FilePart) {
    let mut promises = promises.lock().unwrap_or_else(PoisonError::into_inner);
    promises.entry(digest).or_insert_with(|| (path, part.clone()));
}
