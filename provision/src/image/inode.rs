//! One file of a tree, reached through the open directory that holds it: what it is, its metadata, its attributes.
//!
//! Names are single path components and are never followed when they are symbolic links.

use std::{
    ffi::{CString, OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid},
    io::Errno,
};

/// The attribute by which overlayfs hides the directories of the same path below one.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Lets the directories of the same path in lower layers show through one that hides them.
pub(crate) fn unset_opaque(directory: &std::path::Path) -> io::Result<()> {
    match rustix::fs::lremovexattr(directory, OPAQUE) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Extended attributes, by name.
pub(super) type Xattrs = Vec<(OsString, Vec<u8>)>;

/// What a file has besides its type and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits, with set-id and sticky.
    pub(super) mode: u32,
    pub(super) mtime: Timespec,
    /// Portable ones only, see [`is_portable`].
    pub(super) xattrs: Xattrs,
}

impl Metadata {
    /// Reads it from a file that was looked at with [`stat`].
    pub(super) fn read(directory: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> io::Result<Self> {
        let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        let xattrs = read_xattrs(directory, name)?;
        Ok(Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, mtime, xattrs })
    }

    /// Gives it to an open file or directory.
    pub(super) fn apply(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        // A change of owner takes set-id bits and file capabilities away: those come after it.
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            tolerate(rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty()), name)?;
        }
        Ok(rustix::fs::futimens(file, &self.times())?)
    }

    /// Gives it to a file that cannot be opened: a symbolic link, a device, a fifo. It must have been made just now
    /// by this process, so that it is what it is expected to be.
    pub(super) fn apply_at(&self, directory: BorrowedFd<'_>, name: &[u8], kind: FileType) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(directory, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        let path = path_of(directory, name);
        for (name, value) in &self.xattrs {
            tolerate(rustix::fs::lsetxattr(&path, name, value, rustix::fs::XattrFlags::empty()), name)?;
        }
        Ok(rustix::fs::utimensat(directory, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
            last_modification: self.mtime,
        }
    }
}

/// Whether an attribute means the same on every host. Labels of security modules do not, and what overlayfs keeps
/// in its attributes could make a layer show files that are none of its own.
pub(super) fn is_portable(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let is_in = |namespace: &[u8]| name.starts_with(namespace);
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || (is_in(b"user.") && !is_in(b"user.overlay."))
        || (is_in(b"trusted.") && !is_in(b"trusted.overlay."))
}

/// A file system without such attributes is no reason to fail: a container sees the rest of the image unchanged.
fn tolerate(outcome: rustix::io::Result<()>, name: &OsStr) -> io::Result<()> {
    match outcome {
        Err(Errno::NOTSUP) => {
            tracing::warn!(name = %name.display(), "the file system does not support this attribute");
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

/// The portable attributes of a file, sorted by name.
fn read_xattrs(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Xattrs> {
    let path = path_of(directory, name);
    let names = match xattr::list(&path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.filter(|name| is_portable(name)) {
        if let Some(value) = xattr::get(&path, &name)? {
            xattrs.push((name, value));
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// A path to what no call reaches through a directory alone. The directory is not looked up again by its name.
fn path_of(directory: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(OsStr::from_bytes(name))
}

/// Whether a directory hides those below it.
pub(super) fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let mut value = [0; 2];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory hide those below it.
pub(super) fn set_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE, b"y", rustix::fs::XattrFlags::empty())?)
}

/// Makes a name hide the file below it.
pub(super) fn make_whiteout(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Whether a file is such a name.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The type of a file.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Looks at a file, or, named `.`, at the directory itself.
pub(super) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens a directory.
pub(super) fn open_directory(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Opens a regular file for reading.
pub(super) fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<std::fs::File> {
    // Something else in its place must not make the open wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    if kind(&rustix::fs::fstat(&file)?) != FileType::RegularFile {
        return Err(io::Error::other("it was replaced while it was being read"));
    }
    Ok(file.into())
}

/// Makes an empty file that does not exist yet, for writing, readable by nobody else.
pub(super) fn create_file(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<std::fs::File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).map(Into::into)
}

/// The names in a directory, sorted, without `.` and `..`.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The target of a symbolic link.
pub(super) fn read_link(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes())
}

/// Removes a file or a directory with all it holds.
pub(super) fn remove(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        outcome => return Ok(outcome?),
    }
    let child = open_directory(directory, name)?;
    clear(std::os::fd::AsFd::as_fd(&child))?;
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}

/// Removes all that a directory holds.
pub(super) fn clear(directory: BorrowedFd<'_>) -> io::Result<()> {
    names(directory)?.iter().try_for_each(|name| remove(directory, name.to_bytes()))
}

/// Bytes as they are in the file system, as a path.
pub(super) fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}
