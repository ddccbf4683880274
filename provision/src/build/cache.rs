//! The build cache: directories named by what they are and what they were made from.
//!
//! A result is made in a scratch directory and renamed to its name when it is complete, so whatever has a name is
//! whole. One build works at a time.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::TempDir;

use super::preload;
use crate::{Error, Paths, Reporter, Result};

/// Results of one name that are kept: the current one and the one before, for going back and forth between two
/// versions.
const KEPT: usize = 2;

/// The build cache of one state root, locked while it exists.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    refresh: bool,
    /// The kernel lets go of the lock when the file is closed.
    _lock: fs_err::File,
}

impl Cache {
    /// Opens the cache. Waits for a build that runs already. With `refresh` everything is made anew.
    pub(super) async fn open(paths: &Paths, refresh: bool, reporter: &dyn Reporter) -> Result<Self> {
        let root = paths.build_cache();
        let opening = |source| Error::File { what: "open the build cache", source };
        fs_err::create_dir_all(&root).map_err(opening)?;
        fs_err::create_dir_all(paths.locks()).map_err(opening)?;
        let path = paths.locks().join("build.lock");
        let lock = fs_err::OpenOptions::new().create(true).append(true).open(&path).map_err(opening)?;
        match lock.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                reporter.message(0, "waiting for another build of a node image to end");
                let file = lock.file().try_clone().map_err(opening)?;
                let locked = tokio::task::spawn_blocking(move || file.lock()).await;
                locked.map_err(io::Error::other).and_then(|result| result).map_err(opening)?;
            }
            Err(TryLockError::Error(source)) => return Err(Error::Lock { path, source }),
        }
        // Nobody else is here: what is found was left by a build that was killed. First of all its container, which may
        // still write.
        preload::remove_container(paths);
        let cache = Self { root, refresh, _lock: lock };
        remove(&cache.scratch_root())?;
        fs_err::create_dir_all(cache.scratch_root()).map_err(opening)?;
        Ok(cache)
    }

    /// The directory all results are in.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The result of that name made from that, if there is one.
    pub(super) fn find(&self, name: &str, key: &str) -> Option<PathBuf> {
        let path = self.path(name, key);
        (!self.refresh && path.exists()).then_some(path)
    }

    /// A new directory to make a result in, removed when the value goes.
    pub(super) fn scratch(&self) -> Result<TempDir> {
        let made = tempfile::Builder::new().prefix("build-").tempdir_in(self.scratch_root());
        made.map_err(|source| Error::File { what: "make a directory for the build", source })
    }

    /// Gives a complete result its name, in place of one that has it. Removes old results of the same name.
    pub(super) fn commit(&self, made: &Path, name: &str, key: &str) -> Result<PathBuf> {
        let committing = |source| Error::File { what: "keep a result of the build", source };
        let path = self.path(name, key);
        let folder = path.parent().expect("results are below the cache's root");
        fs_err::create_dir_all(folder).map_err(committing)?;
        // The name must not reach the disk before the content: after a power failure it would stand for holes.
        let directory = fs_err::File::open(made).map_err(committing)?;
        rustix::fs::syncfs(directory.file()).map_err(|error| committing(error.into()))?;
        if path.exists() {
            let old = self.scratch()?;
            fs_err::rename(&path, old.path().join("old")).map_err(committing)?;
        }
        fs_err::rename(made, &path).map_err(committing)?;
        for old in superseded(folder, name.rsplit('/').next().unwrap_or(name), &path).map_err(committing)? {
            remove(&old)?;
        }
        Ok(path)
    }

    /// Makes sure that there is space for what is about to be made.
    pub(super) fn require_space(&self, needed: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|error| Error::File { what: "look for free space", source: error.into() })?;
        let free = stat.f_bavail * stat.f_frsize;
        if free < needed {
            return Err(Error::LittleSpace { directory: self.root.clone(), free, needed });
        }
        Ok(())
    }

    fn path(&self, name: &str, key: &str) -> PathBuf {
        self.root.join(format!("{name}-{key}"))
    }

    fn scratch_root(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

/// Names a failed file operation of a build; a full disk is told as such.
pub(super) fn file_error(what: &'static str, directory: &Path) -> impl Fn(io::Error) -> Error {
    move |source| {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Error::NoSpace { what: what.to_owned(), path: directory.to_owned(), source }
        } else {
            Error::File { what, source }
        }
    }
}

/// Removes a result, a file or a directory with all it holds, unless something is mounted in it: that would be emptied too.
pub(super) fn remove(directory: &Path) -> Result<()> {
    let removing = |source| Error::File { what: "remove an old result of the build", source };
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").map_err(removing)?;
    // proc_pid_mountinfo(5): the fifth field is the mount point.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    if let Some(mount) = points.map(Path::new).find(|point| point.starts_with(directory)) {
        return Err(Error::MountInCache { directory: directory.to_owned(), mount: mount.to_owned() });
    }
    let removed = match fs_err::symlink_metadata(directory) {
        Ok(found) if found.is_dir() => fs_err::remove_dir_all(directory),
        Ok(_) => fs_err::remove_file(directory),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(removing(error)),
        _ => Ok(()),
    }
}

/// The results of a name to remove now that `current` is there: all but the newest others that may stay.
fn superseded(folder: &Path, name: &str, current: &Path) -> io::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        // Keys have no dash, names may.
        let same_name =
            file_name.to_str().and_then(|text| text.rsplit_once('-')).is_some_and(|(it, _)| it == name);
        if same_name && entry.path() != current {
            others.push((entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
    }
    others.sort();
    others.truncate(others.len().saturating_sub(KEPT - 1));
    Ok(others.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Silent;

    async fn cache(root: &Path) -> Cache {
        Cache::open(&Paths::new(root.join("state"), root.join("run")), false, &Silent).await.unwrap()
    }

    fn make(cache: &Cache, name: &str, key: &str) -> PathBuf {
        let scratch = cache.scratch().unwrap();
        let made = scratch.path().join("out");
        fs_err::create_dir(&made).unwrap();
        fs_err::write(made.join("key"), key).unwrap();
        cache.commit(&made, name, key).unwrap()
    }

    #[tokio::test]
    async fn a_result_is_found_by_its_key_only() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path()).await;
        let path = make(&cache, "components/etcd", "aa");
        assert_eq!(cache.find("components/etcd", "aa"), Some(path));
        assert_eq!(cache.find("components/etcd", "bb"), None);
    }

    #[tokio::test]
    async fn old_results_go_and_those_of_longer_names_stay() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path()).await;
        make(&cache, "node-files", "zz");
        for key in ["aa", "bb", "cc"] {
            make(&cache, "node", key);
            // Modification times have the kernel's tick as their resolution.
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        assert_eq!(cache.find("node", "aa"), None);
        assert!(cache.find("node", "bb").is_some());
        assert!(cache.find("node", "cc").is_some());
        assert!(cache.find("node-files", "zz").is_some());
    }

    #[tokio::test]
    async fn results_that_are_files_go_too() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path()).await;
        for key in ["aa", "bb", "cc"] {
            let scratch = cache.scratch().unwrap();
            let made = scratch.path().join("out");
            fs_err::write(&made, key).unwrap();
            cache.commit(&made, "layers/node", key).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        assert_eq!(cache.find("layers/node", "aa"), None);
        assert!(cache.find("layers/node", "cc").is_some());
    }

    #[tokio::test]
    async fn a_result_made_again_takes_the_place_of_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path()).await;
        let path = make(&cache, "node", "aa");
        fs_err::write(path.join("stale"), "").unwrap();
        make(&cache, "node", "aa");
        assert!(path.join("key").exists());
        assert!(!path.join("stale").exists());
    }

    #[tokio::test]
    async fn what_a_killed_build_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let first = cache(root.path()).await;
        let left = first.scratch().unwrap().keep();
        drop(first);
        let second = cache(root.path()).await;
        assert!(!left.exists());
        assert!(second.scratch().is_ok());
    }

    #[tokio::test]
    async fn more_space_than_there_is_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let cache = cache(root.path()).await;
        assert!(cache.require_space(0).is_ok());
        assert!(matches!(cache.require_space(u64::MAX), Err(Error::LittleSpace { .. })));
    }
}
