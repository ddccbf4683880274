//! The control groups of a container, on every hierarchy the host has.
//!
//! One parent per cluster, one child per container. On cgroup v2 there is one hierarchy; on v1 there is one per
//! controller, plus `name=systemd`, plus (hybrid) a v2 hierarchy without controllers. `libcontainer` 0.7.0 joins only
//! the controllers' on v1, so a systemd inside would manage the *host's* `name=systemd` root; the rest is joined here
//! (rust.md A1). It also removes just one level of directories, and a node always has more.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    hierarchy::{Hierarchy, Kind, hierarchies, unmanaged, write_pid},
};

/// How long the kernel may take to let go of killed processes. Exiting with gigabytes mapped takes it a while, and longer where
/// many others want the processors: 34 s were too few for one of ten clusters on two of them.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(60);

/// A container's place in every hierarchy: `/PARENT/LEAF`, relative to the hierarchy's root.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Cgroup {
    /// Shared by the containers of a cluster, such as `kiln/NAME`.
    pub parent: String,
    /// The container's own.
    pub leaf: String,
}

/// What the processes of a container have used.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CgroupUsage {
    /// Processor time, in microseconds.
    pub cpu_microseconds: u64,
    /// Memory now, page cache included, in bytes.
    pub memory_bytes: u64,
    /// The part of it that the kernel cannot take back at once: without file pages that nobody has used lately. What
    /// kubelet calls the working set.
    pub working_set_bytes: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

impl Cgroup {
    /// The path below a hierarchy's root, with a leading slash.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.parent).join(&self.leaf)
    }

    /// What its processes have used so far; zeros where the host does not count.
    ///
    /// # Errors
    /// [`Error::File`] when the mount table cannot be read.
    pub fn usage(&self) -> Result<CgroupUsage> {
        let mut usage = CgroupUsage::default();
        let mut reclaimable = 0;
        for hierarchy in hierarchies()? {
            let directory = hierarchy.join(&self.path());
            let number = |file: &str| -> Option<u64> {
                fs_err::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
            };
            let field = |file: &str, key: &str| -> Option<u64> {
                let text = fs_err::read_to_string(directory.join(file)).ok()?;
                text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
            };
            // On a hybrid host the v2 hierarchy counts the same processes once more: the larger figure, not the sum.
            let add = |total: &mut u64, value: Option<u64>| *total = (*total).max(value.unwrap_or(0));
            match &hierarchy.kind {
                Kind::Unified => {
                    add(&mut usage.cpu_microseconds, field("cpu.stat", "usage_usec "));
                    add(&mut usage.memory_bytes, number("memory.current"));
                    add(&mut reclaimable, field("memory.stat", "inactive_file "));
                    add(&mut usage.pids, number("pids.current"));
                    add(&mut usage.oom_kills, field("memory.events", "oom_kill "));
                }
                Kind::Legacy(controllers) if controllers.iter().any(|c| c == "cpuacct") => {
                    add(
                        &mut usage.cpu_microseconds,
                        number("cpuacct.usage").map(|nanoseconds| nanoseconds / 1000),
                    );
                }
                Kind::Legacy(controllers) if controllers.iter().any(|c| c == "memory") => {
                    add(&mut usage.memory_bytes, number("memory.usage_in_bytes"));
                    add(&mut reclaimable, field("memory.stat", "total_inactive_file "));
                    add(&mut usage.oom_kills, field("memory.oom_control", "oom_kill "));
                }
                Kind::Legacy(controllers) if controllers.iter().any(|c| c == "pids") => {
                    add(&mut usage.pids, number("pids.current"));
                }
                Kind::Legacy(_) => {}
            }
        }
        usage.working_set_bytes = usage.memory_bytes.saturating_sub(reclaimable);
        Ok(usage)
    }

    /// Processor time of itself and of every control group below it, in microseconds, by the path from here. Each counts
    /// what is below it too.
    ///
    /// # Errors
    /// [`Error::File`] when the mount table or a directory cannot be read.
    pub fn processor_times(&self) -> Result<BTreeMap<PathBuf, u64>> {
        let mut times = BTreeMap::new();
        for hierarchy in hierarchies()? {
            let top = hierarchy.join(&self.path());
            // Beside v1 the v2 hierarchy has no controllers, but counts this all the same, and for more services.
            let count = |directory: &Path| -> Option<u64> {
                match &hierarchy.kind {
                    Kind::Unified => {
                        let text = fs_err::read_to_string(directory.join("cpu.stat")).ok()?;
                        text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
                    }
                    Kind::Legacy(controllers) if controllers.iter().any(|c| c == "cpuacct") => {
                        let text = fs_err::read_to_string(directory.join("cpuacct.usage")).ok()?;
                        Some(text.trim().parse::<u64>().ok()? / 1000)
                    }
                    Kind::Legacy(_) => None,
                }
            };
            if count(&top).is_none() {
                continue;
            }
            visit(&top, &mut |directory| {
                if let (Ok(path), Some(time)) = (directory.strip_prefix(&top), count(directory)) {
                    let known = times.entry(path.to_owned()).or_insert(time);
                    *known = time.max(*known);
                }
            })
            .map_err(Error::file("list the control groups below one"))?;
        }
        Ok(times)
    }

    /// Puts the calling process into it: a helper that belongs to a cluster, and is found by that.
    ///
    /// # Errors
    /// [`Error::File`] naming the directory that could not be made or joined.
    pub fn enter(&self) -> Result<()> {
        enter(&self.path())
    }

    /// Kills every process in it and removes it. One that is not there is removed already.
    ///
    /// # Errors
    /// [`Error::Unkillable`], or the first directory that could not be removed.
    pub fn clear(&self) -> Result<()> {
        self.kill(Instant::now() + KILL_TIMEOUT)?;
        self.remove()?;
        self.remove_empty_parents()
    }

    /// Puts the calling process into the hierarchies that `libcontainer` leaves out, making the directories. What it
    /// starts from now on is there too.
    ///
    /// # Errors
    /// [`Error::File`] naming the directory that could not be made or joined.
    pub(crate) fn join_unmanaged(&self) -> Result<()> {
        for hierarchy in unmanaged(&hierarchies()?) {
            hierarchy.enter(&self.path())?;
        }
        Ok(())
    }

    /// Makes the cluster's level in every hierarchy, so that two containers made at once do not race for it.
    ///
    /// # Errors
    /// [`Error::File`] naming the directory that could not be made, [`Error::NoCgroups`].
    pub(crate) fn prepare(&self) -> Result<()> {
        let hierarchies = hierarchies()?;
        if hierarchies.is_empty() {
            return Err(Error::NoCgroups);
        }
        for hierarchy in &hierarchies {
            fs_err::create_dir_all(hierarchy.join(Path::new(&self.parent)))
                .map_err(Error::file("make a cgroup"))?;
        }
        Ok(())
    }

    /// The processes in it and below, in all hierarchies.
    pub(crate) fn pids(&self) -> Result<BTreeSet<i32>> {
        let mut pids = BTreeSet::new();
        for hierarchy in hierarchies()? {
            visit(&hierarchy.join(&self.path()), &mut |directory| pids.extend(members(directory)))
                .map_err(Error::file("list the processes of a cgroup"))?;
        }
        Ok(pids)
    }

    /// Kills every process in it and below, and waits until they are gone or the time has come.
    ///
    /// # Errors
    /// [`Error::Unkillable`] with those that stay.
    pub(crate) fn kill(&self, deadline: Instant) -> Result<()> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let mut pause = Duration::from_millis(1);
        let mut tried = false;
        loop {
            let pids: Vec<i32> = self.pids()?.into_iter().filter(|pid| *pid != own).collect();
            if pids.is_empty() {
                return Ok(());
            }
            if tried && Instant::now() > deadline {
                return Err(Error::Unkillable { cgroup: self.path().display().to_string(), pids });
            }
            tried = true;
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                // Whoever is gone already needs no signal.
                let _ = kill_process(pid, Signal::KILL);
            }
            // On v1 a signal reaches frozen processes only when they may run.
            self.thaw()?;
            // v1 has no event for "the last process has left"; after SIGKILL it is a matter of milliseconds.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Removes it and everything below in every hierarchy, leaves first, then the parents that are empty.
    ///
    /// # Errors
    /// The first directory that could not be removed; the others are tried all the same.
    pub(crate) fn remove(&self) -> Result<()> {
        let mut first = Ok(());
        for hierarchy in hierarchies()? {
            let removed = remove_tree(&hierarchy.join(&self.path())).map_err(Error::file("remove a cgroup"));
            first = first.and(removed);
        }
        first
    }

    /// Removes the levels above the leaf that nobody uses any more.
    pub(crate) fn remove_empty_parents(&self) -> Result<()> {
        for hierarchy in hierarchies()? {
            for level in Path::new(&self.parent).ancestors().filter(|level| !level.as_os_str().is_empty()) {
                // Not empty means that another container of this or another cluster is there.
                if fs_err::remove_dir(hierarchy.join(level)).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Puts the calling process into the cgroups of another one, in every hierarchy.
///
/// The other's own cgroup and not the container's is taken: on v2 the container's is not a leaf any more once the
/// systemd inside has moved to `init.scope` and enabled controllers, and joining it fails with EBUSY (a gap of
/// `libcontainer`'s own exec, which needs to be told the sub-cgroup).
///
/// # Errors
/// [`Error::File`] naming what could not be read or joined.
pub(crate) fn join_cgroups_of(pid: i32) -> Result<()> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/cgroup"))
        .map_err(Error::file("read a process's cgroups"))?;
    let hierarchies = hierarchies()?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if let Some(hierarchy) = hierarchies.iter().find(|hierarchy| hierarchy.is_named(names)) {
            let path = hierarchy.strip_root(Path::new(path));
            write_pid(&hierarchy.join(path)).map_err(Error::file("join a cgroup"))?;
        }
    }
    Ok(())
}

/// Leaves the container's cgroups for a place beside them: a monitor must not be among what it watches, and not in
/// the cgroup of whoever started it either, which may be a login session or a CI job that ends with all in it.
///
/// # Errors
/// [`Error::File`] naming the directory that could not be made or joined.
pub(crate) fn move_beside(cgroup: &Cgroup) -> Result<()> {
    enter(&Path::new("/").join(&cgroup.parent).join(MONITORS))
}

/// Moves the calling process in the hierarchies that have no controllers, or in the only one.
fn enter(path: &Path) -> Result<()> {
    let hierarchies = hierarchies()?;
    let pure = hierarchies.iter().filter(|_| hierarchies.iter().all(Hierarchy::is_unified));
    for hierarchy in pure.chain(unmanaged(&hierarchies)) {
        hierarchy.enter(path)?;
    }
    Ok(())
}

/// The cgroup beside a cluster's containers that holds their monitors.
pub(crate) const MONITORS: &str = "monitors";

fn members(directory: &Path) -> Vec<i32> {
    let text = fs_err::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Calls `visitor` for a directory and all below it, leaves first. Directories that vanish meanwhile are fine.
pub(crate) fn visit(directory: &Path, visitor: &mut dyn FnMut(&Path)) -> io::Result<()> {
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), visitor)?;
        }
    }
    visitor(directory);
    Ok(())
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    let mut first = Ok(());
    visit(directory, &mut |level| {
        let removed = remove_level(level);
        if first.is_ok() {
            first = removed;
        }
    })?;
    first
}

fn remove_level(directory: &Path) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    for _ in 0..12 {
        match fs_err::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                // A process that was killed leaves its cgroup only when it has been reaped, which is for others to
                // do; there is no event for it on v1.
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
    }
    fs_err::remove_dir(directory)
}
