//! Kernel settings that clusters change for the whole host, and their way back.
//!
//! Kiln turns forwarding on and lets root have more instances of inotify, and every kubelet sets how the kernel treats memory,
//! panics and keys, as it would on a machine of its own. The values from before the first cluster are kept in `host.json` until the last one is gone. Registries need forwarding, and
//! count.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Paths, Result,
    state::{self, read_json, remove_if_exists, write_json},
};

/// Set by Kiln, for packets between nodes and the world.
const FORWARDING: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];

/// Set by the nodes' kubelets (its `protectKernelDefaults` is off, as on every kind node).
const KUBELET: [&str; 6] = [
    "kernel.keys.root_maxbytes",
    "kernel.keys.root_maxkeys",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
];

/// Raised by Kiln. All nodes share root's instances: one needs a dozen, and the tenth finds none of the kernel's usual 128 left,
/// where its kubelet ends with "inotify_init: too many open files".
const INOTIFY: &str = "fs.inotify.max_user_instances";
const INOTIFY_INSTANCES: u64 = 8192;

/// A setting that got its former value back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The setting, such as `vm.overcommit_memory`.
    pub name: String,
    /// Its value while there were clusters.
    pub from: String,
    /// Its value from before the first cluster, and now.
    pub to: String,
}

impl fmt::Display for Restored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} from {} to {}", self.name, self.from, self.to)
    }
}

/// Keeps the present values of all settings that a cluster changes, unless they are kept already, and raises what limits how
/// many nodes there can be. To be called before a cluster changes any, under the host's lock.
///
/// # Errors
/// [`Error::Sysctl`] when a setting cannot be read, or an error of saving.
pub fn remember(paths: &Paths) -> Result<()> {
    Host::new(paths).remember()
}

/// When no cluster and no registry is left: gives every setting that differs its former value back and forgets the values. Returns
/// what was changed. To be called after a cluster's state is gone, under the host's lock.
///
/// Forwarding stays on when there are bridges of other programs by then: they most likely depend on it.
///
/// # Errors
/// [`Error::Sysctl`] for the first setting that could not be restored, after all were tried; calling it again repeats
/// the attempt.
pub fn restore(paths: &Paths) -> Result<Vec<Restored>> {
    if state::anything_left(paths)? {
        return Ok(Vec::new());
    }
    Host::new(paths).restore()
}

/// The former values: `host.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The boot they belong to: a reboot restores everything by itself.
    boot: String,
    /// Values by name.
    sysctls: BTreeMap<String, String>,
}

/// Where settings and their record are; elsewhere in tests.
#[derive(Debug)]
struct Host {
    record: PathBuf,
    proc_sys: PathBuf,
    links: PathBuf,
}

impl Host {
    fn new(paths: &Paths) -> Self {
        Self {
            record: paths.state().join("host.json"),
            proc_sys: PathBuf::from("/proc/sys"),
            links: PathBuf::from("/sys/class/net"),
        }
    }

    fn remember(&self) -> Result<()> {
        let boot = self.boot()?;
        if read_json::<Record>(&self.record)?.is_some_and(|record| record.boot == boot) {
            return Ok(());
        }
        let mut sysctls = BTreeMap::new();
        for name in FORWARDING.into_iter().chain(KUBELET).chain([INOTIFY]) {
            if let Some(value) = self.read(name)? {
                sysctls.insert(name.to_owned(), value);
            }
        }
        write_json(&self.record, &Record { boot, sysctls })?;
        // Where it may not be written, there can be few nodes; they are no reason for the first to fail.
        if self
            .read(INOTIFY)?
            .and_then(|value| value.parse().ok())
            .is_some_and(|value: u64| value < INOTIFY_INSTANCES)
        {
            let _ = fs::write(self.path(INOTIFY), INOTIFY_INSTANCES.to_string());
        }
        Ok(())
    }

    fn restore(&self) -> Result<Vec<Restored>> {
        let Some(record) = read_json::<Record>(&self.record)? else {
            return Ok(Vec::new());
        };
        let mut restored = Vec::new();
        let mut failure = None;
        if record.boot == self.boot()? {
            let keep_forwarding = self.has_bridges();
            for (name, to) in record.sysctls {
                if keep_forwarding && FORWARDING.contains(&name.as_str()) {
                    continue;
                }
                match self.set(&name, &to) {
                    Ok(Some(from)) => restored.push(Restored { name, from, to }),
                    Ok(None) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        remove_if_exists(&self.record)
            .map_err(|source| Error::File { what: "forget the former kernel settings", source })?;
        Ok(restored)
    }

    /// Sets a value and returns the former one; `None` when it was that value already or the setting does not exist.
    fn set(&self, name: &str, value: &str) -> Result<Option<String>> {
        let Some(current) = self.read(name)?.filter(|current| current != value) else {
            return Ok(None);
        };
        fs::write(self.path(name), value).map_err(|source| Error::Sysctl {
            what: "restore",
            name: name.to_owned(),
            source,
        })?;
        Ok(Some(current))
    }

    /// The value of a setting; `None` when this kernel does not have it.
    fn read(&self, name: &str) -> Result<Option<String>> {
        match fs::read_to_string(self.path(name)) {
            Ok(value) => Ok(Some(value.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Sysctl { what: "read", name: name.to_owned(), source }),
        }
    }

    fn boot(&self) -> Result<String> {
        Ok(self.read("kernel.random.boot_id")?.unwrap_or_default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.proc_sys.join(name.replace('.', "/"))
    }

    /// Whether there are bridges; Kiln's own are gone with the last cluster.
    fn has_bridges(&self) -> bool {
        let is_bridge = |link: &Path| link.join("bridge").is_dir();
        fs::read_dir(&self.links).is_ok_and(|links| links.flatten().any(|link| is_bridge(&link.path())))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn host(directory: &TempDir) -> Host {
        let host = Host {
            record: directory.path().join("state/host.json"),
            proc_sys: directory.path().join("sys"),
            links: directory.path().join("links"),
        };
        for (name, value) in [
            ("kernel.random.boot_id", "boot-1"),
            ("net.ipv4.ip_forward", "0"),
            ("vm.overcommit_memory", "0"),
            ("kernel.panic", "0"),
            ("kernel.keys.root_maxkeys", "1000000"),
        ] {
            put(&host, name, value);
        }
        fs::create_dir_all(host.links.join("eth0")).unwrap();
        host
    }

    fn put(host: &Host, name: &str, value: &str) {
        let path = host.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    fn get(host: &Host, name: &str) -> String {
        host.read(name).unwrap().unwrap()
    }

    #[test]
    fn values_from_before_the_first_cluster_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(&directory);
        host.remember().unwrap();
        put(&host, "vm.overcommit_memory", "1");
        put(&host, "net.ipv4.ip_forward", "1");
        // The second cluster finds what the first one has changed.
        host.remember().unwrap();
        let restored = host.restore().unwrap();
        let one = |name: &str| Restored { name: name.to_owned(), from: "1".to_owned(), to: "0".to_owned() };
        assert_eq!(restored, [one("net.ipv4.ip_forward"), one("vm.overcommit_memory")]);
        assert_eq!(get(&host, "vm.overcommit_memory"), "0");
        assert_eq!(get(&host, "net.ipv4.ip_forward"), "0");
        assert!(!host.record.exists());
        assert_eq!(host.restore().unwrap(), []);
    }

    #[test]
    fn instances_of_inotify_are_raised_while_there_are_clusters() {
        for (before, meanwhile) in [("128", "8192"), ("16384", "16384")] {
            let directory = tempfile::tempdir().unwrap();
            let host = host(&directory);
            put(&host, INOTIFY, before);
            host.remember().unwrap();
            assert_eq!(get(&host, INOTIFY), meanwhile);
            host.restore().unwrap();
            assert_eq!(get(&host, INOTIFY), before);
        }
    }

    #[test]
    fn other_programs_bridges_keep_forwarding_on() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(&directory);
        host.remember().unwrap();
        put(&host, "net.ipv4.ip_forward", "1");
        put(&host, "kernel.panic", "10");
        fs::create_dir_all(host.links.join("docker0/bridge")).unwrap();
        let names: Vec<_> = host.restore().unwrap().into_iter().map(|restored| restored.name).collect();
        assert_eq!(names, ["kernel.panic"]);
        assert_eq!(get(&host, "net.ipv4.ip_forward"), "1");
    }

    #[test]
    fn a_reboot_makes_old_values_void() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(&directory);
        host.remember().unwrap();
        put(&host, "kernel.random.boot_id", "boot-2");
        put(&host, "kernel.panic", "5");
        assert_eq!(host.restore().unwrap(), [], "nothing of this boot was changed by a cluster");
        assert_eq!(get(&host, "kernel.panic"), "5");

        host.remember().unwrap();
        put(&host, "kernel.random.boot_id", "boot-3");
        host.remember().unwrap();
        put(&host, "kernel.panic", "10");
        assert_eq!(host.restore().unwrap().len(), 1);
        assert_eq!(get(&host, "kernel.panic"), "5");
    }

    #[test]
    fn nothing_is_restored_while_a_cluster_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        fs::create_dir_all(paths.cluster("half-made")).unwrap();
        fs::write(paths.state().join("host.json"), r#"{"boot": "of another time", "sysctls": {}}"#).unwrap();
        assert_eq!(restore(&paths).unwrap(), []);
        assert!(paths.state().join("host.json").exists());
        fs::remove_dir(paths.cluster("half-made")).unwrap();
        assert_eq!(restore(&paths).unwrap(), []);
        assert!(!paths.state().join("host.json").exists());
    }

    #[test]
    fn damage_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let host = host(&directory);
        fs::create_dir_all(host.record.parent().unwrap()).unwrap();
        fs::write(&host.record, "{").unwrap();
        assert!(matches!(host.restore(), Err(Error::Damaged { .. })));
    }
}
