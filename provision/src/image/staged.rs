//! Content on its way into nodes: read once, verified, and on disk in a file that nodes can be given links to.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{Mode, fchmod};

use super::{BlobSource, Digest, Parking, digest::Hasher, failed};
use crate::{Error, Result};

/// Bytes that are read, hashed and written at a time: they are still in the processor's cache when they are written.
const CHUNK: usize = 256 * 1024;

/// What containerd gives its content: nobody is to change it.
const READ_ONLY: Mode = Mode::from_raw_mode(0o444);

impl Parking {
    /// Brings a blob into the directory, if it is not in one already, and makes sure that it survives a crash. Whoever is
    /// given a link to the file may so record it as complete. Ends early when `given_up` becomes true. Blocks.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read or has another size, [`Error::DigestMismatch`] when it is not what its digest
    /// says, [`Error::NoSpace`] or [`Error::ImageStore`] when it cannot be written, [`Error::Interrupted`]. Nothing is left of
    /// it then.
    pub fn stage(
        &self,
        source: &BlobSource,
        digest: &Digest,
        size: u64,
        given_up: &AtomicBool,
    ) -> Result<PathBuf> {
        let not_kept = || failed(format!("store blob {digest} for the nodes"), self.path());
        if let BlobSource::Parked(path) = source {
            let file = fs_err::File::open(path).map_err(unreadable)?;
            fit(file.metadata().map_err(unreadable)?.len(), digest, size)?;
            keep(&file).map_err(not_kept())?;
            return Ok(path.clone());
        }
        let path = self.path().join(digest.hex());
        let copied = || -> Result<()> {
            let mut file = fs_err::File::create(&path).map_err(not_kept())?;
            let mut source = source.open().map_err(unreadable)?;
            let (mut hasher, mut written, mut buffer) = (Hasher::default(), 0, vec![0; CHUNK]);
            loop {
                if given_up.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let count = match source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(unreadable(error)),
                };
                hasher.update(&buffer[..count]);
                file.write_all(&buffer[..count]).map_err(not_kept())?;
                written += count as u64;
            }
            let actual = hasher.finish();
            if actual != *digest {
                return Err(Error::DigestMismatch { what: "a blob".to_owned(), expected: *digest, actual });
            }
            fit(written, digest, size)?;
            keep(&file).map_err(not_kept())
        };
        copied().inspect_err(|_| drop(fs_err::remove_file(&path)))?;
        Ok(path)
    }
}

fn unreadable(source: io::Error) -> Error {
    Error::File { what: "read content for a node", source }
}

fn fit(actual: u64, digest: &Digest, expected: u64) -> Result<()> {
    if actual == expected {
        return Ok(());
    }
    let problem = format!("{digest} has {actual} bytes, not {expected} as its manifest says");
    Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, problem)))
}

fn keep(file: &fs_err::File) -> io::Result<()> {
    fchmod(file, READ_ONLY)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Site {
        directory: tempfile::TempDir,
        parking: Parking,
    }

    impl Site {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let parking = Parking::create(directory.path()).unwrap();
            Self { directory, parking }
        }

        fn source(&self, content: &[u8]) -> BlobSource {
            let path = self.directory.path().join("source");
            fs_err::write(&path, content).unwrap();
            BlobSource::File(path)
        }

        fn staged(&self, content: &[u8], digest: &Digest, size: u64) -> Result<PathBuf> {
            self.parking.stage(&self.source(content), digest, size, &AtomicBool::new(false))
        }

        fn is_empty(&self) -> bool {
            fs_err::read_dir(self.parking.path()).unwrap().next().is_none()
        }
    }

    #[test]
    fn a_blob_becomes_a_file_that_nobody_is_to_change() {
        let site = Site::new();
        let content = vec![7; 2 * CHUNK + 3];
        let path = site.staged(&content, &Digest::of(&content), content.len() as u64).unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), content);
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
    }

    #[test]
    fn what_is_parked_already_is_not_copied() {
        let site = Site::new();
        let BlobSource::File(path) = site.source(b"parked") else { unreachable!() };
        let (source, digest) = (BlobSource::Parked(path.clone()), Digest::of(b"parked"));
        assert_eq!(site.parking.stage(&source, &digest, 6, &AtomicBool::new(false)).unwrap(), path);
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o444);
        assert!(site.parking.stage(&source, &digest, 7, &AtomicBool::new(false)).is_err());
        assert!(site.is_empty() && path.exists());
    }

    #[test]
    fn nothing_stays_of_what_is_wrong_or_given_up() {
        let site = Site::new();
        let error = site.staged(b"other", &Digest::of(b"blob"), 5).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        let error = site.staged(b"blob", &Digest::of(b"blob"), 5).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        let given_up = AtomicBool::new(true);
        let error = site.parking.stage(&site.source(b"a"), &Digest::of(b"a"), 1, &given_up).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let missing = BlobSource::File("/nonexistent/blob".into());
        let error = site.parking.stage(&missing, &Digest::of(b""), 0, &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(site.is_empty());
    }
}
