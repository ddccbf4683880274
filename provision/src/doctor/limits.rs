//! What a cluster uses up: inotify watches, open files, memory, disk.

use fs_err as fs;
use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};

use super::{Finding, existing, read_number};
use crate::{Paths, host};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

pub(super) fn findings(paths: &Paths) -> Vec<Finding> {
    vec![
        judge_inotify(
            read_number("/proc/sys/fs/inotify/max_user_instances"),
            read_number("/proc/sys/fs/inotify/max_user_watches"),
        ),
        judge_open_files(getrlimit(Resource::Nofile).maximum),
        sys_resource(),
        disk(paths),
        judge_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        judge_swap(&fs::read_to_string("/proc/swaps").unwrap_or_default()),
    ]
}

/// Nodes share the host's root user's inotify limits; systemd, kubelet and containerd in each use a dozen instances,
/// and workloads more. One node is content with the kernel's defaults; instances are raised while there are clusters.
fn judge_inotify(instances: Option<u64>, watches: Option<u64>) -> Finding {
    const CHECK: &str = "inotify";
    let (Some(instances), Some(watches)) = (instances, watches) else {
        return Finding::warning(
            CHECK,
            "the limits cannot be read",
            "see that /proc/sys is mounted and the kernel has inotify",
        );
    };
    let detail = format!("{instances} instances, {watches} watches per user");
    if instances < 128 || watches < 65_536 {
        return Finding::warning(
            CHECK,
            format!("{detail} are few"),
            "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288",
        );
    }
    Finding::ok(CHECK, detail)
}

fn judge_open_files(hard_limit: Option<u64>) -> Finding {
    const CHECK: &str = "open files";
    match hard_limit {
        None => Finding::ok(CHECK, "not limited"),
        Some(limit) if limit >= 8192 => Finding::ok(CHECK, format!("at most {limit} per process")),
        Some(limit) => Finding::warning(
            CHECK,
            format!("at most {limit} per process are few for etcd and the API server"),
            "raise the hard limit: ulimit -Hn 65536, or LimitNOFILE in the unit that runs kiln",
        ),
    }
}

/// Not a fault: nodes are made to cope.
fn sys_resource() -> Finding {
    const CHECK: &str = "CAP_SYS_RESOURCE";
    match host::detect() {
        Ok(found) if found.sys_resource => Finding::ok(CHECK, "granted"),
        Ok(_) => Finding::ok(CHECK, "withheld: nodes run without lowered OOM scores and raised limits"),
        Err(error) => Finding::warning(CHECK, error.to_string(), "mount /proc"),
    }
}

fn disk(paths: &Paths) -> Finding {
    const CHECK: &str = "disk";
    let directory = existing(paths.state());
    let name = directory.display();
    match statvfs(&directory) {
        Ok(disk) => judge_disk(disk.f_bavail.saturating_mul(disk.f_frsize), &name.to_string()),
        Err(errno) => Finding::problem(
            CHECK,
            format!("{name}: {errno}"),
            "choose another directory with --root or KILN_ROOT",
        ),
    }
}

fn judge_disk(free: u64, name: &str) -> Finding {
    const CHECK: &str = "disk";
    const CURE: &str = "free some, or choose another disk with --root or KILN_ROOT";
    let detail = format!("{} free in {name}", size(free));
    if free < GIB {
        Finding::problem(CHECK, format!("{detail} are not enough for a node image"), CURE)
    } else if free < 5 * GIB {
        Finding::warning(CHECK, format!("{detail} are few"), CURE)
    } else {
        Finding::ok(CHECK, detail)
    }
}

fn judge_memory(meminfo: &str) -> Finding {
    const CHECK: &str = "memory";
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    match kib("MemAvailable:") {
        Some(available) if available >= 3 * GIB / 2 / 1024 => {
            Finding::ok(CHECK, format!("{} available", size(available * 1024)))
        }
        Some(available) => Finding::warning(
            CHECK,
            format!("{} available are few: a control plane uses about 1 GiB", size(available * 1024)),
            "stop something else, or delete other clusters",
        ),
        None => Finding::warning(CHECK, "/proc/meminfo cannot be read", "mount /proc"),
    }
}

fn judge_swap(swaps: &str) -> Finding {
    // The first line is a heading.
    let detail = match swaps.lines().skip(1).count() {
        0 => "off",
        _ => "on; kubelets are told to accept it",
    };
    Finding::ok("swap", detail)
}

fn size(bytes: u64) -> String {
    if bytes >= GIB {
        format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB)
    } else {
        format!("{} MiB", bytes / MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn inotify_limits_below_the_defaults_are_few() {
        assert_eq!(judge_inotify(Some(128), Some(65_536)).status, Status::Ok);
        assert_eq!(judge_inotify(Some(127), Some(524_288)).status, Status::Warning);
        assert_eq!(judge_inotify(Some(512), Some(8192)).status, Status::Warning);
        assert_eq!(judge_inotify(None, Some(8192)).status, Status::Warning);
    }

    #[test]
    fn limits_of_open_files() {
        assert_eq!(judge_open_files(None).status, Status::Ok);
        assert_eq!(judge_open_files(Some(20_000)).status, Status::Ok);
        assert_eq!(judge_open_files(Some(1024)).status, Status::Warning);
    }

    #[test]
    fn disks() {
        assert_eq!(judge_disk(GIB - 1, "/x").status, Status::Problem);
        assert_eq!(judge_disk(GIB, "/x").status, Status::Warning);
        assert_eq!(judge_disk(5 * GIB, "/x").status, Status::Ok);
        assert_eq!(judge_disk(5 * GIB + GIB / 2, "/x").detail, "5.5 GiB free in /x");
    }

    #[test]
    fn memory() {
        assert_eq!(judge_memory("MemTotal: 9 kB\nMemAvailable:    4194304 kB\n").detail, "4.0 GiB available");
        assert_eq!(judge_memory("MemAvailable: 1000000 kB\n").status, Status::Warning);
        assert_eq!(judge_memory("").status, Status::Warning);
    }

    #[test]
    fn swap_is_only_mentioned() {
        assert_eq!(judge_swap("Filename Type Size Used Priority\n").detail, "off");
        assert!(judge_swap("Filename\n/dev/sda2 partition 1 0 -2\n").detail.starts_with("on"));
    }
}
