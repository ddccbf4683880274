use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use fs_err as fs;
use tempfile::TempDir;

use super::*;

/// Two trees beside each other and beside what must stay as it is.
struct Trees {
    directory: TempDir,
}

impl Trees {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b", "outside"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("outside/secret"), "secret").unwrap();
        Self { directory }
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join(path)).ok()
    }

    fn link(&self, target: &str, path: &str) {
        symlink(target, self.directory.path().join(path)).unwrap();
    }

    /// Copies from tree `a` to tree `b`, as if both were nodes.
    fn copy(&self, from: &str, to: &str, follow: bool) -> io::Result<()> {
        let place = |name: &str| Place::below(&self.directory.path().join(name)).unwrap();
        let end = |path: &str| End::Node { node: "n".to_owned(), path: path.into() };
        let streams = Streams { input: &mut io::empty(), output: &mut io::sink() };
        transfer((&place("a"), &end(from)), (&place("b"), &end(to)), follow, streams)
    }
}

#[test]
fn a_file_keeps_its_name_or_gets_the_given_one() {
    let trees = Trees::new();
    trees.write("a/etc/conf", "1");
    fs::create_dir(trees.directory.path().join("b/dir")).unwrap();
    trees.write("b/file", "0");
    trees.copy("/etc/conf", "/dir", false).unwrap();
    trees.copy("etc/conf", "/new", false).unwrap();
    trees.copy("/etc/../etc/conf", "/file", false).unwrap();
    for path in ["b/dir/conf", "b/new", "b/file"] {
        assert_eq!(trees.read(path).as_deref(), Some("1"), "{path}");
    }
    for (from, to) in
        [("/etc/conf", "/missing/x"), ("/etc/conf", "/missing/"), ("/etc/conf/", "/y"), ("/no", "/")]
    {
        assert!(trees.copy(from, to, false).is_err(), "{from} to {to}");
    }
}

#[test]
fn a_directory_is_joined_with_what_is_there() {
    let trees = Trees::new();
    trees.write("a/conf/x/1", "one");
    trees.write("a/conf/.wh.2", "means itself");
    trees.write("b/there/conf/x/0", "zero");
    trees.copy("/conf", "/there", false).unwrap();
    trees.copy("/conf", "/named", false).unwrap();
    trees.copy("/conf/.", "/there/", false).unwrap();
    for path in ["b/there/conf/x/1", "b/named/x/1", "b/there/x/1"] {
        assert_eq!(trees.read(path).as_deref(), Some("one"), "{path}");
    }
    assert_eq!(trees.read("b/there/conf/x/0").as_deref(), Some("zero"));
    assert_eq!(trees.read("b/named/.wh.2").as_deref(), Some("means itself"));
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let trees = Trees::new();
    trees.write("a/x", "file");
    trees.write("a/y/z", "file");
    trees.write("b/d/x/kept", "kept");
    trees.write("b/d/y", "kept");
    assert!(trees.copy("/x", "/d", false).is_err(), "a file in the place of a directory");
    assert!(trees.copy("/y", "/d", false).is_err(), "a directory in the place of a file");
    assert!(trees.copy("/y", "/d/y", false).is_err(), "a directory for a file");
    assert_eq!(trees.read("b/d/x/kept").as_deref(), Some("kept"));
    assert_eq!(trees.read("b/d/y").as_deref(), Some("kept"));
}

#[test]
fn modes_and_times_come_along() {
    let trees = Trees::new();
    trees.write("a/dir/run", "#!/bin/sh");
    let path = |path: &str| trees.directory.path().join(path);
    fs::set_permissions(path("a/dir/run"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(path("a/dir"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let before = fs::metadata(path("b")).unwrap().mode();
    trees.copy("/dir", "/", false).unwrap();
    let (from, to) = (fs::metadata(path("a/dir/run")).unwrap(), fs::metadata(path("b/dir/run")).unwrap());
    assert_eq!((from.mode(), from.mtime(), from.uid()), (to.mode(), to.mtime(), to.uid()));
    assert_eq!(fs::metadata(path("b/dir")).unwrap().mode() & 0o7777, 0o1777);
    // The directory that things are put into stays as it was.
    fs::set_permissions(path("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
    trees.copy("/.", "/", false).unwrap();
    assert_eq!(fs::metadata(path("b")).unwrap().mode(), before);
}

#[test]
fn no_link_of_a_node_leads_out_of_it() {
    let trees = Trees::new();
    let outside = trees.directory.path().join("outside");
    let outside = outside.to_str().unwrap();
    for tree in ["a", "b"] {
        trees.link(outside, &format!("{tree}/absolute"));
        trees.link("../outside", &format!("{tree}/relative"));
        trees.link(&format!("{outside}/secret"), &format!("{tree}/file"));
    }
    trees.write("a/evil", "evil");
    for path in
        ["/absolute/secret", "/relative/secret", "../outside/secret", "/relative/", "/../outside/secret"]
    {
        assert!(trees.copy(path, "/stolen", true).is_err(), "{path}");
        assert_eq!(trees.read("b/stolen"), None, "{path}");
    }
    for path in
        ["/absolute/secret", "/relative/secret", "../outside/secret", "/file", "/absolute", "/relative"]
    {
        let _ = trees.copy("/evil", path, false);
    }
    assert_eq!(trees.read("outside/secret").as_deref(), Some("secret"));
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
    // What is below a link of the target is not reached through it either.
    trees.write("a/tree/absolute/secret", "evil");
    assert!(trees.copy("/tree/.", "/", false).is_err());
    assert_eq!(trees.read("outside/secret").as_deref(), Some("secret"));
}

#[test]
fn links_are_copied_or_followed() {
    let trees = Trees::new();
    trees.write("a/real", "real");
    trees.link("/real", "a/link");
    trees.link("real", "b/target");
    trees.copy("/link", "/copied", false).unwrap();
    assert_eq!(fs::read_link(trees.directory.path().join("b/copied")).unwrap(), Path::new("/real"));
    trees.copy("/link", "/followed", true).unwrap();
    assert_eq!(trees.read("b/followed").as_deref(), Some("real"));
    // A link as the target means what it leads to, even if that is not there yet.
    trees.copy("/real", "/target", false).unwrap();
    assert_eq!(trees.read("b/real").as_deref(), Some("real"));
    trees.link("loop", "a/loop");
    assert!(trees.copy("/loop", "/x", true).is_err());
}

#[test]
fn an_archive_is_unpacked_in_a_directory() {
    let trees = Trees::new();
    trees.write("a/dir/1", "one");
    let source = Place::below(&trees.directory.path().join("a")).unwrap().source(b"/dir", false).unwrap();
    let mut archive = Vec::new();
    pack(&source, source.own_name(), &mut archive).unwrap();
    let place = Place::below(&trees.directory.path().join("b")).unwrap();
    assert!(place.target(b"/missing", None).is_err());
    unpack(&archive[..], &place.target(b"/", None).unwrap()).unwrap();
    assert_eq!(trees.read("b/dir/1").as_deref(), Some("one"));
    assert!(unpack(&archive[..700], &place.target(b"/", None).unwrap()).is_err(), "half an archive");
}

#[test]
fn files_of_the_kernel_have_their_content() {
    let place = Place::host();
    let source = place.source(b"/proc/version", false).unwrap();
    let mut archive = Vec::new();
    pack(&source, b"version", &mut archive).unwrap();
    let mut entries = tar::Archive::new(&archive[..]);
    let mut text = String::new();
    entries.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, fs::read_to_string("/proc/version").unwrap());
}
