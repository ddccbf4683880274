//! Files: everything in Kiln's own directories except its stores, and what is new in the usual places of others.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::Scope;

/// What may stay in the state root when no cluster is there: the stores, the templates, the locks and the record of the host.
const KEPT: [&str; 5] = ["images", "build", "templates", "locks", "host.json"];

/// Directories of others in which something named after Kiln or Kubernetes would be a leak, and how deep to look.
const ELSEWHERE: [(&str, usize); 11] = [
    ("/", 1),
    ("/dev", 1),
    ("/etc", 2),
    ("/mnt", 1),
    ("/opt", 1),
    ("/root", 2),
    ("/run", 2),
    ("/tmp", 1),
    ("/var/lib", 1),
    ("/var/log", 2),
    ("/var/tmp", 1),
];

const TELLING: [&str; 6] = ["kiln", "kube", "containerd", "netns", "cni", "etcd"];

pub(super) fn list(scope: &Scope) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for (directory, depth) in ELSEWHERE {
        walk(Path::new(directory), depth, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if TELLING.iter().any(|word| name.contains(word))
                && path != scope.run_root
                && path != scope.state_root
            {
                found.insert(path.to_owned());
            }
        });
    }
    // What lies directly in a root, such as `clusters` or `locks`, is made once and stays; what is in it does not.
    walk_below(&scope.run_root, &[], &mut found);
    walk_below(&scope.state_root, &KEPT, &mut found);
    walk(&scope.temporary, usize::MAX, &mut |path| {
        found.insert(path.to_owned());
    });
    found
}

fn walk_below(root: &Path, kept: &[&str], found: &mut BTreeSet<PathBuf>) {
    for entry in fs_err::read_dir(root).into_iter().flatten().flatten() {
        if kept.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if directory {
            walk(&entry.path(), usize::MAX, &mut |path| {
                found.insert(path.to_owned());
            });
        } else {
            found.insert(entry.path());
        }
    }
}

/// Visits everything below `directory`, at most `depth` levels down, without following links. What cannot be read or
/// is gone meanwhile is passed over.
fn walk(directory: &Path, depth: usize, visit: &mut dyn FnMut(&Path)) {
    if depth == 0 {
        return;
    }
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        visit(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, depth - 1, visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_left_out_and_the_rest_is_seen() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| root.path().join(name);
        for directory in ["state/images/blobs", "state/clusters/a", "run/clusters/a", "tmp"] {
            fs_err::create_dir_all(at(directory)).expect("a directory");
        }
        fs_err::write(at("tmp/x"), "").expect("a file");
        let scope =
            Scope { binary: at("kiln"), state_root: at("state"), run_root: at("run"), temporary: at("tmp") };
        let found: Vec<PathBuf> =
            list(&scope).into_iter().filter(|path| path.starts_with(root.path())).collect();
        let expected = ["run/clusters/a", "state/clusters/a", "tmp/x"];
        assert!(expected.iter().all(|name| found.contains(&at(name))), "{found:?}");
        assert!(!found.contains(&at("state/images/blobs")), "{found:?}");
    }
}
