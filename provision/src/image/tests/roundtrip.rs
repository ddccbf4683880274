//! Trees that are packed and unpacked again.

use std::{
    ffi::OsString,
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, Timespec};

use super::{is_privileged, pack, snapshot, unpack};
use crate::image::inode::{self, Metadata};

#[derive(Clone, Debug)]
enum Plan {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    /// To one of the files made before.
    HardLink(prop::sample::Index),
    Fifo,
}

#[derive(Clone, Debug)]
pub(super) struct Item {
    path: Vec<Vec<u8>>,
    plan: Plan,
    metadata: Metadata,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(|name| name.as_bytes().to_vec()),
        1 => prop::collection::vec(1_u8..=255, 1..40),
        1 => (90_usize..255).prop_map(|length| vec![b'n'; length]),
    ]
    .prop_filter("not a name for a file", |name| {
        !name.contains(&b'/') && !matches!(&name[..], b"." | b"..") && !name.starts_with(b".wh.")
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    prop_oneof![
        Just(Plan::Directory),
        prop::collection::vec(any::<u8>(), 0..2000).prop_map(Plan::File),
        prop::collection::vec(1_u8..=255, 1..200).prop_map(Plan::Symlink),
        any::<prop::sample::Index>().prop_map(Plan::HardLink),
        Just(Plan::Fifo),
    ]
}

pub(super) fn item() -> impl Strategy<Value = Item> {
    let ids = prop_oneof![Just(0_u32), 1_u32..70_000, Just(3_000_000), Just(u32::MAX - 1)];
    let time = prop_oneof![4 => 0_i64..2_000_000_000, 1 => -1000_i64..0, 1 => 0_i64..1 << 33];
    let attributes =
        prop::collection::btree_map("user\\.[a-z.]{1,20}", prop::collection::vec(any::<u8>(), 0..100), 0..3);
    let metadata =
        (ids.clone(), ids, 0_u32..0o10000, time, attributes).prop_map(|(uid, gid, mode, seconds, xattrs)| {
            let xattrs = xattrs.into_iter().map(|(name, value)| (OsString::from(name), value)).collect();
            Metadata { uid, gid, mode, mtime: Timespec { tv_sec: seconds, tv_nsec: 0 }, xattrs }
        });
    (prop::collection::vec(name(), 1..5), plan(), metadata).prop_map(|(path, plan, metadata)| Item {
        path,
        plan,
        metadata,
    })
}

/// Makes what is possible of a plan: names that are taken are left as they are.
pub(super) fn build(root: &Path, items: &[Item]) {
    let is_root = rustix::process::getuid().is_root();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut directories: Vec<(PathBuf, Metadata)> = Vec::new();
    for item in items {
        let mut metadata = item.metadata.clone();
        if !is_root {
            metadata.uid = rustix::process::getuid().as_raw();
            metadata.gid = rustix::process::getgid().as_raw();
            metadata.mode |= 0o700;
        }
        let names: Vec<_> = item.path.iter().map(|name| OsString::from_vec(name.clone())).collect();
        let parent: PathBuf = names[..names.len() - 1].iter().collect();
        if fs_err::create_dir_all(root.join(&parent)).is_err() {
            continue;
        }
        // Not through a symbolic link.
        let Ok(parent) = root.join(&parent).canonicalize() else { continue };
        if !parent.starts_with(root) {
            continue;
        }
        let path = parent.join(&names[names.len() - 1]);
        let name = item.path.last().unwrap();
        let directory = fs_err::File::open(&parent).unwrap();
        let directory = directory.as_fd();
        match &item.plan {
            Plan::Directory if fs_err::create_dir(&path).is_ok() => directories.push((path, metadata)),
            Plan::File(content) => {
                if let Ok(mut file) = inode::create_file(directory, name) {
                    std::io::Write::write_all(&mut file, content).unwrap();
                    metadata.apply(file.as_fd()).unwrap();
                    files.push(path);
                }
            }
            Plan::Symlink(target) if rustix::fs::symlinkat(&target[..], directory, &name[..]).is_ok() => {
                metadata.xattrs.clear();
                metadata.apply_at(directory, name, FileType::Symlink).unwrap();
            }
            Plan::HardLink(index) if !files.is_empty() => {
                let _ = fs_err::hard_link(index.get(&files), &path);
            }
            Plan::Fifo
                if rustix::fs::mknodat(directory, &name[..], FileType::Fifo, Mode::RUSR, 0).is_ok() =>
            {
                metadata.xattrs.clear();
                metadata.apply_at(directory, name, FileType::Fifo).unwrap();
            }
            _ => {}
        }
    }
    for (path, metadata) in directories.iter().rev() {
        metadata.apply(fs_err::File::open(path).unwrap().as_fd()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_survives(items in prop::collection::vec(item(), 0..25)) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let [source, target] = ["source", "target"].map(|name| root.join(name));
        fs_err::create_dir(&source).unwrap();
        fs_err::create_dir(&target).unwrap();
        build(&source, &items);
        let archive = pack(&source).unwrap();
        unpack(&archive, &target).unwrap();
        prop_assert_eq!(snapshot(&source), snapshot(&target));
        prop_assert!(archive == pack(&target).unwrap(), "packed again, the tree gives another archive");
    }
}

/// What GNU tar makes of a tree with everything in it, in each of its formats, unpacks to that tree.
#[test]
fn archives_of_gnu_tar_unpack_to_the_same_tree() {
    let is_gnu = Command::new("tar")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"tar (GNU"));
    if !is_gnu {
        println!("skipped: needs GNU tar");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    let deep = source.join("d".repeat(90)).join("e".repeat(90)).join("f".repeat(200));
    fs_err::create_dir_all(&deep).unwrap();
    fs_err::write(source.join("file"), "content").unwrap();
    fs_err::write(deep.join("file"), "deep").unwrap();
    fs_err::hard_link(deep.join("file"), source.join("hard")).unwrap();
    rustix::fs::symlink(deep.join("file"), source.join("symlink")).unwrap();
    rustix::fs::mknodat(CWD, source.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    // More holes than fit the header of GNU's old format.
    let sparse =
        std::fs::OpenOptions::new().write(true).create_new(true).open(source.join("sparse")).unwrap();
    for part in 0..60 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", part << 17).unwrap();
    }
    sparse.set_len(60 << 17).unwrap();
    xattr::set(source.join("file"), "user.a", b"a\nb=c").unwrap();
    let formats: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--xattrs"],
        &["--format=posix", "--xattrs", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--xattrs", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--xattrs", "--sparse", "--sparse-version=1.0"],
    ];
    for (index, format) in formats.iter().enumerate() {
        let output = Command::new("tar")
            .args(*format)
            .args(["-C", source.to_str().unwrap(), "-c", "."])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let target = directory.path().join(index.to_string());
        fs_err::create_dir(&target).unwrap();
        unpack(&output.stdout, &target).unwrap_or_else(|error| panic!("{format:?}: {error}"));
        let mut expected = snapshot(&source);
        if !format.contains(&"--xattrs") {
            expected.get_mut(Path::new("file")).unwrap().xattrs.clear();
        }
        assert!(snapshot(&target) == expected, "{format:?}");
        if format.contains(&"--sparse") {
            let blocks = std::os::unix::fs::MetadataExt::blocks(&target.join("sparse").metadata().unwrap());
            assert!(blocks < 4000, "{format:?}: holes are filled, {blocks} blocks");
        }
    }
}

#[test]
fn archives_are_read_by_gnu_tar() {
    let directory = tempfile::tempdir().unwrap();
    let [source, target] = ["source", "target"].map(|name| directory.path().join(name));
    fs_err::create_dir_all(source.join("n".repeat(120))).unwrap();
    fs_err::create_dir(&target).unwrap();
    fs_err::write(source.join("n".repeat(120)).join("file"), "content").unwrap();
    fs_err::hard_link(source.join("n".repeat(120)).join("file"), source.join("hard")).unwrap();
    xattr::set(source.join("hard"), "user.a", b"a\nb").unwrap();
    fs_err::write(directory.path().join("archive"), pack(&source).unwrap()).unwrap();
    let Ok(output) = Command::new("tar")
        .args(["--xattrs", "-p", "-C", target.to_str().unwrap(), "-xf"])
        .arg(directory.path().join("archive"))
        .output()
    else {
        println!("skipped: needs tar");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(snapshot(&source), snapshot(&target));
}

#[test]
fn whiteouts_and_devices_survive() {
    if !is_privileged() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [source, target] = ["source", "target"].map(|name| directory.path().join(name));
    fs_err::create_dir_all(source.join("d/opaque")).unwrap();
    fs_err::create_dir(&target).unwrap();
    let root = fs_err::File::open(&source).unwrap();
    inode::make_whiteout(root.as_fd(), b"gone").unwrap();
    inode::make_whiteout(fs_err::File::open(source.join("d")).unwrap().as_fd(), b"gone").unwrap();
    inode::set_opaque(fs_err::File::open(source.join("d/opaque")).unwrap().as_fd()).unwrap();
    inode::set_opaque(root.as_fd()).unwrap();
    for (name, kind) in [("null", FileType::CharacterDevice), ("loop", FileType::BlockDevice)] {
        rustix::fs::mknodat(&root, name, kind, Mode::RUSR, rustix::fs::makedev(7, 300)).unwrap();
    }
    let archive = pack(&source).unwrap();
    let mut entries = tar::Archive::new(&archive[..]);
    let names: Vec<_> =
        entries.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned()).collect();
    let expected = [
        "./",
        ".wh..wh..opq",
        "d/",
        "d/.wh.gone",
        "d/opaque/",
        "d/opaque/.wh..wh..opq",
        ".wh.gone",
        "loop",
        "null",
    ];
    assert_eq!(names, expected.map(PathBuf::from));
    unpack(&archive, &target).unwrap();
    let strip = |path: &Path| {
        let mut nodes = snapshot(path);
        for node in
            nodes.values_mut().filter(|node| node.device == 0 && node.kind == FileType::CharacterDevice)
        {
            // Of a whiteout, only that it is there counts.
            (node.seconds, node.mode) = (0, 0);
        }
        nodes
    };
    assert_eq!(strip(&source), strip(&target));
}

#[test]
fn what_an_archive_cannot_say_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    fs_err::write(directory.path().join(".wh.file"), "x").unwrap();
    assert!(pack(directory.path()).unwrap_err().to_string().contains(".wh."));
    assert!(pack(&directory.path().join(".wh.file")).is_err());
}

#[test]
fn sockets_are_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
    fs_err::write(directory.path().join("file"), "x").unwrap();
    let archive = pack(directory.path()).unwrap();
    let target = tempfile::tempdir().unwrap();
    unpack(&archive, target.path()).unwrap();
    let nodes = snapshot(target.path());
    assert_eq!(nodes.keys().collect::<Vec<_>>(), [Path::new(""), Path::new("file")]);
}
