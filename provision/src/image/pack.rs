//! Packing a directory into a layer.
//!
//! The archive depends on the tree alone: entries are sorted, owners are numbers, times are whole seconds, and there
//! are no access times. Packing an unchanged tree again gives the same digests.

use std::{
    collections::HashMap,
    io::{self, Cursor, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::fs::{FileType, Stat};
use tar::{EntryType, Header};

use super::{
    Layer, Store,
    digest::Hashed,
    failed,
    inode::{self, Metadata},
    pax,
};
use crate::Result;

const MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Twice as fast as gzip's lowest level at a better ratio; higher levels cost much more than they save.
const LEVEL: i32 = 3;
/// Threads that compress beside the one that reads. Their number does not change the result.
const WORKERS: u32 = 2;
/// Bytes read at a time.
const BUFFER: usize = 256 * 1024;
const BLOCK: usize = 512;
/// Bytes that are taken of a file that claims to be empty.
const MAX_UNSIZED: u64 = 16 << 20;
/// The largest numbers that fit the octal fields of a header.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// Packs the tree below `source` and stores it as a blob. `filter` gets each path relative to `source`; what it
/// refuses is left out, a directory with all it holds. Whiteouts and opaque directories of overlayfs become those of
/// an image. Sockets are left out: without their process they mean nothing.
///
/// # Errors
/// A file cannot be read, changes while it is read, or cannot be represented; the store cannot be written.
pub fn pack_layer(store: &Store, source: &Path, filter: impl Fn(&Path) -> bool) -> Result<Layer> {
    let mut current = Vec::new();
    let mut writer = store.blob_writer()?;
    let packed = || -> io::Result<_> {
        let mut encoder = zstd::Encoder::new(&mut writer, LEVEL)?;
        encoder.multithread(WORKERS)?;
        encoder.include_checksum(true)?;
        let mut archive = Hashed::new(encoder);
        write_archive(source, &filter, &mut archive, &mut current)?;
        let (encoder, diff_id) = archive.into_parts();
        encoder.finish()?;
        Ok(diff_id)
    }();
    let diff_id = packed.map_err(|error| {
        // Nothing is at hand when the last of it is written.
        let path = if current.is_empty() { source.to_owned() } else { source.join(inode::to_path(&current)) };
        failed(format!("pack {}", path.display()), store.root())(error)
    })?;
    let (digest, size) = writer.finish(None)?;
    Ok(Layer { digest, diff_id, media_type: MEDIA_TYPE.to_owned(), size })
}

/// Writes the archive. While it runs, `current` is the path at hand, relative to `source`.
pub(super) fn write_archive(
    source: &Path,
    filter: &dyn Fn(&Path) -> bool,
    output: &mut dyn Write,
    current: &mut Vec<u8>,
) -> io::Result<()> {
    let root = fs_err::File::open(source)?;
    let mut packer = Packer::new(Meaning::Layer, filter, output, current);
    let stat = rustix::fs::fstat(&root)?;
    if inode::kind(&stat) != FileType::Directory {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let metadata = Metadata::read(root.as_fd(), b".", &stat)?;
    packer.header(b"./", EntryType::Directory, &metadata, &Details::default())?;
    packer.directory(root.as_fd())?;
    // Two empty blocks end an archive.
    packer.output.write_all(&[0; 2 * BLOCK])?;
    packer.output.flush()
}

/// Writes an archive of the file `name` of a directory, with all that is below it, under the name `called` (`.` for the
/// content alone). Unlike a layer, it means what it says: no file is a whiteout. Sockets and devices are left out.
pub(crate) fn archive_tree(
    directory: BorrowedFd<'_>,
    name: &[u8],
    called: &[u8],
    output: &mut dyn Write,
    current: &mut Vec<u8>,
) -> io::Result<()> {
    current.clear();
    current.extend_from_slice(called);
    let mut packer = Packer::new(Meaning::Files, &|_| true, output, current);
    packer.entry(directory, name)?;
    packer.output.write_all(&[0; 2 * BLOCK])?;
    packer.output.flush()
}

/// What the names and devices of a tree stand for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Part of an image: whiteouts hide files of other layers.
    Layer,
    /// Themselves.
    Files,
}

struct Packer<'a> {
    meaning: Meaning,
    filter: &'a dyn Fn(&Path) -> bool,
    output: &'a mut dyn Write,
    /// The first path of each file that has several, by device and inode number.
    links: HashMap<(u64, u64), Vec<u8>>,
    current: &'a mut Vec<u8>,
    buffer: Vec<u8>,
}

/// What only some types of entries have.
#[derive(Default)]
struct Details<'a> {
    size: u64,
    link: &'a [u8],
    device: Option<u64>,
}

impl<'a> Packer<'a> {
    fn new(
        meaning: Meaning,
        filter: &'a dyn Fn(&Path) -> bool,
        output: &'a mut dyn Write,
        current: &'a mut Vec<u8>,
    ) -> Self {
        Self { meaning, filter, output, links: HashMap::new(), current, buffer: vec![0; BUFFER] }
    }

    fn directory(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        // Before its siblings, as image tools expect it.
        if self.meaning == Meaning::Layer && inode::is_opaque(directory)? {
            self.whiteout(b".wh..opq")?;
        }
        for name in inode::names(directory)? {
            let name = name.to_bytes();
            let length = self.current.len();
            if length > 0 {
                self.current.push(b'/');
            }
            self.current.extend_from_slice(name);
            if (self.filter)(&inode::to_path(self.current)) {
                self.entry(directory, name)?;
            }
            // After an error the path stays, to be named in it.
            self.current.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        let layer = self.meaning == Meaning::Layer;
        if layer && name.starts_with(b".wh.") {
            return Err(io::Error::other("names that begin with \".wh.\" mean something else in a layer"));
        }
        let stat = inode::stat(directory, name)?;
        let kind = inode::kind(&stat);
        if layer && inode::is_whiteout(&stat) {
            self.current.truncate(self.current.len() - name.len());
            return self.whiteout(name);
        }
        let path = self.current.clone();
        let metadata = Metadata::read(directory, name, &stat)?;
        if kind == FileType::Directory {
            let child = inode::open_directory(directory, name)?;
            self.header(&[&path[..], b"/"].concat(), EntryType::Directory, &metadata, &Details::default())?;
            return self.directory(child.as_fd());
        }
        let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if kind == FileType::Socket || (device && !layer) {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.clone());
            if *first != path {
                let details = Details { link: &first.clone(), ..Details::default() };
                return self.header(&path, EntryType::Link, &metadata, &details);
            }
        }
        match kind {
            FileType::RegularFile => self.file(directory, name, &path, &metadata, &stat),
            FileType::Symlink => {
                let details = Details { link: &inode::read_link(directory, name)?, ..Details::default() };
                self.header(&path, EntryType::Symlink, &metadata, &details)
            }
            FileType::Fifo => self.header(&path, EntryType::Fifo, &metadata, &Details::default()),
            FileType::CharacterDevice | FileType::BlockDevice => {
                let kind = if kind == FileType::BlockDevice { EntryType::Block } else { EntryType::Char };
                let details = Details { device: Some(stat.st_rdev), ..Details::default() };
                self.header(&path, kind, &metadata, &details)
            }
            _ => Err(io::Error::other("it is of an unknown type")),
        }
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        metadata: &Metadata,
        stat: &Stat,
    ) -> io::Result<()> {
        let file = inode::open_file(directory, name)?;
        let mut size = u64::try_from(stat.st_size).map_err(io::Error::other)?;
        let mut file: Box<dyn Read> = Box::new(file);
        if size == 0 && self.meaning == Meaning::Files {
            // Files of the kernel (/proc, /sys) do not say how much there is in them.
            let mut content = Vec::new();
            file.take(MAX_UNSIZED).read_to_end(&mut content)?;
            size = content.len() as u64;
            file = Box::new(Cursor::new(content));
        }
        self.header(path, EntryType::Regular, metadata, &Details { size, ..Details::default() })?;
        let mut left = size;
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.read(&mut self.buffer[..wanted]) {
                Ok(0) => return Err(io::Error::other("it became shorter while it was being packed")),
                Ok(count) => {
                    self.output.write_all(&self.buffer[..count])?;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pad(size)
    }

    /// An entry that hides `name` in the current directory.
    fn whiteout(&mut self, name: &[u8]) -> io::Result<()> {
        let directory = &self.current[..];
        let slash: &[u8] = if directory.is_empty() || directory.ends_with(b"/") { b"" } else { b"/" };
        let path = [directory, slash, b".wh.", name].concat();
        let metadata = Metadata { uid: 0, gid: 0, mode: 0, mtime: Default::default(), xattrs: Vec::new() };
        self.header(&path, EntryType::Regular, &metadata, &Details::default())
    }

    /// Writes the header of an entry, after an extended one if something does not fit.
    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        metadata: &Metadata,
        details: &Details<'_>,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        let mut extended = Vec::new();
        let fields = header.as_old_mut();
        put(&mut fields.name, b"path", path, &mut extended);
        put(&mut fields.linkname, b"linkpath", details.link, &mut extended);
        header.set_entry_type(kind);
        header.set_mode(metadata.mode);
        header.set_uid(fit(b"uid", metadata.uid.into(), MAX_ID.into(), &mut extended));
        header.set_gid(fit(b"gid", metadata.gid.into(), MAX_ID.into(), &mut extended));
        header.set_size(fit(b"size", details.size, MAX_SIZE, &mut extended));
        match u64::try_from(metadata.mtime.tv_sec) {
            Ok(seconds) => header.set_mtime(fit(b"mtime", seconds, MAX_SIZE, &mut extended)),
            Err(_) => {
                header.set_mtime(0);
                pax::push(&mut extended, b"mtime", metadata.mtime.tv_sec.to_string().as_bytes());
            }
        }
        if let Some(device) = details.device {
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            if major.max(minor) > MAX_ID {
                return Err(io::Error::other("its device number does not fit an archive"));
            }
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        // A hard link has the attributes of the file it is.
        if kind != EntryType::Link {
            for (name, value) in &metadata.xattrs {
                let name = std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str());
                if name.contains(&b'=') {
                    return Err(io::Error::other("it has an extended attribute with \"=\" in its name"));
                }
                pax::push(&mut extended, &[pax::XATTR, name].concat(), value);
            }
        }
        if !extended.is_empty() {
            let mut extension = Header::new_ustar();
            put(&mut extension.as_old_mut().name, b"path", b"PaxHeader", &mut Vec::new());
            extension.set_entry_type(EntryType::XHeader);
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(extended.len() as u64);
            extension.set_cksum();
            self.output.write_all(extension.as_bytes())?;
            self.output.write_all(&extended)?;
            self.pad(extended.len() as u64)?;
        }
        header.set_cksum();
        self.output.write_all(header.as_bytes())
    }

    /// Fills the last block of a content of `size` bytes.
    fn pad(&mut self, size: u64) -> io::Result<()> {
        let missing = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
        self.output.write_all(&[0; BLOCK][..missing])
    }
}

/// Puts text into a field of a header; what does not fit goes, complete, into the extended header.
fn put(field: &mut [u8], key: &[u8], value: &[u8], extended: &mut Vec<u8>) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
    if length < value.len() {
        pax::push(extended, key, value);
    }
}

/// The number for a field of a header: 0 for one that does not fit, which goes into the extended header.
fn fit(key: &[u8], value: u64, largest: u64, extended: &mut Vec<u8>) -> u64 {
    if value <= largest {
        return value;
    }
    pax::push(extended, key, value.to_string().as_bytes());
    0
}
