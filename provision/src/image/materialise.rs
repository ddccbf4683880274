//! Making a directory of a node's own from what an image has there.
//!
//! A node's `/var` cannot be part of its overlay: containerd mounts overlays in it, and overlayfs does not take
//! overlays as upper directories. So what the layers have there is merged as overlayfs would and copied; large files
//! that never change are hard-linked instead, and cost nothing.

use std::{
    cell::Cell,
    collections::HashMap,
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, Stat},
    io::Errno,
};

use super::{
    failed,
    inode::{self, Metadata},
};
use crate::Result;

/// Makes `target` what `subtree` (a relative path) is in the merged layers, given top first as
/// [`Store::unpack`](super::Store::unpack) returns them: the same files with owners, modes, times, extended
/// attributes and hard links. `target` is made if it is missing, and must be empty. If the layers have no `subtree`,
/// it stays so.
///
/// `share` gets the path of each regular file relative to the image's root. For those it accepts, `target` gets a
/// hard link to the file in the layer if it can: that file and its metadata must never be changed through it, since
/// all nodes and the store have the same one. The rest are copies, on file systems that can do it without copying
/// data.
///
/// A whiteout in a directory that only one layer has hides nothing and is kept, and so is the mark of an opaque
/// directory: that is how the overlay snapshots that containerd has in an image survive.
///
/// # Errors
/// A layer cannot be read, or `target` not be written; it is empty then.
pub fn materialise(
    layers_top_first: &[PathBuf],
    subtree: &Path,
    target: &Path,
    share: impl Fn(&Path) -> bool,
) -> Result<()> {
    let mut current = subtree.to_owned();
    let outcome = || -> io::Result<()> {
        match rustix::fs::mkdir(target, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let directory = fs_err::File::open(target)?;
        let directory = directory.as_fd();
        if !inode::names(directory)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let Some(sources) = find(layers_top_first, subtree)? else { return Ok(()) };
        let mut merger = Merger {
            share: &share,
            subtree,
            root: directory,
            current: &mut current,
            links: HashMap::new(),
            clones: Cell::new(true),
        };
        merger.directory(&sources, directory).inspect_err(|_| {
            // The first error is the one to report.
            if let Err(error) = inode::clear(directory) {
                tracing::warn!(target = %target.display(), %error, "half of a directory stays");
            }
        })
    }();
    outcome.map_err(|error| {
        failed(format!("make {} from {} of the image", target.display(), current.display()), target)(error)
    })
}

/// Visits the regular files of the directory that `directory` (a relative path) is in the merged layers, in the order of their
/// names, until `visit` returns false. What is no directory has none.
///
/// # Errors
/// A layer cannot be read, or what `visit` says.
pub(crate) fn visit_files(
    layers_top_first: &[PathBuf],
    directory: &Path,
    visit: &mut dyn FnMut(PathBuf, std::fs::File) -> io::Result<bool>,
) -> io::Result<()> {
    let directories = match find(layers_top_first, directory) {
        Ok(directories) => directories.unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in merged_names(&directories)? {
        let name = name.to_bytes();
        if let Found::File(index, stat) = Found::look_up(&directories, name)?
            && inode::kind(&stat) == FileType::RegularFile
            && !visit(inode::to_path(name), inode::open_file(directories[index].as_fd(), name)?)?
        {
            break;
        }
    }
    Ok(())
}

/// The directories that make up `subtree`, top first; `None` if there is none.
fn find(layers: &[PathBuf], subtree: &Path) -> io::Result<Option<Vec<OwnedFd>>> {
    let roots = layers.iter().map(|layer| Ok(fs_err::File::open(layer)?.into_parts().0.into()));
    let mut directories = roots.collect::<io::Result<Vec<OwnedFd>>>()?;
    for component in subtree.components() {
        let name = match component {
            Component::Normal(name) => std::os::unix::ffi::OsStrExt::as_bytes(name),
            Component::CurDir => continue,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        match Found::look_up(&directories, name)? {
            Found::Directory(found) => directories = found,
            Found::Nothing => return Ok(None),
            Found::File(..) => return Err(io::ErrorKind::NotADirectory.into()),
        }
    }
    Ok(Some(directories))
}

/// What a name is in merged directories.
enum Found {
    Nothing,
    /// The directories that have it, top first.
    Directory(Vec<OwnedFd>),
    /// The topmost, with the index of the directory that has it.
    File(usize, Stat),
}

impl Found {
    fn look_up(directories: &[OwnedFd], name: &[u8]) -> io::Result<Self> {
        let mut merged = Vec::new();
        for (index, directory) in directories.iter().enumerate() {
            let stat = match inode::stat(directory.as_fd(), name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            if inode::kind(&stat) != FileType::Directory {
                // A file, or a whiteout, hides whatever is below it.
                return match merged.is_empty() {
                    false => Ok(Self::Directory(merged)),
                    true if inode::is_whiteout(&stat) && directories.len() > 1 => Ok(Self::Nothing),
                    true => Ok(Self::File(index, stat)),
                };
            }
            let directory = inode::open_directory(directory.as_fd(), name)?;
            let opaque = inode::is_opaque(directory.as_fd())?;
            merged.push(directory);
            if opaque {
                break;
            }
        }
        Ok(if merged.is_empty() { Self::Nothing } else { Self::Directory(merged) })
    }
}

struct Merger<'a> {
    share: &'a dyn Fn(&Path) -> bool,
    subtree: &'a Path,
    root: BorrowedFd<'a>,
    /// The path at hand, relative to the image's root.
    current: &'a mut PathBuf,
    /// The first copy of each file that has several names, relative to `root`, by the file's device and inode number.
    links: HashMap<(u64, u64), PathBuf>,
    /// Whether the file system may be able to clone files.
    clones: Cell<bool>,
}

impl Merger<'_> {
    /// Fills an empty directory, and gives it the metadata of the topmost source.
    fn directory(&mut self, sources: &[OwnedFd], target: BorrowedFd<'_>) -> io::Result<()> {
        let Some(top) = sources.first() else { return Ok(()) };
        for name in merged_names(sources)? {
            let name = name.to_bytes();
            self.current.push(inode::to_path(name));
            match Found::look_up(sources, name)? {
                Found::Nothing => {}
                Found::Directory(children) => {
                    rustix::fs::mkdirat(target, name, Mode::RWXU)?;
                    let child = inode::open_directory(target, name)?;
                    self.directory(&children, child.as_fd())?;
                }
                Found::File(index, stat) => self.file(sources[index].as_fd(), target, name, &stat)?,
            }
            // After an error the path stays, to be named in it.
            self.current.pop();
        }
        let top = top.as_fd();
        if sources.len() == 1 && inode::is_opaque(top)? {
            inode::set_opaque(target)?;
        }
        Metadata::read(top, b".", &rustix::fs::fstat(top)?)?.apply(target)
    }

    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        directory: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
    ) -> io::Result<()> {
        let kind = inode::kind(stat);
        if kind == FileType::RegularFile && (self.share)(self.current) {
            match rustix::fs::linkat(source, name, directory, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                // Another file system, one without hard links, or as many names as a file may have.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&identity) {
                return Ok(rustix::fs::linkat(self.root, first, directory, name, AtFlags::empty())?);
            }
            let path = self.current.strip_prefix(self.subtree).map_err(io::Error::other)?;
            self.links.insert(identity, path.to_owned());
        }

        let metadata = Metadata::read(source, name, stat)?;
        match kind {
            FileType::RegularFile => {
                let mut from = inode::open_file(source, name)?;
                let mut to = inode::create_file(directory, name)?;
                self.copy(&mut from, &mut to, stat.st_size > 0)?;
                metadata.apply(to.as_fd())
            }
            FileType::Symlink => {
                rustix::fs::symlinkat(&inode::read_link(source, name)?[..], directory, name)?;
                metadata.apply_at(directory, name, kind)
            }
            _ => {
                rustix::fs::mknodat(directory, name, kind, Mode::empty(), stat.st_rdev)?;
                metadata.apply_at(directory, name, kind)
            }
        }
    }

    fn copy(&self, from: &mut std::fs::File, to: &mut std::fs::File, has_content: bool) -> io::Result<()> {
        if !has_content {
            return Ok(());
        }
        if self.clones.get() {
            match rustix::fs::ioctl_ficlone(&*to, &*from) {
                Ok(()) => return Ok(()),
                // Not here, then not for the next file either.
                Err(_) => self.clones.set(false),
            }
        }
        // Within the kernel where it can (copy_file_range), through memory where it cannot.
        io::copy(from, to).map(drop)
    }
}

fn merged_names(directories: &[OwnedFd]) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for directory in directories {
        names.extend(inode::names(directory.as_fd())?);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
