//! Copying files between the host and a running node.
//!
//! What is copied goes through a tar archive in a pipe: one side packs, the other unpacks as it would a stranger's layer.
//! Paths of a node are resolved with its root as `/`, whatever links its processes have made; and nothing is written
//! outside of the directory that the caller has named.

mod place;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use place::{Place, Source, Target};

use crate::{
    Error, Paths, Result, cluster,
    image::{archive_tree, extract_tree},
};

/// Bytes of the archive that are read or written at a time.
const BUFFER: usize = 256 << 10;

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A file or directory of the host.
    Host(PathBuf),
    /// A file or directory of a node.
    Node {
        /// The node's name.
        node: String,
        /// The path in it; a relative one starts at its root.
        path: PathBuf,
    },
    /// A tar archive that is read from, or written to, one of the [`Streams`].
    Stream,
}

/// Where archives come from and go to.
pub struct Streams<'a> {
    /// Usually standard input.
    pub input: &'a mut dyn Read,
    /// Usually standard output.
    pub output: &'a mut dyn Write,
}

impl fmt::Debug for Streams<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Streams")
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(path) => path.display().fmt(formatter),
            Self::Node { node, path } => write!(formatter, "{node}:{}", path.display()),
            Self::Stream => formatter.write_str("an archive"),
        }
    }
}

/// Copies a file, or a directory with all that is in it; modes, owners and times come along, sockets and devices do
/// not.
///
/// What is copied keeps its name when `to` is a directory, and takes the last name of `to` otherwise. A directory whose
/// path ends in `/.` stands for what is in it. A symbolic link is copied as one, unless `follow`. An archive is unpacked
/// in `to`, which must be a directory.
///
/// # Errors
/// [`Error::NoSuchNode`], [`Error::NodeNotRunning`], [`Error::Copy`] naming the file.
pub fn copy(paths: &Paths, from: &End, to: &End, follow: bool, streams: Streams<'_>) -> Result<()> {
    let (source, target) = (Place::open(paths, from)?, Place::open(paths, to)?);
    transfer((&source, from), (&target, to), follow, streams).map_err(|source| Error::Copy {
        from: from.to_string(),
        to: to.to_string(),
        source,
    })
}

fn transfer(
    (source, from): (&Place, &End),
    (target, to): (&Place, &End),
    follow: bool,
    streams: Streams<'_>,
) -> io::Result<()> {
    let source = match path_of(from) {
        Some(path) => Some(source.source(&path, follow)?),
        None => None,
    };
    let target = match path_of(to) {
        Some(path) => Some(target.target(&path, source.as_ref())?),
        None => None,
    };
    match (source, target) {
        (None, None) => io::copy(streams.input, streams.output).map(drop),
        (None, Some(target)) => unpack(streams.input, &target),
        (Some(source), None) => pack(&source, source.own_name(), streams.output),
        (Some(source), Some(target)) => relay(&source, &target),
    }
}

/// Packs and unpacks at once.
fn relay(source: &Source, target: &Target) -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    let (packed, unpacked) = std::thread::scope(|scope| {
        let packing = scope.spawn(move || pack(source, &target.called, writer));
        let unpacked = unpack(reader, target);
        (packing.join(), unpacked)
    });
    let packed = packed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match packed {
        // The other side has given up, and knows why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => unpacked,
        // Whatever the other side makes of half an archive.
        Err(error) => Err(error),
        Ok(()) => unpacked,
    }
}

fn pack(source: &Source, called: &[u8], output: impl Write) -> io::Result<()> {
    let mut output = io::BufWriter::with_capacity(BUFFER, output);
    let mut current = Vec::new();
    archive_tree(source.directory.as_fd(), &source.name, called, &mut output, &mut current)
        .map_err(|error| naming(&current, error))
}

fn unpack(archive: impl Read, target: &Target) -> io::Result<()> {
    let mut current = None;
    let mut archive = BufReader::with_capacity(BUFFER, archive);
    extract_tree(&mut archive, target.directory.as_fd(), &mut current)
        .map_err(|error| naming(&current.unwrap_or_default(), error))?;
    // Whoever packs is not to be stopped by padding that nobody reads.
    io::copy(&mut archive, &mut io::sink()).map(drop)
}

/// The error with the file that it is about.
fn naming(path: &[u8], error: io::Error) -> io::Error {
    match path {
        b"" => error,
        path => io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(path))),
    }
}

fn path_of(end: &End) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;

    match end {
        End::Host(path) | End::Node { path, .. } => Some(path.as_os_str().as_bytes().to_vec()),
        End::Stream => None,
    }
}

impl Place {
    fn open(paths: &Paths, end: &End) -> Result<Self> {
        match end {
            End::Host(_) | End::Stream => Ok(Self::host()),
            End::Node { node, .. } => {
                let process = cluster::running(paths, node)?;
                Self::below(&process.root()).map_err(Error::file("open the node's root"))
            }
        }
    }
}
