//! Taking a few files out of an archive.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    archive::{Archive, Kind},
    members::normal,
    parked::{Compressed, decompressed, explain},
    unpack::MAX_BYTES,
};
use crate::Result;

/// Reads an archive, plain or compressed with gzip or zstd, to its end and writes those of its files to `directory` for
/// which `wanted` has a name there. `kind` is what errors say that it should be. What is there after an error is the
/// caller's to remove.
///
/// # Errors
/// [`Error::NotImages`](crate::Error::NotImages) if it is no archive,
/// [`Error::ArchiveTruncated`](crate::Error::ArchiveTruncated), [`Error::ArchiveRead`](crate::Error::ArchiveRead),
/// [`Error::NoSpace`](crate::Error::NoSpace).
pub(crate) fn pick_files(
    origin: &str,
    kind: &'static str,
    source: impl Read,
    directory: &Path,
    wanted: impl Fn(&str) -> Option<PathBuf>,
) -> Result<()> {
    let (mut compressed, mut current) = (Compressed::No, None);
    let outcome = decompressed(source, &mut compressed).and_then(|source| {
        let mut archive = Archive::new(source);
        let mut bytes = 0_u64;
        while let Some(entry) = archive.next()? {
            let path = normal("", &String::from_utf8_lossy(&entry.path));
            let name = wanted(&path).filter(|_| entry.kind == Kind::File);
            current = Some(path);
            bytes = bytes.saturating_add(entry.size);
            if bytes > MAX_BYTES {
                let problem = format!("it has more than {} GiB", MAX_BYTES >> 30);
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
            }
            if let Some(name) = name {
                let mut file = fs_err::File::create(directory.join(name))?;
                archive.write_content(&entry, &mut file)?;
            }
        }
        // The end of a compressed stream has a checksum.
        io::copy(&mut archive.into_source(), &mut io::sink()).map(drop)
    });
    outcome.map_err(|error| {
        // A small archive may be lost with the end of its compression.
        let cut = compressed != Compressed::No && error.kind() == io::ErrorKind::UnexpectedEof;
        let current = current.or_else(|| cut.then(|| "its first file".to_owned()));
        explain(origin, kind, current, directory, error)
    })
}
