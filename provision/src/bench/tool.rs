//! The programs whose clusters are measured.

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
};

use kiln_runtime::Cgroup;
use kube::config::Kubeconfig;

use super::{BootOptions, Origin, find};
use crate::{
    Error, Paths, Result,
    cluster::{is_from_template, own_bytes},
    state,
};

/// Who makes clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// This program.
    Kiln,
    /// kind, with a container engine.
    Kind,
}

impl fmt::Display for Tool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Kiln => "kiln",
            Self::Kind => "kind",
        })
    }
}

/// The engines that kind knows, by preference.
const ENGINES: [&str; 3] = ["docker", "podman", "nerdctl"];

/// A tool with everything it needs to make its cluster again and again.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) tool: Tool,
    pub(super) name: String,
    program: PathBuf,
    options: &'a BootOptions,
    kubeconfig: PathBuf,
    paths: Option<&'a Paths>,
    engine: Option<PathBuf>,
}

impl<'a> Site<'a> {
    /// Kiln's own, below `paths`.
    pub(super) fn kiln(paths: &'a Paths, options: &'a BootOptions, directory: &Path) -> Self {
        Self {
            tool: Tool::Kiln,
            name: options.name.clone(),
            program: options.program.clone(),
            options,
            kubeconfig: directory.join("kiln"),
            paths: Some(paths),
            engine: None,
        }
    }

    /// kind's.
    ///
    /// # Errors
    /// [`Error::MissingTool`] when it or an engine for it is not to be found.
    pub(super) fn kind(options: &'a BootOptions, directory: &Path) -> Result<Self> {
        let missing = |tool| Error::MissingTool { tool, purpose: "be compared with" };
        let program = find("kind").ok_or_else(|| missing("kind"))?;
        let engine = ENGINES.iter().find_map(|engine| find(engine));
        let engine = engine.ok_or_else(|| missing("docker, podman or nerdctl (for kind)"))?;
        Ok(Self {
            tool: Tool::Kind,
            name: format!("{}-kind", options.name),
            program,
            options,
            kubeconfig: directory.join("kind"),
            paths: None,
            engine: Some(engine),
        })
    }

    /// The command that makes the cluster.
    pub(super) fn create(&self) -> std::process::Command {
        let mut command = self.command("create");
        if let Some(config) = &self.options.config {
            command.arg("--config").arg(config);
        }
        if let Some(image) = &self.options.image {
            command.args(["--image", image]);
        }
        if self.tool == Tool::Kiln {
            command.args(["--bootstrap", self.options.bootstrap.as_str()]);
        }
        command
    }

    /// What the cluster's first control plane came from.
    pub(super) fn origin(&self) -> Origin {
        match self.paths.and_then(|paths| is_from_template(paths, &self.name, &self.first_node())) {
            Some(true) => Origin::Template,
            _ => Origin::Kubeadm,
        }
    }

    /// Removes the cluster, or what there is of it.
    pub(super) async fn delete(&self) -> Result<()> {
        let mut command = tokio::process::Command::from(self.command("delete"));
        let output = command.stdin(Stdio::null()).output().await;
        let output = output.map_err(Error::file("start a program to be measured"))?;
        // The file of one boot must not be taken for that of the next.
        match fs_err::remove_file(&self.kubeconfig) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::File { what: "remove a kubeconfig", source: error });
            }
            _ => {}
        }
        if output.status.success() {
            return Ok(());
        }
        Err(self.failed("delete", &output.stderr))
    }

    /// The failure of a command, with the end of what it said.
    pub(super) fn failed(&self, verb: &str, said: &[u8]) -> Error {
        let said = String::from_utf8_lossy(said);
        let lines: Vec<&str> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        Error::Bench { command: format!("{} {verb} cluster", self.tool), output: end }
    }

    fn command(&self, verb: &str) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        if let Some(paths) = self.paths {
            command.arg("--root").arg(paths.state()).env("KILN_RUN_ROOT", paths.run());
        }
        command.args([verb, "cluster", "--name", &self.name, "--kubeconfig"]).arg(&self.kubeconfig);
        command
    }

    /// The administrator's kubeconfig and the address of the API, as soon as there are both. kind has none before its
    /// `create` ends; of Kiln's nodes the file can be read while they boot.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let early = self.paths.and_then(|paths| {
            let api = state::load_cluster(paths, &self.name).ok()??.api;
            let node = self.first_node();
            let admin = paths.node(&self.name, &node).join("upper/etc/kubernetes/admin.conf");
            Some((fs_err::read_to_string(admin).ok()?, format!("https://{}", reachable(api))))
        });
        early.or_else(|| {
            let text = fs_err::read_to_string(&self.kubeconfig).ok()?;
            let parsed = Kubeconfig::from_yaml(&text).ok()?;
            let server = parsed.clusters.first()?.cluster.as_ref()?.server.clone()?;
            Some((text, server))
        })
    }

    fn first_node(&self) -> String {
        format!("{}-control-plane", self.name)
    }

    /// Processor time of the nodes so far, in seconds; `None` where it is not counted.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let seconds = |cgroup: &Cgroup| {
            let microseconds = *cgroup.processor_times().ok()?.get(Path::new(""))?;
            Some(std::time::Duration::from_micros(microseconds).as_secs_f64())
        };
        self.cgroups()?.iter().map(|places| places.iter().find_map(seconds)).sum()
    }

    /// What the nodes hold in memory now, without what the kernel can take back at once, in bytes; `None` where it is not
    /// counted.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let bytes = |cgroup: &Cgroup| Some(cgroup.usage().ok()?.working_set_bytes).filter(|bytes| *bytes > 0);
        self.cgroups()?.iter().map(|places| places.iter().find_map(bytes)).sum()
    }

    /// The control groups of the cluster, each with the places where it may be.
    fn cgroups(&self) -> Option<Vec<Vec<Cgroup>>> {
        let cgroup = |parent: &str, leaf: String| Cgroup { parent: parent.to_owned(), leaf };
        if self.tool == Tool::Kiln {
            return Some(vec![vec![cgroup("kiln", self.paths?.handle(&self.name))]]);
        }
        let of = |id: &String| {
            vec![
                cgroup("docker", id.clone()),
                cgroup("system.slice", format!("docker-{id}.scope")),
                cgroup("machine.slice", format!("libpod-{id}.scope")),
                cgroup("system.slice", format!("nerdctl-{id}.scope")),
            ]
        };
        Some(self.containers()?.iter().map(of).collect())
    }

    /// The ids of kind's containers.
    fn containers(&self) -> Option<Vec<String>> {
        let label = format!("label=io.x-k8s.kind.cluster={}", self.name);
        let args = ["ps", "--quiet", "--no-trunc", "--filter", &label];
        let output = std::process::Command::new(self.engine.as_ref()?).args(args).output().ok()?;
        let ids: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        (!ids.is_empty()).then_some(ids)
    }

    /// What is free on the file system that the clusters are on, in bytes.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let directory = match (self.paths, &self.engine) {
            (Some(paths), _) => paths.state().to_owned(),
            (None, engine) => engine_directory(engine.as_ref()?)?,
        };
        let status = rustix::fs::statvfs(directory).ok()?;
        Some(status.f_bfree * status.f_frsize)
    }

    /// What the cluster holds on the disk: of Kiln's its directory without what it shares, of kind's what has become
    /// less of the free space.
    pub(super) fn disk_bytes(&self, free_before: Option<u64>) -> Option<u64> {
        match self.paths {
            Some(paths) => own_bytes(&paths.cluster(&self.name)).ok(),
            None => Some(free_before?.saturating_sub(self.free_bytes()?)),
        }
    }
}

/// An address that can be dialled: one that stands for all addresses is reached on the loopback.
fn reachable(api: std::net::SocketAddr) -> std::net::SocketAddr {
    match api {
        std::net::SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            (std::net::Ipv4Addr::LOCALHOST, v4.port()).into()
        }
        std::net::SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
        }
        other => other,
    }
}

/// Where an engine keeps its data.
fn engine_directory(engine: &Path) -> Option<PathBuf> {
    let format = if engine.file_name()? == "podman" { "{{.Store.GraphRoot}}" } else { "{{.DockerRootDir}}" };
    let output = std::process::Command::new(engine).args(["info", "--format", format]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let directory = PathBuf::from(OsString::from(text.trim()));
    directory.is_dir().then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_for_everybody_are_dialled_on_the_loopback() {
        for (api, dialled) in [
            ("0.0.0.0:6443", "127.0.0.1:6443"),
            ("[::]:6443", "[::1]:6443"),
            ("192.0.2.1:6443", "192.0.2.1:6443"),
        ] {
            assert_eq!(reachable(api.parse().unwrap()), dialled.parse().unwrap());
        }
    }
}
