//! Unpacking a layer: the archive is written by a stranger.
//!
//! Every access goes through an open directory that was reached with `openat2` inside the layer's root: the kernel
//! resolves symbolic links and `..` as if that root were `/`, so no entry leads out of it, whatever earlier entries
//! made. The last component of a path is never followed. Existing files are removed, not written through.

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{
    archive::{Archive, Entry, Kind},
    inode::{self, Metadata},
};

/// Decompressed bytes of one layer, and bytes of the files in it with their holes: several times the largest images
/// in use, less than what fills the disk of a host that runs clusters.
pub(super) const MAX_BYTES: u64 = 64 << 30;

/// What an archive may ask for; more is an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes of all files, with their holes.
    pub(super) bytes: u64,
    /// Entries. Each costs an inode; a whole distribution has some hundred thousand.
    pub(super) entries: u64,
    /// Directories in each other. A path has an end, but a symbolic link may lead to where another one begins: what
    /// removes a tree has a directory open for each level, and must not run out of them.
    pub(super) depth: u32,
    /// Bytes that are remembered of directories until the end: their paths and attributes.
    pub(super) remembered: u64,
}

impl Limits {
    pub(super) const DEFAULT: Self =
        Self { bytes: MAX_BYTES, entries: 4_000_000, depth: 256, remembered: 512 << 20 };
}

/// Times an interrupted path resolution is tried again; it is interrupted when anything on the host is renamed or
/// mounted while a `..` is resolved.
const MAX_ATTEMPTS: u32 = 128;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS kept beside its whiteouts; never part of an image's content.
const AUFS: &[u8] = b".wh..wh.";

/// Unpacks an archive into an empty directory, with whiteouts as overlayfs wants them. While it runs, `current` is
/// the path of the entry at hand.
pub(super) fn extract(
    archive: impl BufRead,
    root: BorrowedFd<'_>,
    current: &mut Option<Vec<u8>>,
) -> io::Result<()> {
    extract_limited(archive, root, Limits::DEFAULT, current)
}

/// Like [`extract`], with limits of the caller's own.
pub(super) fn extract_limited(
    archive: impl BufRead,
    root: BorrowedFd<'_>,
    limits: Limits,
    current: &mut Option<Vec<u8>>,
) -> io::Result<()> {
    unpack(Archive::new(archive), Tree::new(Meaning::Layer, root, limits), current)
}

/// Unpacks an archive into a directory that may hold something already: files take the place of files, directories are
/// joined. Names mean themselves, there are no whiteouts. As for a layer, nothing leads out of the directory.
pub(crate) fn extract_tree(
    archive: impl BufRead,
    root: BorrowedFd<'_>,
    current: &mut Option<Vec<u8>>,
) -> io::Result<()> {
    unpack(Archive::new(archive), Tree::new(Meaning::Files, root, Limits::DEFAULT), current)
}

fn unpack<R: BufRead>(
    mut archive: Archive<R>,
    mut tree: Tree<'_>,
    current: &mut Option<Vec<u8>>,
) -> io::Result<()> {
    let (mut entries, mut bytes) = (0, 0_u64);
    while let Some(entry) = archive.next()? {
        *current = Some(entry.path.clone());
        entries += 1;
        bytes = bytes.saturating_add(entry.size);
        let limits = tree.limits;
        if entries > limits.entries || bytes > limits.bytes {
            return Err(too_large(format!(
                "it has more than {} entries or {} GiB of files",
                limits.entries,
                limits.bytes >> 30
            )));
        }
        tree.add(entry, &mut archive)?;
        *current = None;
    }
    tree.finish()
}

/// What the names of entries stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Part of an image: whiteouts hide files of other layers, and what an entry replaces goes with all it holds.
    Layer,
    /// Themselves, among what somebody has there.
    Files,
}

/// A tree in the making.
struct Tree<'a> {
    meaning: Meaning,
    root: BorrowedFd<'a>,
    limits: Limits,
    /// Directories get their metadata last: adding to them changes their times, and their mode may forbid it.
    directories: Vec<Directory>,
    /// Bytes of what is in `directories`.
    remembered: u64,
    /// How many directories those that were made here are in, by inode number. Others are where the root is.
    depths: HashMap<u64, u32>,
    /// The directory that was used last: most entries are in the same one as their predecessor.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

struct Directory {
    path: Vec<u8>,
    inode: u64,
    metadata: Metadata,
}

impl<'a> Tree<'a> {
    fn new(meaning: Meaning, root: BorrowedFd<'a>, limits: Limits) -> Self {
        let (directories, depths) = (Vec::new(), HashMap::new());
        Self { meaning, root, limits, directories, remembered: 0, depths, last: None }
    }

    fn add<R: BufRead>(&mut self, entry: Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let path = normalise(&entry.path)?;
        let (parent, name) = split(&path);
        if name.is_empty() {
            return match entry.kind {
                // Who owns the directory that things are put into, and who may read it, is not theirs to say.
                Kind::Directory if self.meaning == Meaning::Files => Ok(()),
                Kind::Directory => self.remember(path, self.root, entry.metadata),
                _ => Err(invalid("it takes the place of the root")),
            };
        }
        let parent = self.directory(parent)?;
        let parent = parent.as_fd();
        if self.meaning == Meaning::Layer && name.starts_with(WHITEOUT) {
            return self.hide(parent, name);
        }

        match &entry.kind {
            Kind::File => {
                let mut file = self.replace(parent, name, inode::create_file)?;
                archive.copy_content(&entry, &mut file)?;
                entry.metadata.apply(file.as_fd())
            }
            Kind::Directory => {
                let directory = self.make_directory(parent, name, Implied::No)?;
                self.remember(path, directory.as_fd(), entry.metadata)
            }
            Kind::Symlink(target) => {
                self.replace(parent, name, |parent, name| rustix::fs::symlinkat(&target[..], parent, name))?;
                entry.metadata.apply_at(parent, name, FileType::Symlink)
            }
            Kind::HardLink(target) => self.link(parent, name, target),
            Kind::Fifo => self.make_node(parent, name, FileType::Fifo, 0, &entry.metadata),
            Kind::Character { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                self.make_node(parent, name, FileType::CharacterDevice, device, &entry.metadata)
            }
            Kind::Block { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                self.make_node(parent, name, FileType::BlockDevice, device, &entry.metadata)
            }
        }
    }

    /// Whiteouts concern what is below this layer, never what is in it.
    fn hide(&self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        if name == OPAQUE {
            return inode::set_opaque(parent);
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(invalid("it is a whiteout of nothing"));
        }
        match inode::make_whiteout(parent, hidden) {
            // A file of this layer hides what is below it without help, a directory has to be told.
            Err(Errno::EXIST) if inode::kind(&inode::stat(parent, hidden)?) == FileType::Directory => {
                inode::set_opaque(inode::open_directory(parent, hidden)?.as_fd())
            }
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn link(&mut self, parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<()> {
        let target = normalise(target)?;
        let (target_parent, target_name) = split(&target);
        let missing = || invalid("it is a hard link to something that is not there");
        let target_parent = match self.open(target_parent) {
            Ok(directory) if !target_name.is_empty() => directory,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing()),
            Err(error) => return Err(error.into()),
        };
        let target_stat = inode::stat(target_parent.as_fd(), target_name).map_err(|_| missing())?;
        // A link to itself must not remove what it links to.
        if let Ok(present) = inode::stat(parent, name)
            && (present.st_dev, present.st_ino) == (target_stat.st_dev, target_stat.st_ino)
        {
            return Ok(());
        }
        self.replace(parent, name, |parent, name| {
            rustix::fs::linkat(&target_parent, target_name, parent, name, AtFlags::empty())
        })
    }

    fn make_node(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        device: u64,
        metadata: &Metadata,
    ) -> io::Result<()> {
        self.replace(parent, name, |parent, name| {
            rustix::fs::mknodat(parent, name, kind, Mode::empty(), device)
        })?;
        metadata.apply_at(parent, name, kind)
    }

    /// Makes something that needs a free name, after freeing it if it must.
    fn replace<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(parent, name) {
            Err(Errno::EXIST) => {
                match self.meaning {
                    Meaning::Layer => inode::remove(parent, name)?,
                    // Only a file: a directory that somebody has there is not to be lost to a file of its name.
                    Meaning::Files => rustix::fs::unlinkat(parent, name, AtFlags::empty())?,
                }
                // The directory at hand may be gone, or be reached no more by its path.
                self.last = None;
                Ok(make(parent, name)?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Makes a directory, or opens the one that is there. Only an entry of its own replaces another kind of file.
    fn make_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        implied: Implied,
    ) -> io::Result<OwnedFd> {
        let make = |parent: BorrowedFd<'_>, name: &[u8]| rustix::fs::mkdirat(parent, name, Mode::RWXU);
        match make(parent, name) {
            Ok(()) => self.open_made(parent, name),
            Err(Errno::EXIST) => {
                let present = inode::stat(parent, name)?;
                if inode::kind(&present) == FileType::Directory {
                    return Ok(inode::open_directory(parent, name)?);
                }
                if self.meaning == Meaning::Files {
                    return Err(invalid("there is a file in the place of a directory"));
                }
                let hidden = inode::is_whiteout(&present);
                if !hidden && implied == Implied::Yes {
                    return Err(invalid("a part of its path is not a directory"));
                }
                self.replace(parent, name, make)?;
                let directory = self.open_made(parent, name)?;
                if hidden {
                    // What was to be hidden at this name stays so.
                    inode::set_opaque(directory.as_fd())?;
                }
                Ok(directory)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory that was made just now, and notes how deep it is.
    fn open_made(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
        let above = self.depths.get(&rustix::fs::fstat(parent)?.st_ino).copied().unwrap_or(0);
        if above >= self.limits.depth {
            return Err(too_large(format!("it is in more than {} directories", self.limits.depth)));
        }
        let directory = inode::open_directory(parent, name)?;
        self.depths.insert(rustix::fs::fstat(&directory)?.st_ino, above + 1);
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755))?;
        Ok(directory)
    }

    /// The directory at a normalised path, made with its parents if it is missing.
    fn directory(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(directory.clone());
        }
        let directory = match self.open(path) {
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => {
                let (parent, name) = split(path);
                let parent = self.directory(parent)?;
                match inode::stat(parent.as_fd(), name) {
                    Ok(present) if inode::kind(&present) == FileType::Symlink => {
                        return Err(invalid(
                            "a part of its path is a symbolic link that leads to no directory",
                        ));
                    }
                    _ => self.make_directory(parent.as_fd(), name, Implied::Yes)?,
                }
            }
            outcome => outcome?,
        };
        let directory = Rc::new(directory);
        self.last = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    /// Opens a directory by its normalised path, inside the root.
    fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if self.meaning == Meaning::Layer {
            resolve |= ResolveFlags::NO_XDEV;
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            match rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if attempts < MAX_ATTEMPTS => {}
                outcome => return outcome,
            }
        }
    }

    fn remember(&mut self, path: Vec<u8>, directory: BorrowedFd<'_>, metadata: Metadata) -> io::Result<()> {
        let inode = rustix::fs::fstat(directory)?.st_ino;
        let attributes = metadata.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.remembered = self.remembered.saturating_add((path.len() + attributes.sum::<usize>()) as u64);
        if self.remembered > self.limits.remembered {
            let limit = self.limits.remembered >> 20;
            return Err(too_large(format!(
                "its directories have paths and attributes of more than {limit} MiB"
            )));
        }
        self.directories.push(Directory { path, inode, metadata });
        Ok(())
    }

    /// Gives the directories their metadata: of several entries for one, the last one's.
    fn finish(self) -> io::Result<()> {
        let mut done = HashSet::new();
        for Directory { path, inode, metadata } in self.directories.iter().rev() {
            let directory = match self.open(path) {
                Ok(directory) => directory,
                // A later entry took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(error.into()),
            };
            if rustix::fs::fstat(&directory)?.st_ino == *inode && done.insert(*inode) {
                metadata.apply(directory.as_fd())?;
            }
        }
        Ok(())
    }
}

/// Whether a directory is made because something is in it, or because it has an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Implied {
    Yes,
    No,
}

/// A path relative to the root, without empty and `.` components. A `..` is never needed in a layer.
fn normalise(path: &[u8]) -> io::Result<Vec<u8>> {
    let components: Vec<_> =
        path.split(|&byte| byte == b'/').filter(|component| !matches!(*component, b"" | b".")).collect();
    if components.contains(&&b".."[..]) {
        return Err(invalid("its path has a \"..\", which may lead out of the root"));
    }
    Ok(components.join(&b'/'))
}

/// The parent and the last component; both are empty for the root.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn too_large(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, problem)
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
