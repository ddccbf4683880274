//! Control groups: the hierarchies and controllers that systemd, containerd and the kubelet need in a node.

use std::path::Path;

use fs_err as fs;
use rustix::fs::{Access, access};

use super::Finding;
use crate::host::{CgroupMode, cgroup_mode, cgroup_mounts, read_proc};

const CHECK: &str = "cgroups";
/// Of the unified hierarchy.
const V2: [&str; 3] = ["cpu", "memory", "pids"];
/// Of hierarchies per controller; systemd's own has no controller.
const V1: [&str; 6] = ["cpu", "memory", "pids", "devices", "freezer", "name=systemd"];

pub(super) fn findings() -> Vec<Finding> {
    let mounts = match read_proc("/proc/self/mounts") {
        Ok(mounts) => mounts,
        Err(error) => return vec![Finding::problem(CHECK, error.to_string(), "mount /proc")],
    };
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let mut findings = vec![judge(&mounts, &controllers, |path| access(path, Access::WRITE_OK).is_ok())];
    if cgroup_mode(&cgroup_mounts(&mounts)) != CgroupMode::V2 {
        findings.push(Finding::warning(
            "cgroup version",
            "control groups are mounted as version 1",
            "kubelets from v1.35 on need failCgroupV1: false; boot with systemd.unified_cgroup_hierarchy=1 for version 2",
        ));
    }
    findings
}

fn judge(mounts: &str, v2_controllers: &str, is_writable: impl Fn(&Path) -> bool) -> Finding {
    let mounts = cgroup_mounts(mounts);
    let mode = cgroup_mode(&mounts);
    if mounts.is_empty() {
        return Finding::problem(
            CHECK,
            "no control groups are mounted",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        );
    }
    if let Some(mount) = mounts.iter().find(|mount| !is_writable(&mount.path)) {
        return Finding::problem(
            CHECK,
            format!("{} is read-only", mount.path.display()),
            "in a container, run it privileged, with a writable /sys/fs/cgroup",
        );
    }
    if mode == CgroupMode::V2 {
        let missing: Vec<_> = V2
            .into_iter()
            .filter(|name| !v2_controllers.split_whitespace().any(|found| found == *name))
            .collect();
        if missing.is_empty() {
            return Finding::ok(CHECK, "version 2, with cpu, memory and pids");
        }
        return Finding::problem(
            CHECK,
            format!("version 2, without {}", missing.join(", ")),
            "enable the controllers in cgroup.subtree_control of the parent, or boot without cgroup_disable",
        );
    }
    let missing: Vec<_> =
        V1.into_iter().filter(|name| !mounts.iter().any(|mount| mount.options.contains(*name))).collect();
    let detail = if mode == CgroupMode::Hybrid { "version 1, hybrid" } else { "version 1" };
    let Some(first) = missing.first() else {
        return Finding::ok(CHECK, format!("{detail}, with all hierarchies"));
    };
    let cure = match first.strip_prefix("name=") {
        Some(name) => {
            format!("mount -t cgroup -o none,{first} cgroup /sys/fs/cgroup/{name} (make the directory first)")
        }
        None => {
            format!("mount -t cgroup -o {first} cgroup /sys/fs/cgroup/{first} (make the directory first)")
        }
    };
    Finding::problem(CHECK, format!("{detail}, without {}", missing.join(", ")), cure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    const V1_MOUNTS: &str = "\
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0
cgroup /sys/fs/cgroup/devices cgroup rw,devices 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,freezer 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
";

    #[test]
    fn version_2_needs_its_controllers() {
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(judge(mounts, "cpuset cpu io memory pids\n", |_| true).status, Status::Ok);
        let finding = judge(mounts, "cpuset memory\n", |_| true);
        assert_eq!(
            (finding.status, finding.detail.as_str()),
            (Status::Problem, "version 2, without cpu, pids")
        );
        assert_eq!(judge(mounts, "cpu memory pids", |_| false).status, Status::Problem);
    }

    #[test]
    fn version_1_needs_its_hierarchies() {
        assert_eq!(judge(V1_MOUNTS, "", |_| true).status, Status::Ok);
        let hybrid = format!("{V1_MOUNTS}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(judge(&hybrid, "", |_| true).detail, "version 1, hybrid, with all hierarchies");
        let finding = judge(&V1_MOUNTS.replace("name=systemd", "name=elogind"), "", |_| true);
        assert_eq!(finding.status, Status::Problem);
        assert!(finding.cure.unwrap().contains("-o none,name=systemd cgroup /sys/fs/cgroup/systemd"));
        assert!(
            judge(&V1_MOUNTS.replace("rw,memory", "rw"), "", |_| true).cure.unwrap().contains("-o memory")
        );
    }

    #[test]
    fn none_at_all_is_a_problem() {
        assert_eq!(judge("proc /proc proc rw 0 0\n", "", |_| true).status, Status::Problem);
    }
}
