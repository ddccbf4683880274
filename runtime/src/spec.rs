//! What a container is made of, as plain data.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::Cgroup;

/// Everything [`launch`](crate::launch) needs to know about a container.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ContainerSpec {
    /// Names the container in errors.
    pub id: String,
    /// Its run-time directory, made by `launch` and removed by [`remove`](crate::remove).
    pub directory: PathBuf,
    /// The file that takes what is written to the container's console. Kept to a few MiB by rotation to `NAME.1`.
    pub console: PathBuf,
    /// Where the monitor leaves an [`ExitRecord`](crate::ExitRecord) when init has ended.
    pub exit: PathBuf,
    /// The root file system.
    pub root: RootFilesystem,
    /// The host name inside.
    pub hostname: String,
    /// Command and arguments of init; the command is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// Environment of init, `KEY=VALUE`. `PATH` is added when it is missing.
    pub env: Vec<String>,
    /// Bind mounts, made in order, after the mounts every container gets.
    pub mounts: Vec<Mount>,
    /// Where its processes are accounted, limited and, in the end, found and killed.
    pub cgroup: Cgroup,
    /// Sysctls of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// An overlay: layers that are only read and shared with other containers, and a directory of the container's own.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RootFilesystem {
    /// Unpacked layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// Takes everything the container changes.
    pub upper: PathBuf,
    /// Scratch space of overlayfs, on the file system of `upper`.
    pub work: PathBuf,
}

/// A bind mount from the host, recursive.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Mount {
    /// An existing file or directory of the host.
    pub source: PathBuf,
    /// Absolute, in the container; made when missing.
    pub destination: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
    /// What happens to mounts made below it later.
    pub propagation: Propagation,
}

/// Mount propagation between host and container, in Kubernetes' words.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub enum Propagation {
    /// Neither side sees the other's later mounts.
    #[default]
    None,
    /// The container sees the host's.
    HostToContainer,
    /// Both see each other's.
    Bidirectional,
}

impl Propagation {
    /// The OCI mount option.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::None => "rprivate",
            Self::HostToContainer => "rslave",
            Self::Bidirectional => "rshared",
        }
    }
}
