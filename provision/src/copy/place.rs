//! Where paths lead: on the host as usual, in a node with its root as `/`.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

/// Symbolic links that are followed for one path, as the kernel has it.
const MAX_LINKS: u32 = 40;
/// Times a resolution is tried again that something renamed meanwhile has interrupted.
const MAX_ATTEMPTS: u32 = 128;

/// A tree of files in which paths are resolved.
#[derive(Debug)]
pub(super) struct Place {
    /// `None` for the host, whose paths start where the caller is.
    root: Option<OwnedFd>,
}

/// What is to be copied: a name in an open directory.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) directory: OwnedFd,
    pub(super) name: Vec<u8>,
    pub(super) is_directory: bool,
    /// Whether it stands for what is in it.
    pub(super) contents: bool,
}

impl Source {
    /// What it is called in an archive of its own.
    pub(super) fn own_name(&self) -> &[u8] {
        if self.contents { b"." } else { &self.name }
    }
}

/// Where it is to go: a name in an open directory.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) directory: OwnedFd,
    /// `.` when the directory itself is meant.
    pub(super) called: Vec<u8>,
}

/// A path with its last component apart, and what is there.
struct Located {
    directory: OwnedFd,
    name: Vec<u8>,
    stat: Option<Stat>,
}

impl Located {
    fn kind(&self) -> Option<FileType> {
        self.stat.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }
}

impl Place {
    /// The host, as the calling process sees it.
    pub(super) fn host() -> Self {
        Self { root: None }
    }

    /// The tree below a directory: no path leads out of it.
    pub(super) fn below(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: Some(rustix::fs::open(root, flags, Mode::empty())?) })
    }

    /// Finds what is to be copied.
    pub(super) fn source(&self, path: &[u8], follow: bool) -> io::Result<Source> {
        // A link with a slash after it means the directory that it leads to.
        let located = self
            .locate(path, follow || path.ends_with(b"/"))
            .map_err(|error| missing(error, "there is no such file or directory"))?;
        let Some(kind) = located.kind() else {
            return Err(missing(Errno::NOENT.into(), "there is no such file or directory"));
        };
        let is_directory = kind == FileType::Directory;
        if path.ends_with(b"/") && !is_directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if matches!(kind, FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a socket or a device"));
        }
        // A path that ends in no name has nothing to be called by.
        let contents = located.name == b".";
        Ok(Source { directory: located.directory, name: located.name, is_directory, contents })
    }

    /// Finds where it is to go. Without a source it is an archive, which is unpacked in a directory.
    pub(super) fn target(&self, path: &[u8], source: Option<&Source>) -> io::Result<Target> {
        let located = self
            .locate(path, true)
            .map_err(|error| missing(error, "the directory that it would go into is not there"))?;
        let kind = located.kind();
        if kind == Some(FileType::Directory) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(&located.directory, &located.name[..], flags, Mode::empty())?;
            let called = source.map_or(&b"."[..], Source::own_name).to_vec();
            return Ok(Target { directory, called });
        }
        let refused = |kind: io::ErrorKind, problem: &str| Err(io::Error::new(kind, problem.to_owned()));
        match (source, kind) {
            (None, None) => refused(io::ErrorKind::NotFound, "there is no such directory to unpack it in"),
            (None, Some(_)) => refused(io::ErrorKind::NotADirectory, "an archive is unpacked in a directory"),
            (Some(source), Some(_)) if source.is_directory => {
                refused(io::ErrorKind::NotADirectory, "a directory cannot take the place of a file")
            }
            (Some(source), _) if path.ends_with(b"/") && !source.is_directory => {
                refused(io::ErrorKind::NotADirectory, "there is no such directory")
            }
            (Some(_), _) => Ok(Target { directory: located.directory, called: located.name }),
        }
    }

    /// Opens the directory of a path. The path itself need not be there, and is `.` if its last component is no name.
    fn locate(&self, path: &[u8], follow: bool) -> io::Result<Located> {
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let trimmed = trim(&path);
            let (parent, name) = split(trimmed);
            if matches!(name, b"" | b"." | b"..") {
                let directory = self.open_directory(if trimmed.is_empty() { b"/" } else { trimmed })?;
                let stat = rustix::fs::fstat(&directory)?;
                return Ok(Located { directory, name: b".".to_vec(), stat: Some(stat) });
            }
            let directory = self.open_directory(parent)?;
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(error.into()),
            };
            let located = Located { directory, name: name.to_vec(), stat };
            if !follow || located.kind() != Some(FileType::Symlink) {
                return Ok(located);
            }
            let link = rustix::fs::readlinkat(&located.directory, name, Vec::new())?.into_bytes();
            // The kernel resolves the whole of it again, its `..` included.
            path = if link.starts_with(b"/") { link } else { [parent, b"/", &link].concat() };
        }
        Err(Errno::LOOP.into())
    }

    fn open_directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Some(root) = &self.root else {
            return Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            attempts += 1;
            match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempts < MAX_ATTEMPTS => {}
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Says which of two paths it is that leads nowhere.
fn missing(error: io::Error, problem: &str) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(io::ErrorKind::NotFound, problem),
        _ => error,
    }
}

/// Without the slashes at the end; empty for the root.
fn trim(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    &path[..end]
}

/// The directory and the last component of a path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(0) => (b"/", &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b".", path),
    }
}
