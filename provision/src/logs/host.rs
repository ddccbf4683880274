//! What a reader of a cluster's logs needs to know about its host.

use crate::{
    Paths,
    doctor::{self, Finding, Status},
    host::{self, CgroupMode},
};

/// Kernel, machine and what `kiln doctor` finds, for people.
pub(super) fn describe(paths: &Paths) -> String {
    let kernel = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let memory = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).map_or("unknown", str::trim);
    let cgroup = match host::detect() {
        Ok(host) => match host.cgroup {
            CgroupMode::V2 => "v2".to_owned(),
            CgroupMode::Hybrid => "v1 with v2 beside it (hybrid)".to_owned(),
            CgroupMode::V1 => "v1".to_owned(),
        },
        Err(error) => format!("unknown ({error})"),
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mut lines = vec![
        format!("kernel      {} {}", text(kernel.release()), text(kernel.version())),
        format!("machine     {}, {processors} processors, {memory} of memory", text(kernel.machine())),
        format!("cgroup      {cgroup}"),
        format!("state root  {}", paths.state().display()),
        format!("run root    {}", paths.run().display()),
        String::new(),
    ];
    lines.extend(doctor::examine(paths).iter().map(line));
    lines.join("\n") + "\n"
}

fn line(finding: &Finding) -> String {
    let status = match finding.status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Problem => "problem",
    };
    let cure = finding.cure.as_ref().map(|cure| format!(" → {cure}")).unwrap_or_default();
    format!("{status:<7}  {}: {}{cure}", finding.check, finding.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_told_with_its_findings() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let text = describe(&paths);
        assert!(text.starts_with("kernel      ") && text.contains("\ncgroup      v"), "{text}");
        assert!(text.lines().count() > 10, "{text}");
    }
}
