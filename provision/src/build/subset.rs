//! Taking some files out of a root with everything on the way to them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

/// Symbolic links that a path may lead through, as in the kernel.
const LINKS: usize = 40;

/// A directory that takes files from a root under their own paths.
#[derive(Debug)]
pub(super) struct Subset<'a> {
    root: &'a Path,
    target: &'a Path,
    taken: BTreeSet<PathBuf>,
}

impl<'a> Subset<'a> {
    /// Takes from `root` into `target`.
    pub(super) fn new(root: &'a Path, target: &'a Path) -> Self {
        Self { root, target, taken: BTreeSet::new() }
    }

    /// Takes a file: its directories, the symbolic links on the way to it and at its place, and what they lead to.
    /// Links are resolved inside the root.
    ///
    /// # Errors
    /// When it is not there or cannot be copied.
    pub(super) fn take(&mut self, path: &Path) -> io::Result<()> {
        let (root, target) = (self.root, self.target);
        let mut step = |path: &Path, kind: Kind| {
            if !self.taken.insert(path.to_owned()) {
                return Ok(());
            }
            let (from, to) = (root.join(path), target.join(path));
            match kind {
                Kind::Directory => copy_directory(&from, &to),
                Kind::Link(link) => symlink(link, to),
                Kind::File => copy_file(&from, &to),
            }
        };
        walk(self.root, path, &mut step).map(drop)
    }
}

/// The place of a path in a root, with symbolic links resolved inside of it. `None` when it leads nowhere.
pub(super) fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    walk(root, path, &mut |_, _| Ok(())).ok()
}

/// Copies a file, or makes it another name of the same one where that is possible: nothing changes it.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    if fs_err::hard_link(from, to).is_err() {
        fs_err::copy(from, to)?;
    }
    Ok(())
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    match fs_err::create_dir(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    fs_err::set_permissions(to, fs_err::metadata(from)?.permissions())
}

enum Kind {
    Directory,
    Link(PathBuf),
    File,
}

/// Follows a path inside a root and tells `visit` each directory, link and file on the way, relative to the root.
/// Returns where it ends.
fn walk(
    root: &Path,
    path: &Path,
    visit: &mut dyn FnMut(&Path, Kind) -> io::Result<()>,
) -> io::Result<PathBuf> {
    // The names still to follow, the next one last.
    let mut names = Vec::new();
    push(&mut names, path);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let metadata = fs_err::symlink_metadata(root.join(&next))?;
        if metadata.is_symlink() {
            links += 1;
            if links > LINKS {
                return Err(io::Error::other(format!("{} leads through too many links", path.display())));
            }
            let link = fs_err::read_link(root.join(&next))?;
            visit(&next, Kind::Link(link.clone()))?;
            if link.is_absolute() {
                at = PathBuf::new();
            }
            push(&mut names, &link);
        } else if metadata.is_dir() {
            visit(&next, Kind::Directory)?;
            at = next;
        } else {
            visit(&next, Kind::File)?;
            at = next;
        }
    }
    Ok(root.join(at))
}

/// Adds the names of a path, the first one last.
fn push(names: &mut Vec<OsString>, path: &Path) {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let parts: Vec<_> = parts.map(|part| part.as_os_str().to_owned()).collect();
    names.extend(parts.into_iter().rev());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(root.path().join("usr/sbin")).unwrap();
        fs_err::create_dir_all(root.path().join("etc/alternatives")).unwrap();
        fs_err::write(root.path().join("usr/sbin/multi"), "program").unwrap();
        let link = |target: &str, name: &str| symlink(target, root.path().join(name)).unwrap();
        link("usr/sbin", "sbin");
        link("/etc/alternatives/tool", "usr/sbin/tool");
        link("/usr/sbin/tool-nft", "etc/alternatives/tool");
        link("multi", "usr/sbin/tool-nft");
        link("loop", "usr/sbin/loop");
        root
    }

    #[test]
    fn a_file_is_taken_with_every_link_that_leads_to_it() {
        let (root, target) = (root(), tempfile::tempdir().unwrap());
        let mut subset = Subset::new(root.path(), target.path());
        subset.take(Path::new("/sbin/tool")).unwrap();
        subset.take(Path::new("/usr/sbin/multi")).unwrap();
        for link in ["sbin", "usr/sbin/tool", "etc/alternatives/tool", "usr/sbin/tool-nft"] {
            let path = target.path().join(link);
            assert_eq!(fs_err::read_link(&path).unwrap(), fs_err::read_link(root.path().join(link)).unwrap());
        }
        assert_eq!(fs_err::read_to_string(target.path().join("usr/sbin/multi")).unwrap(), "program");
        assert!(!target.path().join("usr/sbin/loop").is_symlink());
    }

    #[test]
    fn links_never_lead_out_of_the_root() {
        let root = root();
        symlink("../../../../etc/passwd", root.path().join("outside")).unwrap();
        assert_eq!(resolve(root.path(), Path::new("/outside")), None);
        assert_eq!(resolve(root.path(), Path::new("/sbin/tool")), Some(root.path().join("usr/sbin/multi")));
        assert_eq!(resolve(root.path(), Path::new("/usr/sbin/loop")), None);
    }
}
