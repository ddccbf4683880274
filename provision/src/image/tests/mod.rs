//! Tests of the parts together: trees, archives and what strangers put into them.

mod bundles;
mod damage;
mod derived;
mod gnu_tar;
mod hostile;
mod limits;
mod materialised;
mod roundtrip;
mod stored;

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode};

use super::{pack::write_archive, pax, unpack::extract};

/// What a test compares of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    seconds: i64,
    device: u64,
    /// Of a file; of a symbolic link, its target.
    content: Vec<u8>,
    /// The first of the paths that the file has.
    first: PathBuf,
    xattrs: Vec<(String, Vec<u8>)>,
}

pub(super) type Snapshot = BTreeMap<PathBuf, Node>;

/// Everything below and including `root`, by relative path.
pub(super) fn snapshot(root: &Path) -> Snapshot {
    let mut nodes = Snapshot::new();
    let mut firsts = HashMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = root.join(&relative);
        let metadata = fs_err::symlink_metadata(&path).unwrap();
        let kind = FileType::from_raw_mode(metadata.mode());
        let content = match kind {
            FileType::RegularFile => fs_err::read(&path).unwrap(),
            FileType::Symlink => fs_err::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            _ => Vec::new(),
        };
        let mut xattrs: Vec<_> = xattr::list(&path)
            .unwrap()
            .filter(|name| {
                !name.as_bytes().starts_with(b"security.") && !name.as_bytes().starts_with(b"system.")
            })
            .map(|name| (name.to_string_lossy().into_owned(), xattr::get(&path, &name).unwrap().unwrap()))
            .collect();
        xattrs.sort();
        if kind == FileType::Directory {
            let mut children: Vec<_> =
                fs_err::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
            children.sort();
            pending.extend(children.iter().rev().map(|name| relative.join(name)));
        }
        let node = Node {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            seconds: metadata.mtime(),
            device: metadata.rdev(),
            content,
            first: firsts.entry((metadata.dev(), metadata.ino())).or_insert_with(|| relative.clone()).clone(),
            xattrs,
        };
        nodes.insert(relative, node);
    }
    nodes
}

/// Whether the test may make devices and trusted attributes; says so if not.
pub(super) fn is_privileged() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let root = fs_err::File::open(directory.path()).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let privileged = super::inode::set_opaque(root.as_fd()).is_ok()
        && rustix::fs::mknodat(&root, "null", FileType::CharacterDevice, Mode::empty(), device).is_ok();
    if !privileged {
        println!(
            "skipped: needs root, with devices and trusted attributes on the file system of temporary files"
        );
    }
    privileged
}

/// Unpacks an archive into an existing directory.
pub(super) fn unpack(archive: &[u8], root: &Path) -> io::Result<()> {
    let root = fs_err::File::open(root).unwrap();
    extract(archive, root.as_fd(), &mut None)
}

/// Packs all of a directory.
pub(super) fn pack(root: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    write_archive(root, &|_| true, &mut archive, &mut Vec::new())?;
    Ok(archive)
}

/// Makes archives that no sane tool would.
#[derive(Clone, Debug, Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    /// An entry of any type, owned by the user of the test.
    pub(super) fn entry(&mut self, kind: u8, path: &str, link: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry_of_size(kind, path, link, mode, content.len() as u64, content)
    }

    /// An entry whose header claims another size.
    pub(super) fn entry_of_size(
        &mut self,
        kind: u8,
        path: &str,
        link: &str,
        mode: u32,
        size: u64,
        content: &[u8],
    ) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(rustix::process::getuid().as_raw().into());
        header.set_gid(rustix::process::getgid().as_raw().into());
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        self.header(header, content)
    }

    /// An entry with the given header, whose checksum is set here.
    pub(super) fn header(&mut self, mut header: tar::Header, content: &[u8]) -> &mut Self {
        header.set_cksum();
        self.0.write_all(header.as_bytes()).unwrap();
        self.0.write_all(content).unwrap();
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let mut content = Vec::new();
        for (key, value) in records {
            pax::push(&mut content, key.as_bytes(), value);
        }
        self.entry(b'x', "pax", "", 0, &content)
    }

    pub(super) fn file(&mut self, path: &str, content: &str) -> &mut Self {
        self.entry(b'0', path, "", 0o644, content.as_bytes())
    }

    pub(super) fn directory(&mut self, path: &str) -> &mut Self {
        self.entry(b'5', path, "", 0o755, b"")
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(b'2', path, target, 0o777, b"")
    }

    pub(super) fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(b'1', path, target, 0o644, b"")
    }

    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> &mut Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::Char);
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mtime(1);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.header(header, b"")
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        [&self.0[..], &[0; 1024]].concat()
    }
}
