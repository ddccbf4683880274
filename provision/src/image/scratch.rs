//! What is being written: files and directories in `tmp/` that belong to a living process.
//!
//! Each entry of `tmp/` is locked (`flock`) by the process that writes it. The kernel drops the lock with the
//! process, so an entry that can be locked is what a killed process left, and [`sweep`] may remove it. Nobody may use
//! an entry between opening and locking it without making sure that it is still there: see [`is_at`].

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags},
    io::{Errno, retry_on_intr},
};
use tempfile::NamedTempFile;

/// Makes an empty file in `tmp`, locked, that is removed when dropped.
pub(super) fn create_file(tmp: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new().prefix(prefix).tempfile_in(tmp)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(file.as_fd(), file.path())? => return Ok(file),
            // Another process sweeps and was faster than our lock: it removes this file, we make another.
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Replaces the file at `destination` (on the file system of `tmp`) by one with `content`, so that after a crash there
/// is either the old or the new one.
pub(super) fn replace_file(tmp: &Path, destination: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_file(tmp, "file-")?;
    file.write_all(content)?;
    publish_file(file, destination)
}

/// Moves a complete file to its final place and makes sure that it survives a crash there.
pub(super) fn publish_file(file: NamedTempFile, destination: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(destination).map_err(|error| error.error)?;
    sync_directory(destination)
}

/// A directory in `tmp` that only this process writes, removed with all it holds when dropped.
#[derive(Debug)]
pub(super) struct ScratchDirectory {
    path: PathBuf,
    lock: OwnedFd,
    published: bool,
}

impl ScratchDirectory {
    /// Makes the directory `name` in `tmp`, or waits until the process that has it is done with it.
    pub(super) fn acquire(tmp: &Path, name: &str) -> io::Result<Self> {
        let path = tmp.join(name);
        loop {
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let lock = match open(&path) {
                Ok(lock) => lock,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))?;
            if !is_at(lock.as_fd(), &path)? {
                continue;
            }
            let directory = Self { path, lock, published: false };
            // A process that was killed may have left something in it.
            for entry in fs_err::read_dir(&directory.path)? {
                remove(&entry?.path())?;
            }
            return Ok(directory);
        }
    }

    /// Like [`acquire`](Self::acquire), but returns `None` at once when a process has the directory.
    pub(super) fn try_acquire(tmp: &Path, name: &str) -> io::Result<Option<Self>> {
        let path = tmp.join(name);
        loop {
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            match try_lock_directory(&path) {
                Ok(Some(lock)) if is_at(lock.as_fd(), &path)? => {
                    return Ok(Some(Self { path, lock: lock.into(), published: false }));
                }
                Ok(None) => return Ok(None),
                Ok(Some(_)) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything on this file system to disk, then moves the directory to its final place, where there is
    /// nothing yet.
    pub(super) fn publish(mut self, destination: &Path) -> io::Result<()> {
        rustix::fs::syncfs(&self.lock)?;
        fs_err::rename(&self.path, destination)?;
        self.published = true;
        sync_directory(destination)
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is the next sweep's.
        if !self.published
            && let Err(error) = remove(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "temporary directory stays");
        }
    }
}

/// Removes what killed processes left in `tmp`; what a living process writes stays. Returns how many entries went.
pub(super) fn sweep(tmp: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs_err::read_dir(tmp)? {
        let path = entry?.path();
        let file = match open(&path) {
            Ok(file) => file,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(file.as_fd(), &path)? => {
                remove(&path)?;
                removed += 1;
            }
            Ok(()) | Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

/// Takes a shared lock of a directory: any number may have it, but nobody while somebody has the exclusive one.
pub(super) fn share_directory(path: &Path) -> io::Result<File> {
    let directory = open(path)?;
    retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockShared))?;
    Ok(directory.into())
}

/// Takes the lock of a directory if nobody has it.
pub(super) fn try_lock_directory(path: &Path) -> io::Result<Option<File>> {
    let directory = open(path)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(directory.into())),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock of a directory for as long as the returned file lives; waits for it.
pub(super) fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = open(path)?;
    retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockExclusive))?;
    Ok(directory.into())
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Whether `path` (still) leads to the open file.
pub(super) fn is_at(file: BorrowedFd<'_>, path: &Path) -> io::Result<bool> {
    let here = rustix::fs::fstat(file)?;
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) => Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    if fs_err::symlink_metadata(path)?.is_dir() {
        fs_err::remove_dir_all(path)
    } else {
        fs_err::remove_file(path)
    }
}

/// Makes the directory entry of `path` survive a crash.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs_err::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_removes_what_nobody_holds() {
        let tmp = tempfile::tempdir().unwrap();
        fs_err::write(tmp.path().join("blob-left"), b"x").unwrap();
        fs_err::create_dir_all(tmp.path().join("layer-left/fs/a")).unwrap();
        let file = create_file(tmp.path(), "blob-").unwrap();
        let directory = ScratchDirectory::acquire(tmp.path(), "layer-held").unwrap();
        assert_eq!(sweep(tmp.path()).unwrap(), 2);
        assert!(file.path().exists() && directory.path().exists());
        assert!(ScratchDirectory::try_acquire(tmp.path(), "layer-held").unwrap().is_none());
        drop((file, directory));
        let directory = ScratchDirectory::try_acquire(tmp.path(), "layer-held").unwrap();
        assert!(directory.is_some_and(|directory| directory.path().exists()));
        assert_eq!(fs_err::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_are_taken_in_turn_and_start_empty() {
        let tmp = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(tmp.path().join("layer/left")).unwrap();
        let total = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let directory = ScratchDirectory::acquire(tmp.path(), "layer").unwrap();
                    // Fails if another thread made it before and is still there.
                    fs_err::create_dir(directory.path().join("mine")).unwrap();
                    std::thread::yield_now();
                    total.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
        });
        assert_eq!(total.into_inner(), 8);
        assert_eq!(fs_err::read_dir(tmp.path()).unwrap().count(), 0);
    }
}
