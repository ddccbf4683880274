//! Files inside a running node, reached from outside.
//!
//! The paths are the node's: its processes run as root and may have put a link anywhere, so every path is resolved
//! with the node's root as the root, as if by a process inside (openat2(2), RESOLVE_IN_ROOT).

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::Stdio,
};

use kiln_runtime::{ExecSpec, Process, exec_command};
use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};

use crate::{Error, Result};

/// The files of a node that runs, or of the upper directory of one that does not.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    node: String,
}

impl Tree {
    /// The tree with this directory as its root.
    ///
    /// # Errors
    /// [`Error::NodeFile`] when it is not there.
    pub(super) fn open(node: &str, root: &Path) -> Result<Self> {
        let root = open_root(root).map_err(node_error("open", node, "/"))?;
        Ok(Self { root, node: node.to_owned() })
    }

    /// The content of a file; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::NodeFile`] naming node and path.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>> {
        let mut text = String::new();
        let read =
            open_in(&self.root, path, OFlags::RDONLY).and_then(|mut file| file.read_to_string(&mut text));
        match read {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(node_error("read", &self.node, path)(error)),
        }
    }

    /// Replaces the content of a file, and makes the directories above it.
    ///
    /// # Errors
    /// [`Error::NodeFile`] naming node and path.
    pub(super) fn write(&self, path: &str, content: &str) -> Result<()> {
        make_directories(&self.root, path)
            .and_then(|()| open_in(&self.root, path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC))
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(node_error("write", &self.node, path))
    }

    /// The names in a directory; none when there is none.
    ///
    /// # Errors
    /// [`Error::NodeFile`] naming node and path.
    pub(super) fn list(&self, path: &str) -> Result<Vec<String>> {
        let list = || -> io::Result<Vec<String>> {
            let directory = open_in(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(&directory)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            Ok(names)
        };
        match list() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(node_error("list", &self.node, path)),
        }
    }

    /// Removes a file of a directory, and the directory with it when nothing else is there.
    ///
    /// # Errors
    /// [`Error::NodeFile`] naming node and path.
    pub(super) fn remove(&self, parent: &str, directory: &str, file: &str) -> Result<()> {
        let remove = || -> io::Result<()> {
            let above = open_in(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
            let within =
                open_in(&self.root, &format!("{parent}/{directory}"), OFlags::PATH | OFlags::DIRECTORY)?;
            rustix::fs::unlinkat(&within, file, AtFlags::empty())?;
            match rustix::fs::unlinkat(&above, directory, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) | Ok(()) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        remove().map_err(node_error("remove", &self.node, &format!("{parent}/{directory}/{file}")))
    }
}

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open(process: &Process, path: &str, flags: OFlags) -> io::Result<std::fs::File> {
    open_in(open_root(&process.root())?, path, flags)
}

fn open_in(root: impl AsFd, path: &str, flags: OFlags) -> io::Result<std::fs::File> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, Path::new(path), flags | OFlags::CLOEXEC, mode, resolve)?.into())
}

/// The content of a file of the node.
///
/// # Errors
/// [`Error::NodeFile`] naming node and path.
pub(super) fn read(process: &Process, node: &str, path: &str) -> Result<String> {
    let mut text = String::new();
    open(process, path, OFlags::RDONLY).and_then(|mut file| file.read_to_string(&mut text)).map_err(
        |source| Error::NodeFile { what: "read", node: node.to_owned(), path: path.to_owned(), source },
    )?;
    Ok(text)
}

/// Replaces the content of a file of the node, whose directory exists.
///
/// # Errors
/// [`Error::NodeFile`] naming node and path.
pub(super) fn write(process: &Process, node: &str, path: &str, content: &str) -> Result<()> {
    open(process, path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(node_error("write", node, path))
}

/// Writes a file of the node that only its root may read, and makes the directories above it.
///
/// # Errors
/// [`Error::NodeFile`] naming node and path.
pub(super) fn write_private(process: &Process, node: &str, path: &str, content: &str) -> Result<()> {
    open_root(&process.root())
        .and_then(|root| make_directories(&root, path))
        .map_err(node_error("write", node, path))?;
    open(process, path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
        .and_then(|mut file| {
            rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            file.write_all(content.as_bytes())
        })
        .map_err(node_error("write", node, path))
}

/// Has whoever watches a file of the node be told of it again, by giving it the mode that it has.
///
/// # Errors
/// As of open(2) and fchmod(2); of a file that is not there, too.
pub(super) fn announce(process: &Process, path: &str) -> io::Result<()> {
    announce_file(&open(process, path, OFlags::RDONLY)?)
}

fn announce_file(file: &std::fs::File) -> io::Result<()> {
    file.set_permissions(file.metadata()?.permissions())
}

/// A program of the node, which reads nothing.
///
/// # Errors
/// [`Error::Runtime`] when the node does not run.
pub(super) fn command(process: &Process, args: &[&str]) -> Result<tokio::process::Command> {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let spec = ExecSpec { args, ..ExecSpec::default() };
    let mut command = tokio::process::Command::from(exec_command(process, &spec)?);
    command.stdin(Stdio::null());
    Ok(command)
}

/// Gives a file of the node another name, in a directory that exists. One that is not there is left so.
///
/// # Errors
/// [`Error::NodeFile`] naming node and path.
pub(super) fn rename(process: &Process, node: &str, from: &str, to: &str) -> Result<()> {
    let rename = || -> io::Result<()> {
        let root = open_root(&process.root())?;
        let parent = |path: &str| {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = open_in(&root, &format!("{parent}/"), OFlags::PATH | OFlags::DIRECTORY)?;
            Ok::<_, io::Error>((parent, name.to_owned()))
        };
        let ((from, old), (to, new)) = (parent(from)?, parent(to)?);
        match rustix::fs::renameat(&from, old, &to, new) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    rename().map_err(node_error("rename", node, from))
}

/// Makes the directories above a path, each resolved as the file itself will be.
fn make_directories(root: &OwnedFd, path: &str) -> io::Result<()> {
    let mut parent = open_in(root, "/", OFlags::PATH | OFlags::DIRECTORY)?;
    let directories = Path::new(path).parent().into_iter().flat_map(Path::components);
    let mut above = String::from("/");
    for component in directories {
        let std::path::Component::Normal(name) = component else { continue };
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        above = format!("{above}/{}", name.to_string_lossy());
        parent = open_in(root, &above, OFlags::PATH | OFlags::DIRECTORY)?;
    }
    Ok(())
}

fn node_error(what: &'static str, node: &str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let (node, path) = (node.to_owned(), path.to_owned());
    move |source| Error::NodeFile { what, node, path, source }
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use rustix::fs::inotify;

    use super::*;

    #[test]
    fn who_watches_a_directory_is_told_of_a_file_in_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = fs_err::File::create(directory.path().join("etcd.yaml")).unwrap();
        let before = file.metadata().unwrap().permissions();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, directory.path(), inotify::WatchFlags::ATTRIB).unwrap();
        announce_file(file.file()).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        let event = events.next().unwrap();
        assert_eq!(event.file_name(), Some(c"etcd.yaml"));
        assert_eq!(file.metadata().unwrap().permissions(), before);
    }
}
