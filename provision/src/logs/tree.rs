//! Copying the `/var/log` of a node, links followed.
//!
//! Whoever runs in the node decides what is there. A link is read, and what it says is looked up below `/var/log` again,
//! one name at a time and without any link on the way: none leads to another place of the node, where its keys are, let
//! alone of the host.

use std::{
    collections::HashSet,
    ffi::OsString,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::PathBuf,
};

use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2},
    io::Errno,
};

use super::output::Output;

/// What a node's logs may take on the host's disk. kubelet keeps 50 MiB of each container.
const MAX_BYTES: u64 = 8 << 30;
/// Files and directories of a node's logs.
const MAX_ENTRIES: u64 = 200_000;
/// Links that follow each other, as the kernel has it.
const MAX_LINKS: u32 = 40;
/// Directories within each other.
const MAX_DEPTH: usize = 64;

/// Where links are taken to start at.
const LOGS: &[u8] = b"/var/log";

/// Copies one node's `/var/log`, or a part of it.
#[derive(Debug)]
pub(super) struct LogTree {
    root: OwnedFd,
    bytes: u64,
    entries: u64,
    /// Directories that were copied, by device and inode: links may lead to one again.
    seen: HashSet<(u64, u64)>,
    /// What could not be copied, and why.
    pub(super) problems: Vec<(PathBuf, io::Error)>,
}

/// What a name leads to.
enum Found {
    File(std::fs::File, u64),
    Directory(Vec<u8>, OwnedFd),
    /// Nothing that is part of a log: dangling, elsewhere, a socket.
    Nothing,
}

impl LogTree {
    /// The `var/log` of a directory that is a node's root, or has its `/var`; `None` when there is none.
    pub(super) fn open(node: impl AsFd) -> io::Result<Option<Self>> {
        let root = match open(node, b"var/log", OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(root) => root,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(Self { root, bytes: 0, entries: 0, seen: HashSet::new(), problems: Vec::new() }))
    }

    /// Copies all of it but the names in `left_out`.
    ///
    /// # Errors
    /// When it is too much, or cannot be listed. What concerns one file is kept in `problems`.
    pub(super) fn copy(&mut self, output: &Output, left_out: &[&str]) -> io::Result<()> {
        let root = self.root.try_clone()?;
        self.directory(&root, b"", output, left_out, 0)
    }

    /// Copies one directory of it to one of the same name.
    ///
    /// # Errors
    /// As [`LogTree::copy`].
    pub(super) fn copy_part(&mut self, name: &str, output: &Output) -> io::Result<()> {
        match self.find(name.as_bytes())? {
            Found::Directory(path, directory) => {
                self.directory(&directory, &path, &output.directory(name.as_bytes())?, &[], 0)
            }
            _ => Ok(()),
        }
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        output: &Output,
        left_out: &[&str],
        depth: usize,
    ) -> io::Result<()> {
        let stat = fstat(directory)?;
        if depth > MAX_DEPTH || !self.seen.insert((stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || left_out.iter().any(|left| left.as_bytes() == name) {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(too_much(format!("more than {MAX_ENTRIES} files")));
            }
            let path = join(path, name);
            match self.entry(&path, name, output, depth) {
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => self.problems.push((to_path(&path), error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[u8], name: &[u8], output: &Output, depth: usize) -> io::Result<()> {
        match self.find(path)? {
            Found::Nothing => Ok(()),
            Found::Directory(path, directory) => {
                let output = output.directory(name)?;
                self.directory(&directory, &path, &output, &[], depth + 1)
            }
            Found::File(file, size) => {
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > MAX_BYTES {
                    return Err(too_much(format!("more than {} GiB", MAX_BYTES >> 30)));
                }
                let mut output = output.file(name)?;
                // Of a file that grows meanwhile, what it was when it was looked at.
                io::copy(&mut file.take(size), &mut output)?;
                output.finish()
            }
        }
    }

    /// What a path leads to, links followed as long as they stay in `/var/log`.
    fn find(&self, path: &[u8]) -> io::Result<Found> {
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let looked = match open(&self.root, &path, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(looked) => looked,
                // It is gone, or a part of its path is a link.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Found::Nothing),
                Err(error) => return Err(error.into()),
            };
            let stat = fstat(&looked)?;
            match kind(&stat) {
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(&looked, c"", Vec::new())?.into_bytes();
                    match follow(&path, &link) {
                        Some(next) => path = next,
                        None => return Ok(Found::Nothing),
                    }
                }
                FileType::Directory => {
                    let directory = open(&self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                    return Ok(Found::Directory(path, directory));
                }
                FileType::RegularFile => {
                    // Something else in its place must not make the open wait.
                    let file = open(&self.root, &path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)?;
                    let stat = fstat(&file)?;
                    if kind(&stat) != FileType::RegularFile {
                        return Ok(Found::Nothing);
                    }
                    return Ok(Found::File(file.into(), u64::try_from(stat.st_size).unwrap_or(0)));
                }
                _ => return Ok(Found::Nothing),
            }
        }
        Ok(Found::Nothing)
    }
}

fn open(directory: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Where a link at `path` (relative to `/var/log`) leads, relative to the same; `None` if elsewhere.
fn follow(path: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    let parent = path.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &path[..slash]);
    // No component of the path is a link, so `..` is what it looks like.
    let full = if link.starts_with(b"/") { link.to_vec() } else { [LOGS, b"/", parent, b"/", link].concat() };
    let mut components: Vec<&[u8]> = Vec::new();
    for component in full.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    match components.split_at_checked(2) {
        Some((base, rest)) if base == [&b"var"[..], b"log"] => Some(rest.join(&b'/')),
        _ => None,
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

fn too_much(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, problem)
}

/// Whether to go on makes no sense.
fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::FileTooLarge | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, path::Path};

    use fs_err as fs;

    use super::*;

    struct Node {
        directory: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir_all(directory.path().join("node/var/log")).unwrap();
            fs::create_dir_all(directory.path().join("node/etc")).unwrap();
            fs::write(directory.path().join("node/etc/key"), "the key").unwrap();
            Self { directory }
        }

        fn log(&self, path: &str) -> PathBuf {
            let path = self.directory.path().join("node/var/log").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn export(&self) -> (PathBuf, LogTree) {
            let node = fs::File::open(self.directory.path().join("node")).unwrap();
            let exported = self.directory.path().join("exported");
            let mut tree = LogTree::open(node.file()).unwrap().unwrap();
            tree.copy(&Output::open(&exported).unwrap(), &["journal"]).unwrap();
            assert!(tree.problems.is_empty(), "{:?}", tree.problems);
            (exported, tree)
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn links_to_logs_become_files() {
        let node = Node::new();
        fs::write(node.log("pods/ns_pod_1/app/0.log"), "said abcdef.0123456789abcdef\n").unwrap();
        symlink("/var/log/pods/ns_pod_1/app/0.log", node.log("containers/absolute.log")).unwrap();
        symlink("../pods/ns_pod_1/app/0.log", node.log("containers/relative.log")).unwrap();
        symlink("relative.log", node.log("containers/second.log")).unwrap();
        symlink("/var/log/pods/gone/0.log", node.log("containers/dangling.log")).unwrap();
        let (exported, _) = node.export();
        assert_eq!(names(&exported.join("containers")), ["absolute.log", "relative.log", "second.log"]);
        for path in ["pods/ns_pod_1/app/0.log", "containers/absolute.log", "containers/second.log"] {
            let path = exported.join(path);
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            assert_eq!(fs::read_to_string(&path).unwrap(), "said abcdef.****************\n");
        }
    }

    #[test]
    fn no_link_leads_out_of_the_logs() {
        let node = Node::new();
        let outside = node.directory.path().join("node/etc/key");
        for (number, target) in [
            "/etc/key",
            "../../etc/key",
            "../../../node/etc/key",
            outside.to_str().unwrap(),
            "/var/log/../../etc/key",
            "/etc",
            "/",
            "/var/log/here/../../etc/key",
            "/proc/self/root/etc/passwd",
        ]
        .into_iter()
        .enumerate()
        {
            symlink(target, node.log(&format!("evil{number}"))).unwrap();
        }
        symlink("loop", node.log("loop")).unwrap();
        // A link on the way to a file is none that is followed.
        symlink("/etc", node.log("way")).unwrap();
        symlink("/var/log/way/key", node.log("through")).unwrap();
        fs::write(node.log("fine"), "fine").unwrap();
        let (exported, _) = node.export();
        assert_eq!(names(&exported), ["fine"]);
    }

    #[test]
    fn directories_that_hold_themselves_are_copied_once() {
        let node = Node::new();
        fs::write(node.log("a/b/file"), "x").unwrap();
        symlink("/var/log", node.log("a/b/again")).unwrap();
        symlink("..", node.log("a/b/up")).unwrap();
        let (exported, _) = node.export();
        assert!(exported.join("a/b/file").is_file());
        assert_eq!(names(&exported.join("a/b")).first().map(String::as_str), Some("again"));
        assert!(names(&exported.join("a/b/again")).is_empty());
    }

    #[test]
    fn what_is_no_file_is_left_out_and_so_is_what_was_named() {
        let node = Node::new();
        fs::write(node.log("journal/id/system.journal"), b"\0binary\0").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(node.log("socket")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, node.log("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (exported, mut tree) = node.export();
        assert!(names(&exported).is_empty());
        tree.copy_part("journal", &Output::open(&exported).unwrap()).unwrap();
        assert_eq!(fs::read(exported.join("journal/id/system.journal")).unwrap(), b"\0binary\0");
        tree.copy_part("missing", &Output::open(&exported).unwrap()).unwrap();
        assert_eq!(names(&exported), ["journal"]);
    }

    #[test]
    fn a_node_without_logs_has_none() {
        let directory = tempfile::tempdir().unwrap();
        let open = || LogTree::open(fs::File::open(directory.path()).unwrap().file()).unwrap();
        assert!(open().is_none());
        fs::create_dir(directory.path().join("var")).unwrap();
        symlink("/etc", directory.path().join("var/log")).unwrap();
        assert!(open().is_none(), "a link in the place of the directory");
    }
}
