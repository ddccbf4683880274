//! Files inside a running node, reached from outside.
//!
//! The paths are the node's: its processes run as root and may have put a link anywhere, so every path is resolved
//! with the node's root as the root, as if by a process inside (openat2(2), RESOLVE_IN_ROOT).

use std::{
    io::{self, Read, Write},
    path::Path,
};

use kiln_runtime::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::{Error, Result};

fn open(process: &Process, path: &str, flags: OFlags) -> io::Result<std::fs::File> {
    let root =
        rustix::fs::open(process.root(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
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
        .map_err(write_error(node, path))
}

/// Writes a file of the node that only its root may read, and makes the directories above it.
///
/// # Errors
/// [`Error::NodeFile`] naming node and path.
pub(super) fn write_private(process: &Process, node: &str, path: &str, content: &str) -> Result<()> {
    make_directories(process, path).map_err(write_error(node, path))?;
    open(process, path, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)
        .and_then(|mut file| {
            rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            file.write_all(content.as_bytes())
        })
        .map_err(write_error(node, path))
}

/// Makes the directories above a path, each resolved as the file itself will be.
fn make_directories(process: &Process, path: &str) -> io::Result<()> {
    let mut parent = open(process, "/", OFlags::PATH | OFlags::DIRECTORY)?;
    let directories = Path::new(path).parent().into_iter().flat_map(Path::components);
    let mut above = String::from("/");
    for component in directories {
        let std::path::Component::Normal(name) = component else { continue };
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        above = format!("{above}/{}", name.to_string_lossy());
        parent = open(process, &above, OFlags::PATH | OFlags::DIRECTORY)?;
    }
    Ok(())
}

fn write_error(node: &str, path: &str) -> impl FnOnce(io::Error) -> Error {
    let (node, path) = (node.to_owned(), path.to_owned());
    move |source| Error::NodeFile { what: "write", node, path, source }
}
