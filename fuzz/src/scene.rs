//! A directory for what is unpacked, with something to steal or to break beside it.

use std::{
    collections::HashSet,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What lies beside the root, from the directory of the scene.
const OUTSIDE: [&str; 4] = ["outside", "outside/dir", "outside/link", "outside/secret"];

thread_local! {
    static SCENE: Scene = Scene::new();
}

/// The scene of this process. It is the process's working directory: what is at `../outside` from the root is at
/// `/proc/self/cwd/outside` too, a path that an input can have without knowing where that is.
#[derive(Debug)]
pub struct Scene {
    directory: tempfile::TempDir,
    before: Vec<Seen>,
}

/// What shows that a file was touched: whatever is done to one changes its last time.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    mode: u32,
    links: u64,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            mode: metadata.mode(),
            links: metadata.nlink(),
            owner: (metadata.uid(), metadata.gid()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let outside = directory.path().join("outside");
        fs_err::create_dir_all(outside.join("dir")).expect("the scene can be made");
        fs_err::write(outside.join("secret"), "secret").expect("the scene can be made");
        std::os::unix::fs::symlink("secret", outside.join("link")).expect("the scene can be made");
        std::env::set_current_dir(&directory).expect("the scene can be entered");
        let before = OUTSIDE.map(|path| seen(&directory.path().join(path))).into();
        Self { directory, before }
    }

    /// Has something done with an empty directory, looks at what it left there, and makes sure that nothing beside was
    /// touched and that all of it can be removed.
    pub fn watch<T>(work: impl FnOnce(&Path) -> T) -> (T, Tree) {
        SCENE.with(|scene| {
            let root = scene.directory.path().join("root");
            fs_err::create_dir(&root).expect("the root can be made");
            let outcome = work(&root);
            let tree = Tree::at(&root);
            for (path, before) in OUTSIDE.iter().zip(&scene.before) {
                assert_eq!(seen(&scene.directory.path().join(path)), *before, "{path} was touched");
            }
            let beside = names(scene.directory.path());
            assert_eq!(beside.len(), 2, "something is beside the root: {beside:?}");
            fs_err::remove_dir_all(&root).expect("what was unpacked can be removed");
            (outcome, tree)
        })
    }
}

/// What there is of a tree.
#[derive(Debug, Default)]
pub struct Tree {
    /// Names of what is no directory.
    pub names: u64,
    /// Bytes of all files, with their holes.
    pub bytes: u64,
    /// Directories in each other.
    pub depth: u32,
    /// Names of the attributes that have a meaning for overlayfs.
    pub overlay: HashSet<String>,
}

impl Tree {
    fn at(root: &Path) -> Self {
        let (mut tree, mut files) = (Self::default(), HashSet::new());
        let mut pending = vec![(root.to_owned(), 0)];
        while let Some((path, depth)) = pending.pop() {
            let metadata = fs_err::symlink_metadata(&path).expect("what was unpacked can be looked at");
            tree.overlay.extend(overlay_attributes(&path));
            if metadata.is_dir() {
                tree.depth = tree.depth.max(depth);
                pending.extend(names(&path).into_iter().map(|path| (path, depth + 1)));
                continue;
            }
            tree.names += 1;
            if metadata.is_file() && files.insert(metadata.ino()) {
                tree.bytes += metadata.size();
            }
        }
        tree
    }
}

fn overlay_attributes(path: &Path) -> impl Iterator<Item = String> {
    // Where there are none, as on some file systems, there are none for overlayfs.
    let all = xattr::list(path).into_iter().flatten();
    let has_meaning =
        |name: &String| name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
    all.filter_map(|name| name.into_string().ok()).filter(has_meaning)
}

fn seen(path: &Path) -> Seen {
    Seen::of(&fs_err::symlink_metadata(path).expect("what is beside the root is still there"))
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(directory).expect("a directory can be listed");
    entries.map(|entry| entry.expect("a directory can be listed").path()).collect()
}
