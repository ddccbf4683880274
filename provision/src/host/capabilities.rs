//! What this host lets nodes have.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set};

use crate::{Error, Result};

/// How control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// One unified hierarchy at `/sys/fs/cgroup`.
    V2,
    /// Hierarchies per controller, and the unified one at `/sys/fs/cgroup/unified` beside them.
    Hybrid,
    /// Hierarchies per controller only.
    V1,
}

/// What this host offers to nodes; detected once per operation and passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How control groups are mounted.
    pub cgroup: CgroupMode,
    /// Whether limits may be raised and OOM scores lowered (CAP_SYS_RESOURCE, which many CI sandboxes withhold).
    pub sys_resource: bool,
    /// Whether the kernel has IPv6, and new links get it.
    pub ipv6: bool,
}

/// Looks at the host.
///
/// # Errors
/// [`Error::File`] when `/proc` is not what it should be.
pub fn detect() -> Result<Capabilities> {
    let mounts = read_proc("/proc/self/mounts")?;
    Ok(Capabilities {
        cgroup: cgroup_mode(&cgroup_mounts(&mounts)),
        sys_resource: has_sys_resource(),
        ipv6: has_ipv6(),
    })
}

/// `ipv6.disable=1` on the kernel's command line leaves no trace of it; the setting switches it off for links.
fn has_ipv6() -> bool {
    let off = |scope: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"))
            .map(|text| text.trim() != "0")
    };
    matches!((off("all"), off("default")), (Ok(false), Ok(false)))
}

/// A mounted control group hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// Where.
    pub(crate) path: PathBuf,
    /// Whether it is the unified hierarchy.
    pub(crate) unified: bool,
    /// Its mount options: for the other hierarchies, controllers or `name=…` are among them.
    pub(crate) options: BTreeSet<String>,
}

/// The control group hierarchies in the text of `/proc/self/mounts`.
pub(crate) fn cgroup_mounts(mounts: &str) -> Vec<CgroupMount> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| CgroupMount {
                path: PathBuf::from(path),
                unified: kind == "cgroup2",
                options: options.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// How control groups are mounted, given all mounted hierarchies.
pub(crate) fn cgroup_mode(mounts: &[CgroupMount]) -> CgroupMode {
    let unified_at = |path: &str| mounts.iter().any(|mount| mount.unified && mount.path == Path::new(path));
    if unified_at("/sys/fs/cgroup") {
        CgroupMode::V2
    } else if unified_at("/sys/fs/cgroup/unified") {
        CgroupMode::Hybrid
    } else {
        CgroupMode::V1
    }
}

pub(crate) fn read_proc(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|source: io::Error| Error::File { what: "look at the kernel", source })
}

/// Both are needed: what we have ourselves, and what programs that we start may get.
fn has_sys_resource() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
        && capability_is_in_bounding_set(CapabilitySet::SYS_RESOURCE).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nsdelegate 0 0\nproc /proc proc rw 0 0\n";
    const V1: &str = "\
tmpfs /sys/fs/cgroup tmpfs ro,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0
";

    #[test]
    fn modes_are_told_apart() {
        assert_eq!(cgroup_mode(&cgroup_mounts(V2)), CgroupMode::V2);
        assert_eq!(cgroup_mode(&cgroup_mounts(V1)), CgroupMode::V1);
        let hybrid = format!("{V1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(cgroup_mode(&cgroup_mounts(&hybrid)), CgroupMode::Hybrid);
    }

    #[test]
    fn controllers_are_among_the_options() {
        let mounts = cgroup_mounts(V1);
        assert_eq!(mounts.len(), 2);
        assert!(mounts[0].options.contains("cpuacct"));
        assert!(mounts[1].options.contains("name=systemd"));
        assert!(!mounts[1].unified);
    }

    #[test]
    fn this_host_is_understood() {
        let found = detect().unwrap();
        assert_eq!(found, detect().unwrap());
    }
}
