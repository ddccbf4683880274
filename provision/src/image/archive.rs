//! Reading tar archives: ustar, GNU and PAX, with long names, extended attributes and sparse files.
//!
//! Nothing in an archive decides how much memory is used: extended headers are limited, contents are passed on in
//! pieces. Where formats allow two readings, the one of Go's `archive/tar` is taken, since that is what other
//! container tools see: entries other than files have no content whatever their size field says, and global headers
//! change nothing.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, Seek, SeekFrom, Write},
    os::unix::ffi::OsStringExt,
};

use rustix::fs::Timespec;
use tar::Header;

use super::{
    inode::{Metadata, is_portable},
    pax,
    sparse::{Segment, Sparse, check_segments},
};

const BLOCK: usize = 512;
/// Bytes of extended headers that one entry may have. A path has at most 4 KiB, an attribute 64 KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// An entry without its content.
#[derive(Debug)]
pub(super) struct Entry {
    /// As given: possibly absolute, with `..`, or empty.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) metadata: Metadata,
    /// Bytes of the file once it is unpacked, holes included.
    pub(super) size: u64,
    segments: Vec<Segment>,
}

impl Entry {
    /// Whether the file has holes.
    pub(super) fn is_sparse(&self) -> bool {
        // The segments have been checked: they are in order and their sum does not overflow.
        self.segments.iter().map(|segment| segment.length).sum::<u64>() != self.size
    }
}

/// What precedes an entry and changes it.
#[derive(Default)]
struct Extension {
    records: Vec<pax::Record>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: u64,
}

/// An archive that is read once, front to back.
#[derive(Debug)]
pub(super) struct Archive<R> {
    source: R,
    /// Bytes of the current entry's content that are not read yet, and of the padding after it.
    content: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0 }
    }

    /// The next entry; `None` at the end. The content of the one before is skipped if it was not copied.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if extension.size > 0 {
                    return Err(invalid("it ends after the extended header of an entry"));
                }
                return Ok(None);
            };
            let size = unsigned(number(&header.as_old().size)?)?;
            match header.as_bytes()[156] {
                b'x' => extension.records.extend(pax::parse(&self.extension(size, &mut extension.size)?)?),
                b'g' => drop(self.extension(size, &mut 0)?),
                b'L' => extension.path = Some(trim(self.extension(size, &mut extension.size)?)),
                b'K' => extension.link = Some(trim(self.extension(size, &mut extension.size)?)),
                _ => return self.entry(&header, size, extension).map(Some),
            }
        }
    }

    /// Writes the content of the entry that came last to an empty file. Holes stay holes.
    pub(super) fn copy_content(&mut self, entry: &Entry, file: &mut File) -> io::Result<()> {
        let mut position = 0;
        // GNU tar marks the end of a last hole by a segment without content.
        for segment in entry.segments.iter().filter(|segment| segment.length > 0) {
            if segment.offset != position {
                file.seek(SeekFrom::Start(segment.offset))?;
            }
            self.copy(segment.length, file)?;
            position = segment.offset + segment.length;
        }
        if position < entry.size {
            file.set_len(entry.size)?;
        }
        Ok(())
    }

    /// Passes on the content of the entry that came last. A file with holes is an error: nothing that is read this way
    /// has any.
    pub(super) fn write_content(&mut self, entry: &Entry, target: &mut impl Write) -> io::Result<()> {
        if entry.is_sparse() {
            return Err(invalid("it has a sparse file"));
        }
        entry.segments.iter().try_for_each(|segment| self.copy(segment.length, target))
    }

    /// What follows the archive.
    pub(super) fn into_source(self) -> R {
        self.source
    }

    fn copy(&mut self, mut length: u64, target: &mut impl Write) -> io::Result<()> {
        self.content = self.content.checked_sub(length).ok_or_else(|| invalid("its content is too short"))?;
        while length > 0 {
            let available = self.source.fill_buf()?;
            let count = available.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            target.write_all(&available[..count])?;
            self.source.consume(count);
            length -= count as u64;
        }
        Ok(())
    }

    /// Goes to the end of the current entry.
    fn skip(&mut self) -> io::Result<()> {
        self.content =
            self.content.checked_add(self.padding).ok_or_else(|| invalid("its size is out of range"))?;
        self.padding = 0;
        self.copy(self.content, &mut io::sink())
    }

    fn begin_content(&mut self, size: u64) {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The next header; `None` at the end of the archive or of its input.
    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.source.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // The checksum is computed as if its own field were blank.
        let sum = block
            .iter()
            .enumerate()
            .map(|(i, &byte)| if (148..156).contains(&i) { 32 } else { i64::from(byte) });
        if number(&header.as_old().cksum)? != sum.sum::<i64>() {
            return Err(invalid("a header of the archive has a wrong checksum"));
        }
        Ok(Some(header))
    }

    /// The content of an extended header, counted in `total`.
    fn extension(&mut self, size: u64, total: &mut u64) -> io::Result<Vec<u8>> {
        *total = total.saturating_add(size).saturating_add(1);
        if *total > MAX_EXTENSION {
            return Err(invalid("the extended headers of an entry are larger than 1 MiB"));
        }
        self.begin_content(size);
        let mut content = Vec::new();
        self.copy(size, &mut content)?;
        Ok(content)
    }

    fn entry(&mut self, header: &Header, mut size: u64, extension: Extension) -> io::Result<Entry> {
        let old = header.as_old();
        let mut path = header.path_bytes().into_owned();
        let mut link = header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let (mut uid, mut gid) = (number(&old.uid)?, number(&old.gid)?);
        let mut mtime = Timespec { tv_sec: number(&old.mtime)?, tv_nsec: 0 };
        let mut xattrs = Vec::new();
        let mut sparse = Sparse::default();
        for (key, value) in extension.records {
            match &key[..] {
                // An empty value takes back what a global header said: nothing, to us.
                b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" if value.is_empty() => {}
                b"path" => path = value,
                b"linkpath" => link = value,
                b"size" => size = pax::number(&value)?,
                b"uid" => uid = signed(pax::number(&value)?)?,
                b"gid" => gid = signed(pax::number(&value)?)?,
                b"mtime" => mtime = pax::time(&value)?,
                _ => {
                    if let Some(name) = key.strip_prefix(pax::XATTR) {
                        let name = OsString::from_vec(name.to_vec());
                        if is_portable(&name) {
                            xattrs.push((name, value));
                        }
                    } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                        sparse.record(key, value)?;
                    }
                }
            }
        }
        // As in Go, GNU's long names win over PAX's.
        path = extension.path.or(sparse.name.take()).unwrap_or(path);
        link = extension.link.unwrap_or(link);

        let device = || -> io::Result<(u32, u32)> {
            let ustar = header.as_ustar().ok_or_else(|| invalid("it is a device without a number"));
            let (major, minor) = match header.as_gnu() {
                Some(gnu) => (&gnu.dev_major, &gnu.dev_minor),
                None => ustar.map(|ustar| (&ustar.dev_major, &ustar.dev_minor))?,
            };
            Ok((id(number(major)?)?, id(number(minor)?)?))
        };
        let kind = match header.as_bytes()[156] {
            // Archives from before ustar mark directories by a slash only.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => device().map(|(major, minor)| Kind::Character { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::Block { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(invalid(format!("an entry has the unknown type {:?}", char::from(other)))),
        };

        let mut segments = Vec::new();
        if kind == Kind::File {
            self.begin_content(size);
            if let Some(gnu) = header.as_gnu().filter(|_| header.as_bytes()[156] == b'S') {
                segments = self.gnu_segments(gnu)?;
                size = unsigned(number(&gnu.realsize)?)?;
            } else if let Some(real_size) = sparse.size {
                segments = if sparse.major == 1 { self.pax_segments()? } else { sparse.segments()? };
                size = real_size;
            } else {
                segments.push(Segment { offset: 0, length: size });
            }
            check_segments(&segments, size, self.content)?;
        } else {
            size = 0;
        }
        let mode =
            u32::try_from(number(&old.mode)? & 0o7777).map_err(|_| invalid("its mode is out of range"))?;
        let metadata = Metadata { uid: id(uid)?, gid: id(gid)?, mode, mtime, xattrs };
        Ok(Entry { path, kind, metadata, size, segments })
    }

    /// The map of GNU's old sparse format: in the header and in blocks that follow it.
    fn gnu_segments(&mut self, gnu: &tar::GnuHeader) -> io::Result<Vec<Segment>> {
        let mut segments = Vec::new();
        let mut push = |fields: &tar::GnuSparseHeader| -> io::Result<()> {
            if fields.offset[0] != 0 || fields.numbytes[0] != 0 {
                let (offset, length) =
                    (unsigned(number(&fields.offset)?)?, unsigned(number(&fields.numbytes)?)?);
                segments.push(Segment { offset, length });
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut push)?;
        let mut extended = gnu.is_extended();
        let mut total = 0;
        while extended {
            total += BLOCK as u64;
            if total > MAX_EXTENSION {
                return Err(invalid("its map of holes is larger than 1 MiB"));
            }
            let mut block = tar::GnuExtSparseHeader::new();
            self.source.read_exact(block.as_mut_bytes())?;
            block.sparse.iter().try_for_each(&mut push)?;
            extended = block.is_extended();
        }
        Ok(segments)
    }

    /// The map of PAX sparse format 1.0: decimal lines at the start of the content, padded to a block.
    fn pax_segments(&mut self) -> io::Result<Vec<Segment>> {
        let mut map = Vec::new();
        let mut lines = 0;
        let mut wanted = 1;
        while lines < wanted {
            if map.len() as u64 >= MAX_EXTENSION {
                return Err(invalid("its map of holes is larger than 1 MiB"));
            }
            let before = map.len();
            self.copy(BLOCK as u64, &mut map)?;
            lines += map[before..].iter().filter(|&&byte| byte == b'\n').count() as u64;
            if wanted == 1 && lines > 0 {
                let first = map.split(|&byte| byte == b'\n').next().unwrap_or_default();
                wanted = pax::number(first)?
                    .checked_mul(2)
                    .and_then(|count| count.checked_add(1))
                    .unwrap_or(u64::MAX);
            }
        }
        let mut numbers = map.split(|&byte| byte == b'\n').skip(1);
        let mut segments = Vec::new();
        for _ in 0..wanted / 2 {
            let (Some(offset), Some(length)) = (numbers.next(), numbers.next()) else { break };
            segments.push(Segment { offset: pax::number(offset)?, length: pax::number(length)? });
        }
        Ok(segments)
    }
}

impl<R: BufRead + Seek> Archive<R> {
    /// Goes past the content of the entry that came last without reading it. Returns where in the source it begins and how
    /// many bytes it has, whether the source reaches so far or not. A file with holes is an error, as in
    /// [`write_content`](Self::write_content).
    pub(super) fn pass_content(&mut self, entry: &Entry) -> io::Result<(u64, u64)> {
        if entry.is_sparse() {
            return Err(invalid("it has a sparse file"));
        }
        let (offset, length) = (self.source.stream_position()?, self.content);
        let forward = i64::try_from(length).map_err(|_| invalid("its size is out of range"))?;
        self.source.seek_relative(forward)?;
        self.content = 0;
        Ok((offset, length))
    }
}

/// A numeric field: octal digits, or, with the top bit set, a big-endian number. An empty field is 0.
fn number(field: &[u8]) -> io::Result<i64> {
    let problem = || invalid("a number in a header of the archive is malformed");
    if let Some(&first) = field.first().filter(|&&first| first & 0x80 != 0) {
        // The bit after the top one is the sign.
        let start = if first & 0x40 == 0 { i128::from(first & 0x3f) } else { i128::from(first as i8) };
        let value = field[1..]
            .iter()
            .try_fold(start, |value, &byte| value.checked_mul(256).map(|value| value | i128::from(byte)));
        return value.and_then(|value| i64::try_from(value).ok()).ok_or_else(problem);
    }
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default().trim_ascii();
    if text.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(text).map_err(|_| problem())?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem());
    }
    i64::from_str_radix(text, 8).map_err(|_| problem())
}

fn unsigned(value: i64) -> io::Result<u64> {
    u64::try_from(value).map_err(|_| invalid("its size is out of range"))
}

fn signed(value: u64) -> io::Result<i64> {
    i64::try_from(value).map_err(|_| invalid("its owner is out of range"))
}

/// An owner or device number. The largest value means "unchanged" to the kernel and is no number.
fn id(value: i64) -> io::Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|&id| id != u32::MAX)
        .ok_or_else(|| invalid("its owner or device is out of range"))
}

/// GNU's long names end in a zero byte.
fn trim(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
    name
}

pub(super) fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}
