//! Directories made from merged layers.

use std::{
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use super::{is_privileged, snapshot};
use crate::image::{inode, materialise};

struct Layers {
    directory: tempfile::TempDir,
    top_first: Vec<PathBuf>,
}

impl Layers {
    fn new(count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let top_first: Vec<_> =
            (0..count).rev().map(|index| directory.path().join(format!("layer{index}"))).collect();
        for layer in &top_first {
            fs_err::create_dir_all(layer.join("var")).unwrap();
        }
        Self { directory, top_first }
    }

    /// A path in a layer; layer 0 is the bottom one.
    fn path(&self, layer: usize, path: &str) -> PathBuf {
        self.top_first[self.top_first.len() - 1 - layer].join("var").join(path)
    }

    fn write(&self, layer: usize, path: &str, content: &str) {
        let path = self.path(layer, path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }

    fn whiteout(&self, layer: usize, path: &str) {
        let path = self.path(layer, path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        let parent = fs_err::File::open(path.parent().unwrap()).unwrap();
        inode::make_whiteout(parent.as_fd(), path.file_name().unwrap().as_encoded_bytes()).unwrap();
    }

    fn opaque(&self, layer: usize, path: &str) {
        inode::set_opaque(fs_err::File::open(self.path(layer, path)).unwrap().as_fd()).unwrap();
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn materialise(&self, share: impl Fn(&Path) -> bool) -> crate::Result<()> {
        materialise(&self.top_first, Path::new("var"), &self.target(), share)
    }

    /// The regular files of the target with their contents, `path=content`.
    fn files(&self) -> Vec<String> {
        let nodes = snapshot(&self.target()).into_iter();
        let files = nodes.filter(|(_, node)| node.kind == rustix::fs::FileType::RegularFile);
        files
            .map(|(path, node)| format!("{}={}", path.display(), String::from_utf8_lossy(&node.content)))
            .collect()
    }
}

#[test]
fn a_single_layer_is_copied_exactly() {
    let layers = Layers::new(1);
    layers.write(0, "lib/a", "a");
    layers.write(0, "lib/deep/b", "b");
    fs_err::hard_link(layers.path(0, "lib/a"), layers.path(0, "lib/deep/hard")).unwrap();
    rustix::fs::symlink("../lib", layers.path(0, "symlink")).unwrap();
    rustix::fs::symlink("/run", layers.path(0, "run")).unwrap();
    xattr::set(layers.path(0, "lib/deep/b"), "user.a", b"x").unwrap();
    xattr::set(layers.path(0, "lib"), "user.b", b"y").unwrap();
    fs_err::set_permissions(layers.path(0, "lib/deep/b"), PermissionsExt::from_mode(0o4711)).unwrap();
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(layers.path(0, "lib/deep"), Some(12), Some(34)).unwrap();
    }
    fs_err::set_permissions(layers.path(0, "lib/deep"), PermissionsExt::from_mode(0o1550)).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    std::fs::File::options()
        .write(true)
        .open(layers.path(0, "lib/a"))
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    fs_err::File::open(layers.path(0, "lib/deep")).unwrap().file().set_modified(long_ago).unwrap();

    layers.materialise(|_| false).unwrap();
    assert_eq!(snapshot(&layers.path(0, "")), snapshot(&layers.target()));
    assert_ne!(
        layers.path(0, "lib/a").metadata().unwrap().ino(),
        layers.target().join("lib/a").metadata().unwrap().ino()
    );
    let exact = |path: &Path| path.metadata().unwrap().modified().unwrap();
    assert_eq!(exact(&layers.path(0, "lib/deep/b")), exact(&layers.target().join("lib/deep/b")));
}

#[test]
fn upper_layers_win() {
    let layers = Layers::new(3);
    layers.write(0, "both", "bottom");
    layers.write(0, "dir/bottom", "bottom");
    layers.write(0, "changed/x", "bottom");
    layers.write(0, "becomes/x", "bottom");
    layers.write(0, "through/x", "bottom");
    layers.write(1, "both", "middle");
    layers.write(1, "dir/middle", "middle");
    layers.write(1, "changed", "a file now");
    layers.write(1, "through", "a file for a while");
    layers.write(2, "dir/top", "top");
    layers.write(2, "through/y", "top");
    fs_err::set_permissions(layers.path(2, "dir"), PermissionsExt::from_mode(0o710)).unwrap();
    layers.materialise(|_| false).unwrap();
    let expected = [
        "becomes/x=bottom",
        "both=middle",
        "changed=a file now",
        "dir/bottom=bottom",
        "dir/middle=middle",
        "dir/top=top",
        "through/y=top",
    ];
    assert_eq!(layers.files(), expected);
    assert_eq!(layers.target().join("dir").metadata().unwrap().mode() & 0o7777, 0o710);
}

#[test]
fn whiteouts_hide_what_is_below_them() {
    if !is_privileged() {
        return;
    }
    let layers = Layers::new(3);
    layers.write(0, "gone", "x");
    layers.write(0, "gone-dir/x", "x");
    layers.write(0, "back/old", "x");
    layers.write(0, "opaque/old", "x");
    layers.write(0, "opaque/sub/old", "x");
    layers.whiteout(1, "gone");
    layers.whiteout(1, "gone-dir");
    layers.whiteout(1, "back");
    layers.write(1, "opaque/new", "x");
    layers.opaque(1, "opaque");
    layers.write(2, "back/new", "x");
    layers.write(2, "opaque/sub/newest", "x");
    layers.materialise(|_| false).unwrap();
    assert_eq!(layers.files(), ["back/new=x", "opaque/new=x", "opaque/sub/newest=x"]);
    assert_eq!(snapshot(&layers.target()).len(), 3 + 4);
}

/// containerd's snapshots in an image are lower directories of overlays too: their whiteouts are its, not ours.
#[test]
fn whiteouts_inside_a_layer_are_kept() {
    if !is_privileged() {
        return;
    }
    let layers = Layers::new(2);
    layers.write(0, "log/x", "x");
    layers.whiteout(1, "snapshots/2/fs/gone");
    layers.write(1, "snapshots/2/fs/opaque/x", "x");
    layers.opaque(1, "snapshots/2/fs/opaque");
    layers.materialise(|_| false).unwrap();
    let strip = |path: &Path| {
        let mut nodes = snapshot(path);
        nodes.remove(Path::new(""));
        nodes
    };
    assert_eq!(strip(&layers.path(1, "snapshots")), strip(&layers.target().join("snapshots")));
    let opaque = fs_err::File::open(layers.target().join("snapshots/2/fs/opaque")).unwrap();
    assert!(inode::is_opaque(opaque.as_fd()).unwrap());
}

#[test]
fn shared_files_are_hard_links() {
    let layers = Layers::new(2);
    layers.write(0, "blobs/a", "a");
    layers.write(1, "blobs/b", "b");
    layers.write(1, "db", "d");
    fs_err::hard_link(layers.path(1, "db"), layers.path(1, "blobs/db")).unwrap();
    let asked = std::cell::RefCell::new(Vec::new());
    layers
        .materialise(|path| {
            asked.borrow_mut().push(path.to_owned());
            path.starts_with("var/blobs") && !path.ends_with("db")
        })
        .unwrap();
    assert_eq!(
        asked.into_inner(),
        ["var/blobs/a", "var/blobs/b", "var/blobs/db", "var/db"].map(PathBuf::from)
    );
    let inode = |path: PathBuf| path.metadata().unwrap().ino();
    assert_eq!(inode(layers.path(0, "blobs/a")), inode(layers.target().join("blobs/a")));
    assert_eq!(inode(layers.path(1, "blobs/b")), inode(layers.target().join("blobs/b")));
    assert_ne!(inode(layers.path(1, "db")), inode(layers.target().join("db")));
    assert_eq!(inode(layers.target().join("blobs/db")), inode(layers.target().join("db")));
}

#[test]
fn sharing_across_file_systems_copies() {
    let layers = Layers::new(1);
    layers.write(0, "a", "a");
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: needs /dev/shm");
        return;
    };
    if other.path().metadata().unwrap().dev() == layers.directory.path().metadata().unwrap().dev() {
        println!("skipped: needs /dev/shm on a file system of its own");
        return;
    }
    materialise(&layers.top_first, Path::new("var"), &other.path().join("var"), |_| true).unwrap();
    assert_eq!(fs_err::read_to_string(other.path().join("var/a")).unwrap(), "a");
}

#[test]
fn nested_and_missing_subtrees() {
    let layers = Layers::new(2);
    layers.write(0, "lib/x/a", "a");
    layers.write(1, "lib/x/b", "b");
    let target = layers.target();
    materialise(&layers.top_first, Path::new("var/lib/x"), &target, |_| false).unwrap();
    assert_eq!(layers.files(), ["a=a", "b=b"]);
    let missing = layers.directory.path().join("missing");
    materialise(&layers.top_first, Path::new("var/none/x"), &missing, |_| false).unwrap();
    assert_eq!(fs_err::read_dir(&missing).unwrap().count(), 0);
    for bad in ["../var", "/var", "var/lib/x/a"] {
        materialise(&layers.top_first, Path::new(bad), &layers.directory.path().join("bad"), |_| false)
            .unwrap_err();
    }
}

#[test]
fn targets_are_empty_before_and_after_an_error() {
    let layers = Layers::new(1);
    layers.write(0, "a/b", "x");
    // A hard link to a directory entry that is taken: `share` makes it while the copy is under way.
    let target = layers.target();
    let error = layers
        .materialise(|path| {
            if path.ends_with("b") {
                fs_err::write(target.join("a/b"), "in the way").unwrap();
            }
            false
        })
        .unwrap_err();
    assert!(error.to_string().contains("var/a/b"), "{error}");
    assert_eq!(fs_err::read_dir(&target).unwrap().count(), 0);
    fs_err::write(target.join("mine"), "x").unwrap();
    layers.materialise(|_| false).unwrap_err();
    assert_eq!(layers.files(), ["mine=x"]);
}
