//! Blobs on their way from a registry, in `partial/`: kept when the way is cut, to be continued.
//!
//! Whoever downloads a blob has its file locked (`flock`), so a blob is downloaded once however many want it: the others
//! wait for the lock and find the blob.

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::{Errno, retry_on_intr},
};

use super::{
    Digest,
    blob::blob_path,
    digest::Hasher,
    failed,
    scratch::{is_at, sync_directory},
};
use crate::{Error, Result};

/// The directory within a store.
pub(super) const PARTIAL: &str = "partial";
/// How long half a blob is kept for whoever goes on with it.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;

/// Half a blob. Dropped, it stays, to be continued; [`discard`](Self::discard) removes it.
#[derive(Debug)]
pub struct Partial {
    root: PathBuf,
    digest: Digest,
    file: std::fs::File,
    hasher: Hasher,
    size: u64,
}

impl Partial {
    /// See [`Store::partial_blob`](super::Store::partial_blob).
    pub(super) fn take(root: &Path, digest: &Digest, waits: impl FnOnce()) -> io::Result<Option<Self>> {
        let path = path(root, digest);
        let mut waits = Some(waits);
        loop {
            if blob_path(root, digest).exists() {
                return Ok(None);
            }
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = std::fs::File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
                }
                Err(error) => return Err(error.into()),
            }
            // Whoever had it has completed or removed it.
            if !is_at(file.as_fd(), &path)? {
                continue;
            }
            let (mut hasher, mut size, mut buffer) = (Hasher::default(), 0, vec![0; BUFFER]);
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => {
                        hasher.update(&buffer[..count]);
                        size += count as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(Some(Self { root: root.to_owned(), digest: *digest, file, hasher, size }));
        }
    }

    /// Bytes that are there.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds what comes next.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::ImageStore`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(failed(format!("store blob {}", self.digest), &self.root))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew.
    ///
    /// # Errors
    /// [`Error::ImageStore`].
    pub fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(failed(format!("begin blob {} anew", self.digest), &self.root))?;
        (self.hasher, self.size) = (Hasher::default(), 0);
        Ok(())
    }

    /// Verifies what was written and moves it to its place, on disk.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], after which nothing is left of it; [`Error::NoSpace`] or [`Error::ImageStore`].
    pub fn finish(mut self) -> Result<()> {
        let actual = std::mem::take(&mut self.hasher).finish();
        let expected = self.digest;
        if actual != expected {
            self.discard();
            return Err(Error::DigestMismatch { what: "a blob".to_owned(), expected, actual });
        }
        let stored = || -> io::Result<()> {
            self.file.sync_all()?;
            let blob = blob_path(&self.root, &expected);
            fs_err::rename(path(&self.root, &expected), &blob)?;
            sync_directory(&blob)
        };
        stored().map_err(failed(format!("store blob {expected}"), &self.root))
    }

    /// Removes it.
    pub fn discard(self) {
        // While it is locked nobody else uses it; what cannot be removed now is the next sweep's.
        if let Err(error) = fs_err::remove_file(path(&self.root, &self.digest)) {
            tracing::debug!(digest = %self.digest, %error, "half a blob stays");
        }
    }
}

/// Removes half a blob that nobody is working on. What cannot be removed now is the next sweep's.
pub(super) fn discard(root: &Path, digest: &Digest) {
    let path = path(root, digest);
    let Ok(file) =
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    else {
        return;
    };
    let removed = flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(io::Error::from)
        .and_then(|()| if is_at(file.as_fd(), &path)? { fs_err::remove_file(&path) } else { Ok(()) });
    if let Err(error) = removed {
        tracing::debug!(%digest, %error, "half a blob stays");
    }
}

fn path(root: &Path, digest: &Digest) -> PathBuf {
    root.join(PARTIAL).join(digest.hex())
}

/// Removes what nobody has gone on with for `kept`. Returns how much that was.
pub(super) fn sweep(root: &Path, kept: Duration) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs_err::read_dir(root.join(PARTIAL))? {
        let path = entry?.path();
        let file =
            match rustix::fs::open(&path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            {
                Ok(file) => std::fs::File::from(file),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?).unwrap_or_default();
        if age < kept {
            continue;
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(file.as_fd(), &path)? => {
                fs_err::remove_file(&path)?;
                removed += 1;
            }
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::image::Store;

    #[test]
    fn half_a_blob_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = Digest::of(b"hello");
        let mut partial = store.partial_blob(&digest, || panic!("nobody has it")).unwrap().unwrap();
        partial.write(b"he").unwrap();
        drop(partial);
        let store = Store::open(directory.path()).unwrap();
        assert!(!store.has_blob(&digest));
        let mut partial = store.partial_blob(&digest, || ()).unwrap().unwrap();
        assert_eq!(partial.size(), 2);
        store.discard_partial(&digest);
        partial.write(b"llo").unwrap();
        partial.finish().unwrap();
        assert_eq!(store.read_blob(&digest).unwrap(), b"hello");
        let other = Digest::of(b"other");
        drop(store.partial_blob(&other, || ()).unwrap().unwrap());
        store.discard_partial(&other);
        store.discard_partial(&other);
        assert!(store.partial_blob(&digest, || ()).unwrap().is_none());
        assert_eq!(fs_err::read_dir(directory.path().join(PARTIAL)).unwrap().count(), 0);
    }

    #[test]
    fn what_turns_out_wrong_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = Digest::of(b"hello");
        let mut partial = store.partial_blob(&digest, || ()).unwrap().unwrap();
        partial.write(b"jello").unwrap();
        let error = partial.finish().unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
        let mut partial = store.partial_blob(&digest, || ()).unwrap().unwrap();
        assert_eq!(partial.size(), 0);
        partial.write(b"jel").unwrap();
        partial.restart().unwrap();
        partial.write(b"hello").unwrap();
        partial.finish().unwrap();
    }

    #[test]
    fn the_second_waits_for_the_first_and_finds_the_blob() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let digest = Digest::of(b"hello");
        let mut first = store.partial_blob(&digest, || ()).unwrap().unwrap();
        let (waits, is_waiting) = mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope
                .spawn(|| store.partial_blob(&digest, move || waits.send(()).unwrap()).unwrap().is_none());
            is_waiting.recv().unwrap();
            first.write(b"hello").unwrap();
            first.finish().unwrap();
            assert!(second.join().unwrap());
        });
    }

    #[test]
    fn old_halves_go_unless_somebody_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        drop(store.partial_blob(&Digest::of(b"a"), || ()).unwrap());
        let held = store.partial_blob(&Digest::of(b"b"), || ()).unwrap();
        assert_eq!(sweep(directory.path(), KEPT).unwrap(), 0);
        assert_eq!(sweep(directory.path(), Duration::ZERO).unwrap(), 1);
        drop(held);
        assert_eq!(sweep(directory.path(), Duration::ZERO).unwrap(), 1);
    }
}
