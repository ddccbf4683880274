//! Processes and the network namespaces that they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A process is known by its id and its start, since ids are used again.
type Identity = (u32, u64);

#[derive(Clone, Debug)]
struct Process {
    start: u64,
    parent: u32,
    ours: bool,
    /// It is in a pid namespace of its own.
    nested: bool,
    /// For people: the command line, or the name of a process that has none.
    title: String,
}

/// All processes of the host, and for each network namespace one process that holds it.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    all: BTreeMap<u32, Process>,
    namespaces: BTreeMap<String, u32>,
    /// Inode of a socket to the processes that hold it.
    sockets: BTreeMap<u64, BTreeSet<u32>>,
}

impl Processes {
    pub(super) fn read(binary: &Path) -> Self {
        let own_pid_namespace = link("/proc/self/ns/pid").expect("the kernel has pid namespaces");
        let mut processes =
            Self { all: BTreeMap::new(), namespaces: BTreeMap::new(), sockets: BTreeMap::new() };
        for entry in fs_err::read_dir("/proc").expect("/proc is mounted").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let directory = entry.path();
            // A process may end while it is being looked at: then there is nothing to say about it.
            if let Some(process) = read(&directory, binary, &own_pid_namespace) {
                processes.all.insert(pid, process);
                processes.read_holdings(pid, &directory);
            }
        }
        processes.claim_nested();
        processes
    }

    /// The processes that hold a socket.
    pub(super) fn holders_of_socket(&self, inode: u64) -> BTreeSet<u32> {
        self.sockets.get(&inode).cloned().unwrap_or_default()
    }

    /// Whether there is at least one member and none of them is Kiln's. Only processes of this snapshot count.
    pub(super) fn are_foreign(&self, members: &BTreeSet<u32>) -> bool {
        let mut known = members.iter().filter_map(|pid| self.all.get(pid)).peekable();
        known.peek().is_some() && known.all(|process| !process.ours)
    }

    pub(super) fn count(&self) -> usize {
        self.ours().count()
    }

    pub(super) fn leaks_since(&self, before: &Self) -> Vec<String> {
        let known: BTreeSet<Identity> = before.ours().map(|(pid, process)| (pid, process.start)).collect();
        let mut leaks: Vec<String> = self
            .ours()
            .filter(|(pid, process)| !known.contains(&(*pid, process.start)))
            .map(|(pid, process)| format!("process {pid}: {}", process.title))
            .collect();
        for (namespace, holder) in &self.namespaces {
            if !before.namespaces.contains_key(namespace) {
                let title = self.all.get(holder).map_or("?", |process| process.title.as_str());
                leaks.push(format!("netns {namespace} held by process {holder}: {title}"));
            }
        }
        leaks
    }

    /// A process in a pid namespace of its own counts as Kiln's, unless it descends from a living program that is not:
    /// a container of someone else's. What init has inherited is nobody's.
    fn claim_nested(&mut self) {
        let descends_from_other = |process: &Process| {
            let mut parent = process.parent;
            while let Some(ancestor) = self.all.get(&parent).filter(|_| parent > 1) {
                if !ancestor.ours && !ancestor.nested {
                    return true;
                }
                parent = ancestor.parent;
            }
            false
        };
        let nested = self.all.iter().filter(|(_, process)| process.nested && !process.ours);
        let claimed: Vec<u32> =
            nested.filter(|(_, process)| !descends_from_other(process)).map(|(pid, _)| *pid).collect();
        for pid in claimed {
            if let Some(process) = self.all.get_mut(&pid) {
                process.ours = true;
            }
        }
    }

    fn ours(&self) -> impl Iterator<Item = (u32, &Process)> {
        self.all.iter().filter(|(_, process)| process.ours).map(|(pid, process)| (*pid, process))
    }

    fn read_holdings(&mut self, pid: u32, directory: &Path) {
        if let Some(namespace) = link(directory.join("ns/net")) {
            self.namespaces.entry(namespace).or_insert(pid);
        }
        let Ok(descriptors) = fs_err::read_dir(directory.join("fd")) else {
            return;
        };
        for descriptor in descriptors.flatten() {
            let Some(target) = link(descriptor.path()) else {
                continue;
            };
            if target.starts_with("net:[") {
                self.namespaces.entry(target).or_insert(pid);
            } else if let Some(inode) =
                target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'))
                && let Ok(inode) = inode.parse()
            {
                self.sockets.entry(inode).or_default().insert(pid);
            }
        }
    }
}

fn read(directory: &Path, binary: &Path, own_pid_namespace: &str) -> Option<Process> {
    let stat = fs_err::read_to_string(directory.join("stat")).ok()?;
    // The name is in parentheses and may itself hold anything: the last one ends it.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let (state, parent, start) =
        (*fields.first()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    let cgroups = fs_err::read_to_string(directory.join("cgroup")).unwrap_or_default();
    let command = fs_err::read(directory.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let title =
        if command.trim().is_empty() { format!("[{name}] ({state})") } else { command.trim().to_owned() };

    let executable = link(directory.join("exe")).unwrap_or_default();
    let executable = PathBuf::from(executable.trim_end_matches(" (deleted)"));
    let nested = link(directory.join("ns/pid")).is_some_and(|namespace| namespace != own_pid_namespace);
    let in_our_cgroup = cgroups.lines().any(|line| line.split('/').any(|part| part == "kiln"));
    // A dead process is its parent's to reap. A parent of Kiln's is found by itself; and the first process of many
    // containers inherits dead ones and never reaps them.
    let alive = state != "Z";
    let ours = alive && (executable == binary || name == "kiln" || in_our_cgroup);
    Some(Process { start, parent, ours, nested: alive && nested, title })
}

fn link(path: impl AsRef<Path>) -> Option<String> {
    Some(fs_err::read_link(path.as_ref()).ok()?.to_string_lossy().into_owned())
}
