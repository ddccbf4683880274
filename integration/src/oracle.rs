//! The leak oracle: what of Kiln's making is on this host, seen from outside through the kernel's own tables.
//!
//! A [`Snapshot`] before and one after; [`Snapshot::leaks_since`] names everything that is new. Things of other
//! programs come and go on any host, so where the kernel tells whose a thing is, only Kiln's are counted: processes
//! by executable, cgroup and pid namespace, and then cgroups, ports and network namespaces by their processes. What
//! belongs to nobody counts.

mod files;
mod kernel;
mod processes;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use processes::Processes;

/// What the oracle has to know to tell Kiln's things from others'.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The binary under test.
    pub binary: PathBuf,
    /// The state root.
    pub state_root: PathBuf,
    /// The run root.
    pub run_root: PathBuf,
    /// The directory that the binary has for temporary files; nobody else uses it.
    pub temporary: PathBuf,
}

/// The host at one moment. Every map and set is keyed by what names a thing for people.
#[derive(Clone, Debug)]
pub struct Snapshot {
    processes: Processes,
    mounts: BTreeSet<String>,
    cgroups: BTreeMap<PathBuf, BTreeSet<u32>>,
    links: BTreeSet<String>,
    tables: BTreeMap<String, String>,
    ports: BTreeMap<String, BTreeSet<u32>>,
    sysctls: BTreeMap<&'static str, String>,
    files: BTreeSet<PathBuf>,
}

impl Snapshot {
    /// Looks at the host now.
    ///
    /// # Panics
    /// When a table of the kernel cannot be read: an oracle that sees nothing finds nothing.
    #[must_use]
    pub fn take(scope: &Scope) -> Self {
        let processes = Processes::read(&scope.binary);
        Self {
            mounts: kernel::mounts(),
            cgroups: kernel::cgroups(),
            links: kernel::links(),
            tables: kernel::nft_tables(),
            ports: kernel::listening_ports(&processes),
            sysctls: kernel::sysctls(),
            files: files::list(scope),
            processes,
        }
    }

    /// Everything of Kiln's, or of nobody's, that is here and was not in `before`; one line for each, which begins
    /// with what it is: `process`, `mount`, `cgroup`, `netns`, `link`, `nft table`, `port`, `sysctl` or `file`.
    #[must_use]
    pub fn leaks_since(&self, before: &Self) -> Vec<String> {
        let mut leaks = self.processes.leaks_since(&before.processes);
        leaks.extend(self.mounts.difference(&before.mounts).map(|mount| format!("mount {mount}")));
        let cgroups = self.cgroups.iter().filter(|(cgroup, members)| {
            !before.cgroups.contains_key(*cgroup) && !self.processes.are_foreign(members)
        });
        let cgroups = topmost(cgroups.map(|(cgroup, _)| cgroup.as_path()));
        leaks.extend(cgroups.map(|cgroup| format!("cgroup {}", cgroup.display())));
        leaks.extend(self.links.difference(&before.links).map(|link| format!("link {link}")));
        for (table, rules) in &self.tables {
            match before.tables.get(table) {
                None => leaks.push(format!("nft {table}")),
                Some(old) if old != rules => leaks.push(format!("nft {table}: its rules have changed")),
                Some(_) => {}
            }
        }
        for (port, holders) in &self.ports {
            if !before.ports.contains_key(port) && !self.processes.are_foreign(holders) {
                leaks.push(format!("port {port} held by processes {holders:?}"));
            }
        }
        for (name, value) in &self.sysctls {
            let old = before.sysctls.get(name);
            if old.is_some_and(|old| old != value) {
                leaks.push(format!("sysctl {name}: {} has become {value}", old.map_or("", String::as_str)));
            }
        }
        let files = topmost(self.files.difference(&before.files).map(PathBuf::as_path));
        leaks.extend(files.map(|file| format!("file {}", file.display())));
        leaks
    }

    /// How many processes of Kiln's there are.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.processes.count()
    }
}

/// Of sorted paths those that lie in no other: a tree that is left is told in one line.
fn topmost<'a>(paths: impl Iterator<Item = &'a Path>) -> impl Iterator<Item = &'a Path> {
    let mut last: Option<&Path> = None;
    paths.filter(move |path| {
        let inside = last.is_some_and(|last| path.starts_with(last));
        if !inside {
            last = Some(path);
        }
        !inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_told_by_its_top() {
        let paths = ["/a", "/a/b", "/a/b/c", "/ab", "/c/d"].map(Path::new);
        let top: Vec<&Path> = topmost(paths.into_iter()).collect();
        assert_eq!(top, ["/a", "/ab", "/c/d"].map(Path::new));
    }
}
