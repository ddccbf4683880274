//! Rights, the kernel's age, namespaces, and what the kernel was built with.

use std::io::Read;

use flate2::read::GzDecoder;
use fs_err as fs;
use rustix::{process::geteuid, system::uname};

use super::{Finding, read_number};

/// The oldest kernel with the mount interface that libcontainer uses (`mount_setattr`).
const OLDEST: (u32, u32) = (5, 12);

/// The namespaces of a node, with their names in `/proc/self/ns` and `/proc/sys/user`.
const NAMESPACES: [(&str, &str); 6] =
    [("cgroup", "cgroup"), ("ipc", "ipc"), ("mnt", "mnt"), ("net", "net"), ("pid", "pid"), ("uts", "uts")];

pub(super) fn root() -> Finding {
    if geteuid().is_root() {
        Finding::ok("root", "running as root")
    } else {
        Finding::problem(
            "root",
            format!("running as user {}", geteuid().as_raw()),
            "run kiln as root, with sudo for example",
        )
    }
}

pub(super) fn version() -> Finding {
    judge_version(&release())
}

fn judge_version(release: &str) -> Finding {
    let (major, minor) = OLDEST;
    match parse_version(release) {
        Some(version) if version >= OLDEST => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::problem(
            "kernel",
            format!("Linux {release} is older than {major}.{minor}"),
            format!("run Linux {major}.{minor} or later"),
        ),
        None => Finding::warning(
            "kernel",
            format!("cannot tell the version of Linux {release:?}"),
            format!("make sure it is {major}.{minor} or later"),
        ),
    }
}

pub(super) fn namespaces() -> Finding {
    const CHECK: &str = "namespaces";
    let missing: Vec<_> = NAMESPACES
        .iter()
        .filter(|(file, _)| fs::symlink_metadata(format!("/proc/self/ns/{file}")).is_err())
        .map(|(file, _)| *file)
        .collect();
    if !missing.is_empty() {
        return Finding::problem(
            CHECK,
            format!("the kernel has no {} namespaces", missing.join(", ")),
            "run a kernel built with CONFIG_NAMESPACES and all kinds of them",
        );
    }
    let forbidden: Vec<_> = NAMESPACES
        .iter()
        .map(|(_, name)| format!("user.max_{name}_namespaces"))
        .filter(|setting| read_number(&format!("/proc/sys/{}", setting.replacen('.', "/", 1))) == Some(0))
        .collect();
    if forbidden.is_empty() {
        return Finding::ok(CHECK, "cgroup, ipc, mnt, net, pid and uts");
    }
    let settings: Vec<_> = forbidden.iter().map(|setting| format!("{setting}=1024")).collect();
    Finding::problem(
        CHECK,
        format!("{} is 0", forbidden.join(", ")),
        format!("allow some: sysctl -w {}", settings.join(" ")),
    )
}

/// The kernel's release, such as `6.1.0-18-amd64`.
pub(super) fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Whether the kernel has a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    /// It is there now.
    Present,
    /// It is a module that the kernel loads when it is used.
    Loadable,
    /// It is not there and cannot be loaded.
    Absent,
    /// Nothing on this host tells.
    Unknown,
}

/// What the kernel was built with, as far as this host tells.
#[derive(Debug, Default)]
pub(super) struct Build {
    /// Its configuration: `CONFIG_X=y` lines.
    config: Option<String>,
    /// The paths of modules: those linked into the kernel, and those that can be loaded.
    builtin: String,
    loadable: String,
}

impl Build {
    pub(super) fn of_this_kernel() -> Self {
        let release = release();
        let modules =
            |file: &str| fs::read_to_string(format!("/lib/modules/{release}/{file}")).unwrap_or_default();
        Self {
            config: read_config(&release),
            builtin: modules("modules.builtin"),
            // Lines are `path: dependencies`.
            loadable: modules("modules.dep")
                .lines()
                .filter_map(|line| line.split(':').next())
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    /// Looks for the feature that `option` (`CONFIG_…`) builds as module `module`.
    pub(super) fn feature(&self, option: &str, module: &str) -> Feature {
        // Both spellings are in use, and the kernel takes them for the same.
        let module = module.replace('-', "_");
        let lists = |text: &str| {
            text.lines().any(|path| {
                let file = path.rsplit('/').next().unwrap_or_default();
                file.split(".ko").next().is_some_and(|name| name.replace('-', "_") == module)
            })
        };
        if fs::metadata(format!("/sys/module/{module}")).is_ok() || lists(&self.builtin) {
            return Feature::Present;
        }
        if lists(&self.loadable) {
            return Feature::Loadable;
        }
        match self.option(option) {
            Some("y") => Feature::Present,
            // A module whose file is not here: the host of this container may have it loaded, or not.
            Some("m") => Feature::Unknown,
            _ if self.config.is_some() => Feature::Absent,
            _ => Feature::Unknown,
        }
    }

    fn option(&self, option: &str) -> Option<&str> {
        self.config.as_ref()?.lines().find_map(|line| line.strip_prefix(option)?.strip_prefix('='))
    }
}

fn read_config(release: &str) -> Option<String> {
    if let Ok(packed) = fs::read("/proc/config.gz") {
        let mut config = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut config).ok()?;
        return Some(config);
    }
    ["/boot/config-", "/usr/lib/modules/"]
        .iter()
        .zip(["", "/config"])
        .find_map(|(before, after)| fs::read_to_string(format!("{before}{release}{after}")).ok())
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, status) in [
            ("6.1.0-18-amd64", Status::Ok),
            ("5.12.0", Status::Ok),
            ("5.12-rc1", Status::Ok),
            ("10.0", Status::Ok),
            ("5.4.0-150-generic", Status::Problem),
            ("4.18.0-553.el8", Status::Problem),
            ("strange", Status::Warning),
        ] {
            assert_eq!(judge_version(release).status, status, "{release}");
        }
    }

    #[test]
    fn features_are_looked_up_in_all_that_is_known() {
        let build = Build {
            config: Some("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_AB=n\n".to_owned()),
            builtin: "kernel/net/linked-in.ko\n".to_owned(),
            loadable: "kernel/net/can_load.ko.xz".to_owned(),
        };
        assert_eq!(build.feature("CONFIG_A", "no_such_a"), Feature::Present);
        assert_eq!(build.feature("CONFIG_B", "no_such_b"), Feature::Unknown);
        assert_eq!(build.feature("CONFIG_C", "no_such_c"), Feature::Absent);
        assert_eq!(build.feature("CONFIG_C", "linked_in"), Feature::Present);
        assert_eq!(build.feature("CONFIG_C", "can-load"), Feature::Loadable);
        assert_eq!(Build::default().feature("CONFIG_A", "no_such_a"), Feature::Unknown);
    }
}
