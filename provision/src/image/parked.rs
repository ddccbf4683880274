//! The files of an image archive, parked until it is known what they are.
//!
//! An archive is read once, front to back, maybe from a pipe, and what explains the rest may come last. So each file
//! is written under its digest, hashed on its way, into a directory of the store's `tmp/`. That is the one copy that
//! there is of it: nodes are sent the content from there.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use flate2::bufread::MultiGzDecoder;

use super::{
    Digest,
    archive::{Archive, Entry},
    digest::Hashed,
    failed,
    members::Members,
    scratch::ScratchDirectory,
};
use crate::{Error, Result};

/// What an error calls an archive of images.
pub(super) const ARCHIVE: &str = "image archive";
/// The directory of a layout, and of archives in its form, whose files are named by their digest.
pub(super) const BLOBS: &str = "blobs/sha256/";

/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
/// Bytes that tell how a stream is compressed.
const MAGIC: usize = 6;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Compressions that are recognised in order to be named.
const UNSUPPORTED: [(&str, &[u8]); 3] =
    [("xz", &[0xfd, b'7', b'z', b'X', b'Z', 0]), ("bzip2", b"BZh"), ("lz4", &[0x04, 0x22, 0x4d, 0x18])];

/// A directory for the content of one archive, gone with all it holds when this is dropped or its process is killed.
#[derive(Debug)]
pub struct Parking(ScratchDirectory);

impl Parking {
    pub(super) fn create(tmp: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The time keeps processes of other process namespaces apart, which may have the same number.
        let now = jiff::Timestamp::now().as_nanosecond();
        ScratchDirectory::acquire(tmp, &format!("archive-{}-{now}-{number}", std::process::id())).map(Self)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// How a stream is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compressed {
    No,
    Gzip,
    Zstd,
    /// By something that is not supported.
    Otherwise(&'static str),
}

impl Compressed {
    pub(super) fn of(start: &[u8]) -> Self {
        if start.starts_with(GZIP) {
            return Self::Gzip;
        }
        if start.starts_with(ZSTD) {
            return Self::Zstd;
        }
        let other = UNSUPPORTED.iter().find(|(_, magic)| start.starts_with(magic));
        other.map_or(Self::No, |(name, _)| Self::Otherwise(name))
    }
}

/// The first bytes of a stream, as [`Compressed::of`] wants them.
pub(super) fn start_of(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC);
    source.take(MAGIC as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Reads an archive to its end and leaves its files in `directory`, named by the hexadecimal digits of their digests.
/// What is there after an error is the caller's to remove.
///
/// # Errors
/// [`Error::NotImages`] if it is no archive, [`Error::ArchiveTruncated`], [`Error::ArchiveRead`],
/// [`Error::DigestMismatch`] for a blob that is not what its name says, [`Error::NoSpace`].
pub(super) fn park(origin: &str, source: impl Read, directory: &Path) -> Result<Members<Digest>> {
    let (mut compressed, mut current) = (Compressed::No, None);
    let outcome = decompressed(source, &mut compressed).and_then(|source| {
        let mut archive = Archive::new(source);
        let members = Members::read(&mut archive, &mut current, |archive, entry, path| {
            let digest = park_file(archive, entry, directory)?;
            match mismatch(origin, path, digest) {
                Some(mismatch) => Err(io::Error::other(mismatch)),
                None => Ok(digest),
            }
        })?;
        // Whoever writes to a pipe wants to get rid of all of it, and the end of a compressed stream has a checksum.
        io::copy(&mut archive.into_source(), &mut io::sink())?;
        Ok(members)
    });
    outcome.map_err(|error| {
        // A small archive may be lost with the end of its compression.
        let current = current.or_else(|| {
            let cut = compressed != Compressed::No && error.kind() == io::ErrorKind::UnexpectedEof;
            cut.then(|| "its first file".to_owned())
        });
        explain(origin, ARCHIVE, current, directory, error)
    })
}

/// The stream without its compression, which is told.
pub(super) fn decompressed<'a>(
    mut source: impl Read + 'a,
    compressed: &mut Compressed,
) -> io::Result<Box<dyn BufRead + 'a>> {
    let start = start_of(&mut source)?;
    *compressed = Compressed::of(&start);
    if start.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
    }
    let source = BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(source));
    Ok(match *compressed {
        Compressed::No => Box::new(source),
        // Tools for parallel compression write several members.
        Compressed::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source))),
        Compressed::Zstd => Box::new(BufReader::with_capacity(BUFFER, zstd::Decoder::with_buffer(source)?)),
        Compressed::Otherwise(name) => {
            let problem = format!("it is compressed with {name}; gzip, zstd and none are supported");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
    })
}

fn park_file(archive: &mut Archive<impl BufRead>, entry: &Entry, directory: &Path) -> io::Result<Digest> {
    let partial = directory.join("partial");
    let mut file = Hashed::new(fs_err::File::create(&partial)?);
    archive.write_content(entry, &mut file)?;
    file.flush()?;
    let (_, digest) = file.into_parts();
    fs_err::rename(&partial, directory.join(digest.hex()))?;
    Ok(digest)
}

/// The digest that a path says its file has.
pub(super) fn digest_of_path(path: &str) -> Option<Digest> {
    Digest::try_new(&format!("sha256:{}", path.strip_prefix(BLOBS)?)).ok()
}

fn mismatch(origin: &str, path: &str, actual: Digest) -> Option<Mismatch> {
    let expected = digest_of_path(path)?;
    (expected != actual).then(|| Mismatch { what: format!("{path} of {origin}"), expected, actual })
}

/// A wrong digest on its way through an [`io::Error`].
#[derive(Debug)]
struct Mismatch {
    what: String,
    expected: Digest,
    actual: Digest,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Mismatch {}

/// What an error while reading means; `entry` is the one that was being read, `kind` what the archive should be.
pub(super) fn explain(
    origin: &str,
    kind: &'static str,
    entry: Option<String>,
    directory: &Path,
    error: io::Error,
) -> Error {
    let error = match error.downcast::<Mismatch>() {
        Ok(Mismatch { what, expected, actual }) => return Error::DigestMismatch { what, expected, actual },
        Err(error) => error,
    };
    let origin = origin.to_owned();
    match (error.kind(), entry) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            failed(format!("store the content of {origin}"), directory)(error)
        }
        (io::ErrorKind::UnexpectedEof, Some(entry)) => Error::ArchiveTruncated { origin, entry },
        (io::ErrorKind::UnexpectedEof, None) => {
            Error::NotImages { origin, kind, source: "it ends within its first header".into() }
        }
        (io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput, None) => {
            Error::NotImages { origin, kind, source: error.into() }
        }
        _ => Error::ArchiveRead { origin, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        assert_eq!(Compressed::of(&zstd::encode_all(&b""[..], 1).unwrap()), Compressed::Zstd);
        assert_eq!(Compressed::of(b"\x1f\x8b\x08"), Compressed::Gzip);
        assert_eq!(Compressed::of(b"BZh91A"), Compressed::Otherwise("bzip2"));
        assert_eq!(Compressed::of(b"index."), Compressed::No);
        assert_eq!(Compressed::of(b""), Compressed::No);
    }
}
