//! Who may change what: advisory locks on files, which the kernel drops when their holder dies.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use fs_err as fs;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::sync::oneshot;

use super::name::validate_cluster_name;
use crate::{Error, Paths, Reporter, Result};

/// An exclusive lock, held until it is dropped or its process dies.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: fs::File,
}

impl Lock {
    /// Removes the lock file of something that is no more, then drops the lock. Those who wait for the lock notice and
    /// make a new file.
    ///
    /// # Errors
    /// [`Error::Lock`] when the file cannot be removed; the lock is dropped all the same.
    pub fn remove(self) -> Result<()> {
        // Safe while the lock is held: a process that has opened the file but not locked it yet sees afterwards that
        // the name no longer leads to what it has locked.
        super::remove_if_exists(&self.path).map_err(|source| Error::Lock { path: self.path.clone(), source })
    }
}

/// Waits for the lock of cluster `name`; when another process has it, `reporter` says so.
///
/// # Errors
/// [`Error::InvalidName`] for a name that cannot be one, [`Error::Lock`] when the lock file cannot be used.
pub async fn cluster_lock(paths: &Paths, name: &str, reporter: &dyn Reporter) -> Result<Lock> {
    let path = cluster_path(paths, name)?;
    wait(path, &format!("waiting for another kiln on cluster {name:?}"), reporter).await
}

/// The lock of cluster `name` if nobody has it, `None` if somebody does.
///
/// # Errors
/// As [`cluster_lock`].
pub fn try_cluster_lock(paths: &Paths, name: &str) -> Result<Option<Lock>> {
    acquire(&cluster_path(paths, name)?, FlockOperation::NonBlockingLockExclusive)
}

/// Whether somebody is changing cluster `name`. Unlike [`try_cluster_lock`] this makes no file, so that listings can ask.
///
/// # Errors
/// As [`cluster_lock`].
pub fn is_locked(paths: &Paths, name: &str) -> Result<bool> {
    is_held(&cluster_path(paths, name)?)
}

/// Whether somebody is changing registries, as [`is_locked`] tells of clusters.
///
/// # Errors
/// As [`registry_lock`].
pub fn registries_locked(paths: &Paths) -> Result<bool> {
    is_held(&registry_path(paths))
}

fn is_held(path: &Path) -> Result<bool> {
    let failed = |source| Error::Lock { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Waits for the lock of what all clusters share: subnets, ports, kernel settings. Whoever needs a cluster's lock too
/// takes that one first.
///
/// # Errors
/// [`Error::Lock`] when the lock file cannot be used.
pub async fn host_lock(paths: &Paths, reporter: &dyn Reporter) -> Result<Lock> {
    wait(paths.locks().join("host.lock"), "waiting for another kiln", reporter).await
}

/// Waits for the lock of all registries, and of what nodes know of them. Whoever needs the host's lock too takes this one
/// first.
///
/// # Errors
/// [`Error::Lock`] when the lock file cannot be used.
pub async fn registry_lock(paths: &Paths, reporter: &dyn Reporter) -> Result<Lock> {
    wait(registry_path(paths), "waiting for another kiln on registries", reporter).await
}

/// Waits for the lock of whoever fills or drains the standbys of cluster `name`. Whoever needs the lock of one of them, or
/// the host's, too takes this one first.
///
/// # Errors
/// As [`cluster_lock`].
pub async fn pool_lock(paths: &Paths, name: &str, reporter: &dyn Reporter) -> Result<Lock> {
    validate_cluster_name(name)?;
    let path = paths.locks().join(format!("pool-{name}.lock"));
    wait(path, &format!("waiting for another kiln on the standbys of cluster {name:?}"), reporter).await
}

/// The lock of all registries if nobody has it, `None` if somebody does.
///
/// # Errors
/// As [`registry_lock`].
pub fn try_registry_lock(paths: &Paths) -> Result<Option<Lock>> {
    acquire(&registry_path(paths), FlockOperation::NonBlockingLockExclusive)
}

fn registry_path(paths: &Paths) -> PathBuf {
    paths.locks().join("registries.lock")
}

fn cluster_path(paths: &Paths, name: &str) -> Result<PathBuf> {
    validate_cluster_name(name)?;
    let name = paths.meant_standby(name).unwrap_or(name);
    Ok(paths.locks().join(format!("cluster-{name}.lock")))
}

async fn wait(path: PathBuf, message: &str, reporter: &dyn Reporter) -> Result<Lock> {
    if let Some(lock) = acquire(&path, FlockOperation::NonBlockingLockExclusive)? {
        return Ok(lock);
    }
    reporter.message(0, message);
    // A thread of its own rather than one of the runtime's blocking pool: flock cannot be interrupted, and a runtime
    // that is shut down (Ctrl-C) waits for its pool. When the caller is gone, the lock is dropped as soon as it is had.
    let (sender, receiver) = oneshot::channel();
    let thread_path = path.clone();
    thread::Builder::new()
        .name("lock".to_owned())
        .spawn(move || {
            let _ = sender.send(acquire(&thread_path, FlockOperation::LockExclusive));
        })
        .map_err(|source| Error::Lock { path: path.clone(), source })?;
    let lost = || Error::Lock { path: path.clone(), source: io::Error::other("the waiting thread ended") };
    receiver.await.map_err(|_| lost())??.ok_or_else(lost)
}

/// Opens and locks `path`; `None` when `operation` does not block and another process has the lock.
fn acquire(path: &Path, operation: FlockOperation) -> Result<Option<Lock>> {
    let failed = |source| Error::Lock { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    loop {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed(errno.into())),
        }
        if leads_to(path, &file).map_err(failed)? {
            return Ok(Some(Lock { path: path.to_owned(), _file: file }));
        }
        // The former holder removed the file between our opening and locking it: this lock excludes nobody.
    }
}

/// Whether `path` still names the file that is open.
fn leads_to(path: &Path, file: &fs::File) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let open = file.metadata()?;
    Ok(named.dev() == open.dev() && named.ino() == open.ino())
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use super::*;
    use crate::{Outcome, Silent};

    #[derive(Debug, Default)]
    struct Messages(Mutex<Vec<String>>);

    impl Reporter for Messages {
        fn phase_started(&self, _title: &str) {}
        fn phase_ended(&self, _title: &str, _outcome: Outcome) {}
        fn step(&self, _text: &str) {}
        fn message(&self, _verbosity: u8, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    fn paths(directory: &tempfile::TempDir) -> Paths {
        Paths::new(directory.path().join("state"), directory.path().join("run"))
    }

    #[tokio::test]
    async fn one_holder_at_a_time_and_the_next_one_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let messages = Messages::default();
        let first = cluster_lock(&paths, "a", &messages).await.unwrap();
        assert!(messages.0.lock().unwrap().is_empty());
        assert!(try_cluster_lock(&paths, "a").unwrap().is_none());
        assert!(try_cluster_lock(&paths, "b").unwrap().is_some(), "clusters do not exclude each other");
        assert!(is_locked(&paths, "a").unwrap() && !is_locked(&paths, "b").unwrap());
        assert!(!is_locked(&paths, "c").unwrap() && !paths.locks().join("cluster-c.lock").exists());

        let waiting = cluster_lock(&paths, "a", &messages);
        tokio::pin!(waiting);
        tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.expect_err("the lock is held");
        assert_eq!(*messages.0.lock().unwrap(), ["waiting for another kiln on cluster \"a\""]);
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn a_removed_lock_file_does_not_let_two_in() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let first = cluster_lock(&paths, "a", &Silent).await.unwrap();
        let waiting = cluster_lock(&paths, "a", &Silent);
        tokio::pin!(waiting);
        tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.expect_err("the lock is held");
        first.remove().unwrap();
        let second = waiting.await.unwrap();
        assert!(second.path.exists(), "the second holder has a file that others find");
        assert!(try_cluster_lock(&paths, "a").unwrap().is_none());
        second.remove().unwrap();
        assert!(!paths.locks().join("cluster-a.lock").exists());
    }

    #[tokio::test]
    async fn giving_up_waiting_leaves_the_lock_free() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let first = host_lock(&paths, &Silent).await.unwrap();
        tokio::time::timeout(Duration::from_millis(20), host_lock(&paths, &Silent)).await.expect_err("held");
        drop(first);
        host_lock(&paths, &Silent).await.unwrap();
    }

    #[test]
    fn a_name_never_leaves_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        assert!(try_cluster_lock(&paths(&directory), "../../x").is_err());
    }
}
