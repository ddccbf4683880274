//! Trees that GNU tar packs, in all the ways it has: Kiln makes the same of its archives as it does itself.

use std::{
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Output},
};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};

use super::{
    Node, Snapshot, is_privileged,
    roundtrip::{Item, build, item},
    snapshot, unpack,
};

/// How a tree is packed.
const FORMATS: [&[&str]; 10] = [
    &["--format=v7"],
    &["--format=oldgnu", "--sparse"],
    &["--format=gnu"],
    &["--format=gnu", "--sparse"],
    &["--format=ustar"],
    &["--format=posix"],
    &["--format=posix", "--xattrs", "--xattrs-include=*"],
    &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.0"],
    &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"],
    &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=1.0"],
];

/// A version 2 attribute with CAP_NET_RAW, permitted and effective (`include/uapi/linux/capability.h`).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A file with holes: pairs of a hole and as many bytes, in units of 4 KiB.
fn sparse() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0_u64..40, 0_u64..3), 1..30)
}

fn write_sparse(path: &Path, parts: &[(u64, u64)]) {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    let mut end = 0;
    for (hole, data) in parts {
        end += hole << 12;
        let content = vec![b'x'; (data << 12) as usize];
        std::os::unix::fs::FileExt::write_all_at(&file, &content, end).unwrap();
        end += data << 12;
    }
    file.set_len(end).unwrap();
}

/// What only root can make: devices, file capabilities, attributes of the host's own.
fn privileged_parts(root: &Path) {
    for (name, kind, device) in [
        ("zero", FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
        ("loop", FileType::BlockDevice, rustix::fs::makedev(7, 300)),
    ] {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }
    fs_err::write(root.join("ping"), "program").unwrap();
    xattr::set(root.join("ping"), "security.capability", &CAPABILITY).unwrap();
    fs_err::os::unix::fs::symlink("ping", root.join("pong")).unwrap();
    xattr::set(root.join("pong"), "trusted.a", b"of a link").unwrap();
}

/// Runs GNU tar; `None` if this host has another one or none.
fn tar(arguments: &[&str], directory: &Path) -> Option<Output> {
    let version = Command::new("tar").arg("--version").output().ok()?;
    if !version.stdout.starts_with(b"tar (GNU") {
        return None;
    }
    Some(Command::new("tar").arg("-C").arg(directory).args(arguments).output().unwrap())
}

/// With what [`snapshot`] leaves out: the one security attribute that means the same everywhere, and parts of seconds, as
/// one more attribute.
fn detailed(root: &Path) -> Snapshot {
    let mut nodes = snapshot(root);
    for (path, node) in &mut nodes {
        let nanoseconds = fs_err::symlink_metadata(root.join(path)).unwrap().mtime_nsec();
        node.xattrs.push(("nanoseconds".to_owned(), nanoseconds.to_string().into_bytes()));
        if let Some(value) = xattr::get(root.join(path), "security.capability").unwrap() {
            node.xattrs.push(("security.capability".to_owned(), value));
        }
    }
    nodes
}

/// The paths at which two trees differ.
fn differences(expected: &Snapshot, found: &Snapshot) -> Vec<String> {
    let describe = |node: Option<&Node>| match node {
        Some(node) => {
            let node = Node { content: node.content[..node.content.len().min(40)].to_vec(), ..node.clone() };
            format!("{node:?}")
        }
        None => "nothing".to_owned(),
    };
    let paths: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    paths
        .into_iter()
        .filter(|path| expected.get(*path) != found.get(*path))
        .map(|path| {
            format!("{path:?}: {} became {}", describe(expected.get(path)), describe(found.get(path)))
        })
        .collect()
}

fn same_as_gnu_tar(items: &[Item], holes: &[(u64, u64)], format: &[&str]) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().canonicalize().unwrap();
    let [source, ours, theirs] = ["source", "ours", "theirs"].map(|name| {
        fs_err::create_dir(top.join(name)).unwrap();
        top.join(name)
    });
    build(&source, items);
    write_sparse(&source.join("sparse"), holes);
    if is_privileged() {
        privileged_parts(&source);
    }
    let archive = top.join("archive.tar");
    let archive_text = archive.to_str().unwrap();
    // What a format has no words for is left out, with a complaint: what is in the archive is what counts.
    let packed = tar(&[format, &["-cf", archive_text, "."]].concat(), &source);
    let Some(packed) = packed else { return Ok(()) };
    prop_assert!(archive.exists(), "{}", String::from_utf8_lossy(&packed.stderr));
    let arguments =
        ["--xattrs", "--xattrs-include=*", "--same-owner", "--numeric-owner", "-pxf", archive_text];
    let unpacked = tar(&arguments, &theirs).unwrap();
    prop_assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    let outcome = unpack(&fs_err::read(&archive).unwrap(), &ours);
    prop_assert!(outcome.is_ok(), "{:?}: {:?}", format, outcome);
    let (ours, theirs) = (detailed(&ours), detailed(&theirs));
    prop_assert!(theirs.len() > 1, "the archive is empty: {}", String::from_utf8_lossy(&packed.stderr));
    let differences = differences(&theirs, &ours);
    prop_assert!(differences.is_empty(), "{:?}:\n{}", format, differences.join("\n"));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn archives_become_the_trees_that_gnu_tar_makes_of_them(
        items in prop::collection::vec(item(), 0..20),
        holes in sparse(),
        format in prop::sample::select(FORMATS.to_vec()),
    ) {
        same_as_gnu_tar(&items, &holes, format)?;
    }
}
