//! Archives that want out of their root, or to eat the host.

use std::{
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FileType;

use super::{Snapshot, Tar, is_privileged, snapshot, unpack};
use crate::image::inode;

/// A directory with something to steal or to break, beside the one that a layer is unpacked into.
pub(super) struct Scene {
    directory: tempfile::TempDir,
    before: Snapshot,
}

impl Scene {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(directory.path().join("outside/dir")).unwrap();
        fs_err::write(directory.path().join("outside/secret"), "secret").unwrap();
        fs_err::create_dir(directory.path().join("root")).unwrap();
        let before = snapshot(&directory.path().join("outside"));
        Self { directory, before }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn outside(&self, path: &str) -> String {
        self.directory.path().join("outside").join(path).to_str().unwrap().to_owned()
    }

    /// Unpacks, and makes sure that nothing beside the root was touched.
    fn unpack(&self, archive: &Tar) -> std::io::Result<()> {
        self.watched(|root| unpack(&archive.bytes(), root))
    }

    /// Does something with the root, and makes sure that nothing beside it was touched.
    pub(super) fn watched<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        let outcome = work(&self.root());
        assert_eq!(snapshot(&self.directory.path().join("outside")), self.before);
        let mut beside: Vec<_> = fs_err::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        beside.sort();
        assert_eq!(beside, ["outside", "root"]);
        outcome
    }

    fn read(&self, path: &str) -> String {
        fs_err::read_to_string(self.root().join(path)).unwrap()
    }
}

#[test]
fn dots_in_paths_are_refused() {
    for path in ["../evil", "a/../../evil", "/../evil", "..", "a/.."] {
        let scene = Scene::new();
        let mut archives = [const { Tar(Vec::new()) }; 4];
        archives[0].file(path, "x");
        archives[1].directory(path);
        archives[2].symlink(path, "x");
        archives[3].pax(&[("path", path.as_bytes())]).file("innocent", "x");
        for archive in &archives {
            let error = scene.unpack(archive).unwrap_err();
            assert!(error.to_string().contains(".."), "{path}: {error}");
        }
    }
}

#[test]
fn absolute_paths_are_relative_to_the_root() {
    let scene = Scene::new();
    let inside = scene.outside("secret");
    let mut archive = Tar::default();
    archive.pax(&[("path", inside.as_bytes())]).file("x", "mine").file("//etc///./passwd", "p");
    scene.unpack(&archive).unwrap();
    assert_eq!(scene.read(inside.trim_start_matches('/')), "mine");
    assert_eq!(scene.read("etc/passwd"), "p");
}

#[test]
fn symbolic_links_on_the_way_stay_inside() {
    let scene = Scene::new();
    let mut archive = Tar::default();
    // Leads to the root, as in a chroot, however many levels it climbs.
    archive.symlink("up", "../../../..").file("up/file", "x");
    archive.directory("real").symlink("absolute", "/real").file("absolute/file", "y");
    scene.unpack(&archive).unwrap();
    assert_eq!((scene.read("file"), scene.read("real/file")), ("x".into(), "y".into()));

    for target in
        [scene.outside("dir"), "../outside/dir".to_owned(), "/proc/self/root".to_owned(), "self".to_owned()]
    {
        let scene = Scene::new();
        let mut archives = [const { Tar(Vec::new()) }; 5];
        archives[0].symlink("self", &target).file("self/evil", "x");
        archives[1].symlink("self", &target).directory("self/evil");
        archives[2].symlink("self", &target).file("self/.wh.secret", "");
        archives[3].symlink("self", &target).file("self/.wh..wh..opq", "");
        archives[4].symlink("self", &target).directory("d").symlink("d/e", "/self").file("d/e/evil/f", "x");
        for archive in &archives {
            scene.unpack(archive).unwrap_err();
        }
    }
}

#[test]
fn existing_files_are_replaced_and_not_written_through() {
    let scene = Scene::new();
    let mut archive = Tar::default();
    archive.symlink("file", &scene.outside("secret")).entry(b'0', "file", "", 0o777, b"mine");
    archive.symlink("dir", &scene.outside("dir")).entry(b'5', "dir", "", 0o777, b"").file("dir/file", "x");
    // A hard link to a symbolic link is one to the same place.
    archive.symlink("first", &scene.outside("secret")).link("second", "first").file("second", "mine");
    // Directories get their mode last; by then this one is a link.
    archive.entry(b'5', "late", "", 0o777, b"").symlink("late", &scene.outside("dir"));
    archive.directory("tree/a/b").file("tree/a/b/c", "x").file("tree", "file");
    scene.unpack(&archive).unwrap();
    assert_eq!(
        (scene.read("file"), scene.read("second"), scene.read("tree")),
        ("mine".into(), "mine".into(), "file".into())
    );
    assert!(scene.root().join("dir").symlink_metadata().unwrap().is_dir());
    assert!(scene.root().join("late").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_name_that_now_means_another_directory_is_looked_up_again() {
    let scene = Scene::new();
    let mut archive = Tar::default();
    archive
        .file("a/b/one", "1")
        .directory("other")
        .symlink("a", "other")
        .directory("other/b")
        .file("a/b/two", "2");
    scene.unpack(&archive).unwrap();
    assert_eq!(scene.read("other/b/two"), "2");
    assert!(!scene.root().join("a/b/one").exists());
}

#[test]
fn hard_links_reach_nothing_outside() {
    let scene = Scene::new();
    for target in
        [scene.outside("secret"), "../outside/secret".into(), "/".into(), "missing".into(), String::new()]
    {
        scene.unpack(Tar::default().link("stolen", &target)).unwrap_err();
    }
    let mut archive = Tar::default();
    archive.symlink("dir", &scene.outside("")).link("stolen", "dir/secret");
    scene.unpack(&archive).unwrap_err();
    assert!(!scene.root().join("stolen").exists());

    let scene = Scene::new();
    let mut archive = Tar::default();
    archive.file("bin/a", "x").link("b", "/bin/a").link("b", "b").link("bin/a", "b").link("c", "./bin//a");
    scene.unpack(&archive).unwrap();
    assert_eq!((scene.read("b"), scene.read("bin/a"), scene.read("c")), ("x".into(), "x".into(), "x".into()));
}

#[test]
fn impossible_entries_are_errors() {
    let scene = Scene::new();
    let long = "n".repeat(300);
    let mut cases = [const { Tar(Vec::new()) }; 13];
    cases[0].file("a", "x").file("a/b", "y");
    cases[1].file(".wh.", "");
    cases[2].file("d/.wh..", "");
    cases[3].file("d/.wh...", "");
    cases[4].file("./", "").entry(b'0', ".", "", 0o644, b"x");
    cases[5].entry(b'V', "volume", "", 0, b"");
    cases[6].pax(&[("path", long.as_bytes())]).file("a", "x");
    cases[7].pax(&[("path", b"a\0b")]).file("a", "x");
    cases[8].pax(&[("size", b"-1")]).file("a", "x");
    cases[9].pax(&[("uid", b"4294967295")]).file("a", "x");
    cases[10].pax(&[("path", b"a")]);
    cases[11].symlink("", "x");
    cases[12].entry_of_size(b'0', "a", "", 0, u64::MAX >> 1, b"x");
    for (index, case) in cases.iter().enumerate() {
        assert!(scene.unpack(case).is_err(), "case {index}");
    }
    let mut archive = Tar::default();
    archive.file("a", "x");
    archive.0[0] ^= 1;
    assert!(scene.unpack(&archive).unwrap_err().to_string().contains("checksum"));
}

#[test]
fn extended_headers_are_limited() {
    for kind in [b'x', b'g', b'L', b'K'] {
        let scene = Scene::new();
        let mut archive = Tar::default();
        archive.entry_of_size(kind, "long", "", 0, 1 << 40, b"x");
        assert!(scene.unpack(&archive).unwrap_err().to_string().contains("1 MiB"));
    }
    // Also when they come one by one.
    let scene = Scene::new();
    let mut archive = Tar::default();
    let value = vec![b'x'; 60_000];
    for index in 0..20 {
        archive.pax(&[(&format!("SCHILY.xattr.user.x{index}"), &value)]);
    }
    assert!(scene.unpack(archive.file("a", "x")).unwrap_err().to_string().contains("1 MiB"));
}

#[test]
fn broken_maps_of_holes_are_errors() {
    let maps: [&[u8]; 5] = [b"0,4,2,4", b"4,4,0,4", b"0,99", b"0", b"18446744073709551615,2"];
    for map in maps {
        let scene = Scene::new();
        let mut archive = Tar::default();
        archive.pax(&[("GNU.sparse.size", b"8"), ("GNU.sparse.map", map)]).file("a", "12345678");
        scene.unpack(&archive).unwrap_err();
    }
    let scene = Scene::new();
    let mut archive = Tar::default();
    let size = format!("{}", u64::MAX);
    archive.pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", b"0,1")]).file("a", "1");
    assert_eq!(scene.unpack(&archive).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
    for map in ["", "1\n0\n", "x\n", "99999999999\n0\n8\n"] {
        let scene = Scene::new();
        let mut archive = Tar::default();
        archive
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"8")])
            .file("a", map);
        scene.unpack(&archive).unwrap_err();
    }
}

#[test]
fn modes_and_attributes_are_those_of_the_archive() {
    let scene = Scene::new();
    let mut archive = Tar::default();
    archive.entry(b'5', "read-only", "", 0o555, b"").file("read-only/file", "x");
    archive.entry(b'0', "program", "", 0o6755, b"");
    archive
        .pax(&[("SCHILY.xattr.user.binary", b"\n=\0"), ("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .entry(b'5', "d", "", 0o1777, b"");
    scene.unpack(&archive).unwrap();
    let mode = |path: &str| scene.root().join(path).symlink_metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("read-only"), mode("program"), mode("d")), (0o555, 0o6755, 0o1777));
    let directory = scene.root().join("d");
    assert_eq!(xattr::get(&directory, "user.binary").unwrap().unwrap(), b"\n=\0");
    assert_eq!(xattr::get(&directory, "trusted.overlay.redirect").unwrap(), None);
    let seconds = std::os::unix::fs::MetadataExt::mtime(&scene.root().join("read-only").metadata().unwrap());
    assert_eq!(seconds, 1_700_000_000);
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    if !is_privileged() {
        return;
    }
    let scene = Scene::new();
    let mut archive = Tar::default();
    archive.file("a/.wh.gone", "").file("b/.wh..wh..opq", "").file("b/new", "x").file(".wh..wh.plnk", "");
    // Hidden and there again: what was below must not shine through, in whatever order they come.
    archive.file(".wh.first", "").directory("first").file("first/x", "x");
    archive.file("second/x", "x").file(".wh.second", "");
    archive.file(".wh.implied", "").file("implied/x/y", "x");
    archive.file(".wh.file", "").file("file", "x").file(".wh.file", "");
    archive.device("dev/null", 1, 3);
    scene.unpack(&archive).unwrap();
    let nodes = snapshot(&scene.root());
    let node = |path: &str| &nodes[&PathBuf::from(path)];
    assert_eq!((node("a/gone").kind, node("a/gone").device), (FileType::CharacterDevice, 0));
    assert_eq!(node("dev/null").device, rustix::fs::makedev(1, 3));
    assert_eq!(node("file").content, b"x");
    assert_eq!(nodes.len(), 15, "{:?}", nodes.keys());
    for (path, expected) in [
        ("b", true),
        ("first", true),
        ("second", true),
        ("implied", true),
        ("implied/x", false),
        ("a", false),
    ] {
        let directory = fs_err::File::open(scene.root().join(path)).unwrap();
        assert_eq!(inode::is_opaque(directory.as_fd()).unwrap(), expected, "{path}");
    }
}
