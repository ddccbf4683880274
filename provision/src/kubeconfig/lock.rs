//! kubectl's lock on a kubeconfig: whoever creates `FILE.lock` first has it.

use std::{
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// How long to wait between attempts. The existence of a file is nothing to wait for that works everywhere (inotify
/// does not see other machines' changes in a home directory on NFS), so this polls. kubectl and kind hold the lock for
/// the milliseconds of one rewrite; two and a half seconds in all also outlast several of them queueing up.
const WAITS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1000),
];

/// What Kiln's lock files contain, to be told from kubectl's and kind's, which are empty.
const MARK: &str = "kiln\n";

/// The lock; dropping it removes the lock file.
#[derive(Debug)]
pub(super) struct KubeconfigLock {
    path: PathBuf,
    _file: fs::File,
}

impl Drop for KubeconfigLock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("{error}");
        }
    }
}

/// Locks the kubeconfig `path`, whose directory is made when it is missing.
pub(super) fn acquire(path: &Path) -> Result<KubeconfigLock> {
    acquire_within(path, &WAITS)
}

fn acquire_within(path: &Path, waits: &[Duration]) -> Result<KubeconfigLock> {
    let failed = |source| Error::KubeconfigFile { what: "lock", path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let lock = lock_path(path);
    let mut waits = waits.iter();
    loop {
        if let Some(lock) = create(&lock).map_err(failed)? {
            return Ok(lock);
        }
        if remove_orphan(&lock).map_err(failed)? {
            continue;
        }
        match waits.next() {
            Some(wait) => thread::sleep(*wait),
            None => {
                return Err(Error::KubeconfigLocked { path: path.to_owned(), lock });
            }
        }
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

/// Creates the lock file; `None` when there is one.
fn create(path: &Path) -> io::Result<Option<KubeconfigLock>> {
    let mut file = match fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    // A Kiln that is killed here leaves a lock that would block kubectl until somebody removes it by hand. The kernel's
    // lock, which dies with its process, tells the next Kiln that it may. Best effort: some file systems have no flock.
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = file.write_all(MARK.as_bytes());
    }
    Ok(Some(KubeconfigLock { path: path.to_owned(), _file: file }))
}

/// Removes a lock file that a killed Kiln left; returns whether there is none any more.
fn remove_orphan(path: &Path) -> io::Result<bool> {
    // kubectl's lock files have no permission bits; a failure to open one only means that it is not ours.
    let mut file = match fs::OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(_) => return Ok(false),
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    let mut content = String::new();
    file.rewind()?;
    if file.read_to_string(&mut content).is_err() || content != MARK {
        return Ok(false);
    }
    // Only the holder of the kernel's lock removes this file. If the name leads elsewhere by now, another Kiln has been
    // quicker, and what is there belongs to somebody.
    let same = match fs::metadata(path) {
        Ok(named) => {
            let open = file.metadata()?;
            named.dev() == open.dev() && named.ino() == open.ino()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    if same {
        fs::remove_file(path)?;
    }
    Ok(same)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_lock_is_the_file_kubectl_looks_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/.kube/config");
        let lock = acquire(&path).unwrap();
        let file = directory.path().join("new/.kube/config.lock");
        assert!(file.exists());
        drop(lock);
        assert!(!file.exists());
        assert!(!path.exists());
    }

    #[test]
    fn a_foreign_lock_is_waited_for_and_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let lock = directory.path().join("config.lock");
        fs::write(&lock, "").unwrap();
        let error = acquire_within(&path, &WAITS[..2]).unwrap_err();
        assert!(matches!(&error, Error::KubeconfigLocked { lock: named, .. } if *named == lock), "{error:?}");
        assert!(error.to_string().contains("config.lock exists"), "{error}");
        assert!(error.hint().unwrap().contains("config.lock"));
        assert!(lock.exists());

        let releaser = {
            let lock = lock.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(30));
                fs::remove_file(lock).unwrap();
            })
        };
        let start = Instant::now();
        drop(acquire(&path).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(20));
        releaser.join().unwrap();
    }

    #[test]
    fn the_lock_of_a_killed_kiln_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(directory.path().join("config.lock"), MARK).unwrap();
        drop(acquire_within(&path, &[]).unwrap());
        assert!(!directory.path().join("config.lock").exists());
    }

    #[test]
    fn the_lock_of_a_living_kiln_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let held = acquire(&path).unwrap();
        assert!(matches!(acquire_within(&path, &WAITS[..1]), Err(Error::KubeconfigLocked { .. })));
        drop(held);
        drop(acquire_within(&path, &[]).unwrap());
    }

    #[test]
    fn many_at_once_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, "0").unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _lock = acquire(&path).unwrap();
                    let count: u32 = fs::read_to_string(&path).unwrap().parse().unwrap();
                    thread::sleep(Duration::from_millis(2));
                    fs::write(&path, (count + 1).to_string()).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "8");
    }
}
