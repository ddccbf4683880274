//! Archives that are larger than they look, and ones that are large with a reason.

use std::{io, os::fd::AsFd, time::Instant};

use super::{Tar, hostile::Scene, unpack};
use crate::image::unpack::{Limits, extract_limited};

/// What becomes of an archive when only so much is allowed.
fn limited(archive: &Tar, limits: Limits) -> io::Result<()> {
    Scene::new().watched(|root| {
        let root = fs_err::File::open(root).unwrap();
        extract_limited(&archive.bytes()[..], root.as_fd(), limits, &mut None)
    })
}

/// Makes sure that an archive is refused for its size below a limit, and for nothing at it.
#[track_caller]
fn needs(archive: &Tar, sufficient: Limits, less: Limits) {
    limited(archive, sufficient).unwrap();
    let error = limited(archive, less).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
}

#[test]
fn entries_are_counted() {
    let mut archive = Tar::default();
    archive.file("a", "").directory("b").symlink("c", "a").link("d", "a").file(".wh.e", "");
    let limits = Limits::DEFAULT;
    needs(&archive, Limits { entries: 5, ..limits }, Limits { entries: 4, ..limits });
}

#[test]
fn bytes_of_files_are_counted_with_their_holes() {
    let limits = Limits::DEFAULT;
    let mut archive = Tar::default();
    archive.file("a", "1234").file("a", "1234");
    needs(&archive, Limits { bytes: 8, ..limits }, Limits { bytes: 7, ..limits });
    let mut archive = Tar::default();
    archive.pax(&[("GNU.sparse.size", b"1000000"), ("GNU.sparse.map", b"0,1")]).file("a", "1");
    needs(&archive, Limits { bytes: 1_000_000, ..limits }, Limits { bytes: 999_999, ..limits });
}

#[test]
fn attributes_of_directories_are_counted_for_as_long_as_they_are_kept() {
    let mut archive = Tar::default();
    for _ in 0..10 {
        archive.pax(&[("SCHILY.xattr.user.a", &[b'x'; 1000])]).directory("d");
    }
    let limits = Limits::DEFAULT;
    let needed = 10 * (1 + "user.a".len() as u64 + 1000);
    needs(&archive, Limits { remembered: needed, ..limits }, Limits { remembered: needed - 1, ..limits });
}

/// A link to a deep directory begins a new path: without a limit a tree could become deeper than what removes it has
/// file descriptors for.
#[test]
fn directories_are_not_deeper_than_a_tree_can_be_removed() {
    let deep = |mut levels: usize| {
        let mut archive = Tar::default();
        let mut start = String::new();
        loop {
            let here = levels.min(100);
            let path = format!("{start}{}", vec!["d"; here].join("/"));
            archive.pax(&[("path", path.as_bytes())]).directory("x");
            levels -= here;
            if levels == 0 {
                return archive;
            }
            let link = format!("to-{levels}");
            archive.pax(&[("linkpath", path.as_bytes())]).symlink(&link, "x");
            start = format!("{link}/");
        }
    };
    let limits = Limits::DEFAULT;
    needs(&deep(250), Limits { depth: 250, ..limits }, Limits { depth: 249, ..limits });
    assert_eq!(limited(&deep(400), limits).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    // What takes the place of a directory begins anew.
    let mut archive = Tar::default();
    for _ in 0..10 {
        archive.directory("a/b").file("a", "x").directory("a");
    }
    limited(&archive, Limits { depth: 2, ..limits }).unwrap();
}

#[test]
fn maps_of_holes_are_limited() {
    // The old format has them in blocks of 21, each of which says that there is another.
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[0] = b'a';
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(0);
    header.as_gnu_mut().unwrap().isextended[0] = 1;
    let mut block = tar::GnuExtSparseHeader::new();
    block.isextended[0] = 1;
    let map = block.as_bytes().repeat(2049);
    let mut archive = Tar::default();
    archive.header(header, &map);
    let error = limited(&archive, Limits::DEFAULT).unwrap_err();
    assert!(error.to_string().contains("1 MiB"), "{error}");
    // The new one has them as text before the content, as many as it says.
    let map = format!("400000\n{}", "0\n".repeat(800_000));
    let mut archive = Tar::default();
    archive
        .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"8")])
        .file("a", &map);
    let error = limited(&archive, Limits::DEFAULT).unwrap_err();
    assert!(error.to_string().contains("1 MiB"), "{error}");
}

#[test]
fn layers_of_a_hundred_thousand_files_are_unpacked() {
    const FILES: usize = 100_000;
    let mut archive = Tar::default();
    for index in 0..FILES {
        // Most are empty: removing what has content takes some disks longer than all of the rest.
        let content = if index % 100 == 0 { "content" } else { "" };
        archive.file(&format!("d{}/f{index}", index / 500), content);
    }
    Scene::new().watched(|root| {
        let (bytes, started) = (archive.bytes(), Instant::now());
        unpack(&bytes, root).unwrap();
        // It takes some seconds on a slow host; what grows with the square of their number would take an hour.
        assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
        let directories = fs_err::read_dir(root).unwrap();
        let files = directories.map(|entry| fs_err::read_dir(entry.unwrap().path()).unwrap().count());
        assert_eq!(files.sum::<usize>(), FILES);
    });
}
