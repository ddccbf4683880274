//! What the targets in `fuzz/` need besides the public interface. It is there with the feature `fuzzing` only.

use std::{io, os::fd::BorrowedFd};

use super::{
    stream::{Compression, decompress},
    unpack::{self, extract_limited, extract_tree},
};

/// What a layer may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the archive without compression, and bytes of all files with their holes.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Directories in each other.
    pub depth: u32,
}

impl Limits {
    /// Those of every layer that comes with an image.
    pub const DEFAULT: Self = Self {
        bytes: unpack::Limits::DEFAULT.bytes,
        entries: unpack::Limits::DEFAULT.entries,
        depth: unpack::Limits::DEFAULT.depth,
    };
}

/// Unpacks a layer into an empty directory, as the store does with one that is new. `media_type` says how it is
/// compressed.
///
/// # Errors
/// It is no layer, asks for too much, or cannot be written.
pub fn unpack_layer(blob: &[u8], media_type: &str, root: BorrowedFd<'_>, limits: Limits) -> io::Result<()> {
    let compression = Compression::of_layer(media_type).ok_or(io::ErrorKind::Unsupported)?;
    let Limits { bytes, entries, depth } = limits;
    let limits = unpack::Limits { bytes, entries, depth, ..unpack::Limits::DEFAULT };
    if compression == Compression::None {
        // Without the other thread, which would be most of the time of a small layer.
        return extract_limited(blob, root, limits, &mut None);
    }
    decompress(blob, compression, bytes, |archive| extract_limited(archive, root, limits, &mut None))
        .map(drop)
}

/// Unpacks an archive into a directory that may hold something already, as copying into a node does.
///
/// # Errors
/// It is no archive, asks for too much, or cannot be written.
pub fn unpack_files(archive: &[u8], root: BorrowedFd<'_>) -> io::Result<()> {
    extract_tree(archive, root, &mut None)
}
