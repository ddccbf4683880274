//! The cgroup hierarchies of this host.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// One mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) mount_point: PathBuf,
    /// Which of its directories is mounted there; `/` but in containers without a cgroup namespace.
    root: PathBuf,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unified,
    /// v1, with its controllers or `name=…`.
    Legacy(Vec<String>),
}

impl Hierarchy {
    pub(crate) fn join(&self, path: &Path) -> PathBuf {
        self.mount_point.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(crate) fn strip_root<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    pub(crate) fn is_unified(&self) -> bool {
        self.kind == Kind::Unified
    }

    /// Whether `/proc/PID/cgroup` means this one by `names`.
    pub(crate) fn is_named(&self, names: &str) -> bool {
        match &self.kind {
            Kind::Unified => names.is_empty(),
            Kind::Legacy(controllers) => {
                !names.is_empty() && names.split(',').all(|name| controllers.iter().any(|own| own == name))
            }
        }
    }

    pub(crate) fn enter(&self, path: &Path) -> Result<()> {
        let directory = self.join(path);
        fs_err::create_dir_all(&directory).map_err(Error::file("make a cgroup"))?;
        write_pid(&directory).map_err(Error::file("join a cgroup"))
    }
}

/// The v1 controllers that `libcontainer` 0.7.0 knows.
const MANAGED: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// The hierarchies that `libcontainer` does not put a container into: none on a pure v2 host; beside v1, the v2 one, named
/// ones, and those of controllers it does not know.
pub(crate) fn unmanaged(hierarchies: &[Hierarchy]) -> impl Iterator<Item = &Hierarchy> {
    let pure = hierarchies.iter().all(Hierarchy::is_unified);
    hierarchies.iter().filter(move |hierarchy| match &hierarchy.kind {
        Kind::Unified => !pure,
        Kind::Legacy(controllers) => {
            !controllers.iter().any(|controller| MANAGED.contains(&controller.as_str()))
        }
    })
}

/// Whether this is a v1 host with a v2 hierarchy beside the others.
///
/// # Errors
/// [`Error::File`] when the mount table cannot be read.
pub(crate) fn is_hybrid() -> Result<bool> {
    let hierarchies = hierarchies()?;
    Ok(hierarchies.iter().any(Hierarchy::is_unified) && !hierarchies.iter().all(Hierarchy::is_unified))
}

/// The hierarchies mounted on this host, each once.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table =
        fs_err::read_to_string("/proc/self/mountinfo").map_err(Error::file("read the table of mounts"))?;
    Ok(parse_mountinfo(&table))
}

/// proc_pid_mountinfo(5): `ID PARENT DEV ROOT MOUNTPOINT OPTIONS [OPTIONAL…] - TYPE SOURCE SUPEROPTIONS`.
fn parse_mountinfo(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(mount_point)) = (fields.next(), fields.next()) else {
            continue;
        };
        let mut fields = after.split(' ');
        let kind = match fields.next() {
            Some("cgroup2") => Kind::Unified,
            Some("cgroup") => {
                let options = fields.nth(1).unwrap_or_default();
                let names = options.split(',').filter(|option| {
                    !matches!(
                        *option,
                        "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode"
                    ) && !option.starts_with("release_agent=")
                });
                Kind::Legacy(names.map(str::to_owned).collect())
            }
            _ => continue,
        };
        // Mounts of nodes that propagated here, or bind mounts: the first one is the host's own.
        if !found.iter().any(|hierarchy| hierarchy.kind == kind) {
            found.push(Hierarchy { mount_point: mount_point.into(), root: root.into(), kind });
        }
    }
    found
}

/// Puts the calling process into a cgroup.
pub(crate) fn write_pid(directory: &Path) -> io::Result<()> {
    fs_err::write(directory.join("cgroup.procs"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
50 31 0:38 /x /mnt/again rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_has_controllers_systemd_and_unified_each_once() {
        let found = parse_mountinfo(HYBRID);
        let kinds: Vec<&Kind> = found.iter().map(|hierarchy| &hierarchy.kind).collect();
        let legacy = |names: &[&str]| Kind::Legacy(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(kinds, [&legacy(&["cpu", "cpuacct"]), &legacy(&["name=systemd"]), &Kind::Unified]);
        assert_eq!(found[2].mount_point, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn on_a_hybrid_host_systemd_and_unified_are_joined_by_hand() {
        let found = parse_mountinfo(HYBRID);
        let points: Vec<_> =
            unmanaged(&found).map(|hierarchy| hierarchy.mount_point.to_str().unwrap()).collect();
        assert_eq!(points, ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]);
        let pure = parse_mountinfo("41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n");
        assert_eq!(unmanaged(&pure).count(), 0);
    }

    #[test]
    fn lines_of_proc_cgroup_find_their_hierarchy() {
        let found = parse_mountinfo(HYBRID);
        let matching = |names: &str| found.iter().position(|hierarchy| hierarchy.is_named(names));
        assert_eq!(matching("cpu,cpuacct"), Some(0));
        assert_eq!(matching("cpuacct,cpu"), Some(0));
        assert_eq!(matching("name=systemd"), Some(1));
        assert_eq!(matching(""), Some(2));
        assert_eq!(matching("memory"), None);
    }

    #[test]
    fn a_mount_of_a_subtree_is_taken_off_the_path() {
        let table = "32 31 0:29 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let hierarchy = &parse_mountinfo(table)[0];
        let path = hierarchy.strip_root(Path::new("/docker/abc/kiln/c/n"));
        assert_eq!(hierarchy.join(path), Path::new("/sys/fs/cgroup/pids/kiln/c/n"));
    }
}
