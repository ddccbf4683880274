//! Directories and files of the host whose later mounts propagate both ways.
//!
//! The monitor's mount namespace is a slave of the host's, so a bind mount made in it can receive mounts from the host
//! but not give any back. A copy of the mount that is taken in the host's own namespace (open_tree(2)) stays in the
//! host's peer group wherever it is attached later.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};
use rustix::{
    fs::{CWD, FileType},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::{Error, Mount, Propagation, Result};

/// A copy of a mount of the host, attached nowhere yet.
#[derive(Debug)]
pub(crate) struct SharedMount {
    tree: OwnedFd,
    destination: PathBuf,
    read_only: bool,
    directory: bool,
}

impl SharedMount {
    /// Copies what is mounted at each `Bidirectional` mount's source. To be called in the host's mount namespace.
    ///
    /// # Errors
    /// [`Error::Mount`] naming the source that cannot be copied.
    pub(crate) fn take(mounts: &[Mount]) -> Result<Vec<Self>> {
        mounts
            .iter()
            .filter(|mount| mount.propagation == Propagation::Bidirectional)
            .map(Self::copy)
            .collect()
    }

    fn copy(mount: &Mount) -> Result<Self> {
        let fail =
            |source: rustix::io::Errno| Error::Mount { path: mount.source.clone(), source: source.into() };
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, &mount.source, flags).map_err(fail)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&tree).map_err(fail)?.st_mode);
        Ok(Self {
            tree,
            destination: mount.destination.clone(),
            read_only: mount.read_only,
            directory: kind == FileType::Directory,
        })
    }

    /// Mounts the copy at its destination, which is made when missing. To be called inside the container.
    ///
    /// # Errors
    /// [`Error::Mount`] or [`Error::File`] naming the destination.
    pub(crate) fn attach(&self) -> Result<()> {
        let path = &self.destination;
        self.make_destination(path).map_err(Error::file("make the place of a mount"))?;
        let fail = |source: std::io::Error| Error::Mount { path: path.clone(), source };
        move_mount(&self.tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(|error| fail(error.into()))?;
        if self.read_only {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(None::<&str>, path, None::<&str>, flags, None::<&str>)
                .map_err(|error| fail(error.into()))?;
        }
        Ok(())
    }

    fn make_destination(&self, path: &Path) -> std::io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        if self.directory {
            return fs_err::create_dir_all(path);
        }
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::File::create(path).map(drop)
    }
}
