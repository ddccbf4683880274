//! A containerd that works on a directory of the host, in a container that exists only for that.
//!
//! It is the one of an image: what it leaves in its directory is what the containerd of a node from that image will find
//! there, whatever its version.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_runtime::{Cgroup, ContainerSpec, Mount, Process, Propagation, RootFilesystem};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::Containerd;
use crate::{Error, Result};

/// How long containerd may take to come up, and to end.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes of the end of containerd's log that an error shows.
const LOG_TAIL: usize = 2000;

/// containerd's directory in a node.
pub(crate) const DIRECTORY: &str = "var/lib/containerd";

/// What containerd keeps there that is worth keeping: content, records, snapshots. The rest is for as long as it runs.
pub(crate) const LASTING: [&str; 3] = [
    "io.containerd.content.v1.content",
    "io.containerd.metadata.v1.bolt",
    "io.containerd.snapshotter.v1.overlayfs",
];

/// Where the recipe's images and kind's have it.
const PROGRAM: &str = "/usr/local/bin/containerd";

/// Only what importing needs. Without CRI nothing looks for a network, and without the other snapshotters they leave no
/// directories; what is written is synced once, by whoever keeps it. The names are those of containerd 1.6 to 2.x, the version one that all of them read; names that one does not
/// know it passes over.
pub(crate) const CONFIG: &str = r#"version = 2
disabled_plugins = [
  "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt", "io.containerd.monitor.task.v1.cgroups", "io.containerd.monitor.v1.cgroups",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.native",
  "io.containerd.snapshotter.v1.zfs",
]
[debug]
  level = "warn"
[plugins."io.containerd.metadata.v1.bolt"]
  no_sync = true
"#;

/// A pipe below `/var` whose other end this process has. When it is closed, however this process ends, containerd is told
/// to end: it cannot outlive who it works for. Init of the container is containerd, so that its end is the container's.
const LIFELINE: &str = "lifeline";

/// Where to make the container, and of what.
#[derive(Clone, Debug)]
pub(crate) struct WorkshopSpec {
    /// What the container is called, for people.
    pub(crate) name: String,
    /// Its run-time directory.
    pub(crate) directory: PathBuf,
    /// Its place in the cgroup hierarchies.
    pub(crate) cgroup: Cgroup,
    /// The layers of its root, top first.
    pub(crate) layers: Vec<PathBuf>,
    /// A directory for what it needs while it runs. On the same file system as `var`.
    pub(crate) scratch: PathBuf,
    /// What it has as `/var`: on a real file system, since snapshots must not lie on an overlay.
    pub(crate) var: PathBuf,
}

/// The container; removed when the value goes.
#[derive(Debug)]
pub(crate) struct Workshop {
    process: Process,
    spec: WorkshopSpec,
    /// See [`LIFELINE`].
    _lifeline: File,
}

impl Workshop {
    /// Starts it, and waits until containerd answers.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Runtime`], [`Error::Network`]; [`Error::ContainerdGone`] or [`Error::ContainerdTimeout`] when
    /// containerd does not come up. [`log_tail`] of the console tells more.
    pub(crate) async fn open(spec: WorkshopSpec) -> Result<(Self, Containerd)> {
        let workshop = Self::launch(spec)?;
        let containerd = Containerd::wait_ready(&workshop.process, START_TIMEOUT).await?;
        Ok((workshop, containerd))
    }

    fn launch(spec: WorkshopSpec) -> Result<Self> {
        let preparing = |source| Error::File { what: "prepare the unpacking of images", source };
        fs_err::create_dir_all(&spec.var).map_err(preparing)?;
        fs_err::write(spec.var.join("containerd.toml"), CONFIG).map_err(preparing)?;
        let lifeline = lifeline(&spec.var.join(LIFELINE)).map_err(preparing)?;
        let script = format!(
            "{{ read -r _ </var/{LIFELINE}; kill -TERM 1; }} & exec {PROGRAM} --config /var/containerd.toml"
        );
        let container = ContainerSpec {
            id: spec.name.clone(),
            directory: spec.directory.clone(),
            console: console(&spec.scratch),
            exit: spec.scratch.join("exit.json"),
            root: RootFilesystem {
                lowers: spec.layers.clone(),
                upper: spec.scratch.join("upper"),
                work: spec.scratch.join("work"),
            },
            hostname: spec.name.clone(),
            args: ["/bin/sh", "-c", &script].map(str::to_owned).into(),
            // Programs that help it unpack are looked for.
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            mounts: vec![Mount {
                source: spec.var.clone(),
                destination: "/var".into(),
                read_only: false,
                propagation: Propagation::None,
            }],
            cgroup: spec.cgroup.clone(),
            sysctls: BTreeMap::new(),
        };
        let netns = kiln_network::new_netns()?;
        // Blocks for as long as a process takes to start: if the work is given up, then before or after, not while it is
        // unclear whether there is a container.
        match kiln_runtime::launch(&container, netns.as_fd()) {
            Ok(process) => Ok(Self { process, spec, _lifeline: lifeline }),
            Err(error) => {
                remove(&spec.cgroup, &spec.directory);
                Err(error.into())
            }
        }
    }

    /// Ends containerd the way it wants to be ended, so that its databases are whole, and removes the container.
    ///
    /// # Errors
    /// [`Error::ContainerdTimeout`] when it does not end.
    pub(crate) async fn close(self) -> Result<()> {
        self.process.signal(rustix::process::Signal::TERM.as_raw())?;
        let process = self.process.clone();
        let ended = tokio::task::spawn_blocking(move || process.wait(STOP_TIMEOUT)).await;
        let waiting = |source| Error::File { what: "wait for containerd to end", source };
        if !ended.map_err(|source| waiting(io::Error::other(source)))?? {
            return Err(Error::ContainerdTimeout { pid: self.process.pid, timeout: STOP_TIMEOUT });
        }
        for file in ["containerd.toml", LIFELINE] {
            fs_err::remove_file(self.spec.var.join(file)).map_err(waiting)?;
        }
        Ok(())
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        for error in kiln_runtime::remove(Some(&self.process), &self.spec.cgroup, &self.spec.directory) {
            tracing::warn!(%error, "the container that unpacked images was not removed whole");
        }
    }
}

/// Removes what a killed process has left of a container. Does nothing when there is none.
pub(crate) fn remove(cgroup: &Cgroup, directory: &Path) {
    for error in kiln_runtime::remove(None, cgroup, directory) {
        tracing::warn!(%error, "the container of an interrupted unpacking was not removed whole");
    }
}

/// Removes everything in a directory but the entries of these names.
///
/// # Errors
/// Something cannot be read or removed.
pub(crate) fn keep_only(directory: &Path, names: &[&str]) -> io::Result<()> {
    for entry in fs_err::read_dir(directory)? {
        let entry = entry?;
        if names.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs_err::remove_dir_all(entry.path())?;
        } else {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The end of what containerd has logged.
pub(crate) fn log_tail(scratch: &Path) -> String {
    let text = fs_err::read(console(scratch)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL)..]).replace('\r', "");
    text.trim_end().to_owned()
}

fn console(scratch: &Path) -> PathBuf {
    scratch.join("console.log")
}

/// Makes the pipe and takes both of its ends, so that nobody waits for the other. They are closed in every program that is
/// executed from here.
fn lifeline(path: &Path) -> io::Result<File> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_configuration_is_toml_and_disables_cri() {
        let config: toml::Table = CONFIG.parse().unwrap();
        let disabled = config["disabled_plugins"].as_array().unwrap();
        assert!(disabled.iter().any(|plugin| plugin.as_str() == Some("io.containerd.grpc.v1.cri")));
        assert!(!CONFIG.contains("snapshotter.v1.overlayfs"));
    }

    #[test]
    fn whoever_waits_at_the_pipe_is_woken_when_its_owner_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LIFELINE);
        let owner = lifeline(&path).unwrap();
        let mut pipe = fs_err::File::open(path).unwrap();
        let waiting = std::thread::spawn(move || pipe.read(&mut [0]).unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(owner);
        assert_eq!(waiting.join().unwrap(), 0);
    }

    #[test]
    fn the_end_of_a_log_has_no_carriage_returns() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(log_tail(scratch.path()), "");
        fs_err::write(console(scratch.path()), format!("{}\r\nlast\r\n", "x".repeat(LOG_TAIL))).unwrap();
        let tail = log_tail(scratch.path());
        assert!(tail.ends_with("x\nlast") && tail.len() < LOG_TAIL, "{tail}");
    }
}
