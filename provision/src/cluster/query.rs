//! Finding clusters and nodes, and entering them.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use kiln_network::PortMapping;
use kiln_runtime::{ExecSpec, ExitRecord, Process};
use serde::Serialize;

use super::create::locate_kubeconfig;
use crate::{
    Error, Paths, Result,
    containerd::{Containerd, NodeImage},
    kubeconfig,
    state::{self, NodeRecord, NodeRole},
};

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its init was never started, or is being started.
    Created,
    /// Its init runs.
    Running,
    /// Its init has ended.
    Exited,
}

/// A node as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// The node's name.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// What it is for.
    pub role: NodeRole,
    /// Whether it runs.
    pub state: NodeState,
    /// Process id of its init on the host, while it runs.
    pub pid: Option<i32>,
    /// How its init ended, when it has.
    pub exit: Option<ExitRecord>,
    /// The image it was made from.
    pub image: String,
    /// Its IPv4 address on the cluster's network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address on the cluster's network.
    pub ipv6: Option<Ipv6Addr>,
    /// Ports of the host that lead to it.
    pub ports: Vec<PortMapping>,
}

/// The names of all clusters, sorted.
///
/// # Errors
/// [`Error::File`].
pub fn clusters(paths: &Paths) -> Result<Vec<String>> {
    state::cluster_names(paths)
}

/// The nodes of a cluster; none when there is no such cluster.
///
/// # Errors
/// [`Error::InvalidName`], [`Error::Damaged`].
pub fn nodes(paths: &Paths, cluster: &str) -> Result<Vec<NodeStatus>> {
    let mut nodes = Vec::new();
    // A cluster whose creation was killed may have nodes and no record of its own.
    let published = state::load_cluster(paths, cluster)?.map(|record| record.ports).unwrap_or_default();
    for record in state::load_nodes(paths, cluster)? {
        nodes.push(status(paths, cluster, record, &published)?);
    }
    Ok(nodes)
}

/// A node's record with what has become of it; `published` are the ports of its cluster.
pub(crate) fn status(
    paths: &Paths,
    cluster: &str,
    record: NodeRecord,
    published: &[PortMapping],
) -> Result<NodeStatus> {
    let alive = record.process.as_ref().is_some_and(Process::is_alive);
    let exit =
        if alive { None } else { ExitRecord::load(&paths.node(cluster, &record.name).join("exit.json"))? };
    Ok(NodeStatus {
        state: match (&record.process, alive) {
            (_, true) => NodeState::Running,
            (Some(_), false) => NodeState::Exited,
            (None, false) => NodeState::Created,
        },
        pid: record.process.as_ref().filter(|_| alive).map(|process| process.pid),
        exit,
        cluster: cluster.to_owned(),
        role: record.role,
        image: record.image,
        ports: published.iter().filter(|port| record.endpoint.has_address(port.target)).cloned().collect(),
        ipv4: record.endpoint.ipv4,
        ipv6: record.endpoint.ipv6,
        name: record.name,
    })
}

/// The cluster and record of a node, by the node's name.
///
/// # Errors
/// [`Error::NoSuchNode`].
pub fn find_node(paths: &Paths, node: &str) -> Result<(String, NodeRecord)> {
    let mut known = Vec::new();
    for cluster in clusters(paths)? {
        // One damaged record must not hide the others' nodes.
        let Ok(records) = state::load_nodes(paths, &cluster) else { continue };
        for record in records {
            if record.name == node {
                return Ok((cluster, record));
            }
            known.push(record.name);
        }
    }
    Err(Error::NoSuchNode { node: node.to_owned(), known })
}

/// The init of a node that runs.
///
/// # Errors
/// [`Error::NoSuchNode`], [`Error::NodeNotRunning`].
pub(crate) fn running(paths: &Paths, node: &str) -> Result<Process> {
    let (_, record) = find_node(paths, node)?;
    let not_running = || Error::NodeNotRunning { node: node.to_owned() };
    record.process.filter(Process::is_alive).ok_or_else(not_running)
}

/// A host command that runs `spec` in a node, with the node's own environment below `spec.env`.
///
/// # Errors
/// [`Error::NoSuchNode`], [`Error::NodeNotRunning`].
pub fn exec_command(paths: &Paths, node: &str, spec: &ExecSpec) -> Result<Command> {
    let process = running(paths, node)?;
    let mut spec = spec.clone();
    spec.env = environment(process.pid, &spec);
    Ok(kiln_runtime::exec_command(&process, &spec)?)
}

/// What init was started with, then what a login would add, then what the caller asks for; later ones win.
fn environment(init: i32, spec: &ExecSpec) -> Vec<String> {
    let raw = fs_err::read(format!("/proc/{init}/environ")).unwrap_or_default();
    let inherited = raw.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned());
    let mut entries: Vec<String> = vec!["HOME=/root".to_owned()];
    // Meant for systemd alone.
    entries.extend(inherited.filter(|entry| entry.contains('=') && !entry.starts_with("NOTIFY_SOCKET=")));
    if spec.tty {
        entries.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned())));
    }
    entries.extend(spec.env.iter().cloned());
    let mut merged: Vec<String> = Vec::new();
    for entry in entries {
        let key = entry.split('=').next().unwrap_or_default().to_owned();
        merged.retain(|other| other.split('=').next() != Some(key.as_str()));
        merged.push(entry);
    }
    merged
}

/// The images in a node's containerd, as kubelet sees them.
///
/// # Errors
/// [`Error::NoSuchNode`], [`Error::NodeNotRunning`], or what containerd says.
pub async fn node_images(paths: &Paths, node: &str) -> Result<Vec<NodeImage>> {
    Containerd::connect(&running(paths, node)?).await?.images().await
}

/// A kubeconfig for a cluster: for use from the host, or (`internal`) from another node.
///
/// # Errors
/// [`Error::NoSuchCluster`] when there is no cluster of that name or it has no API yet.
pub fn kubeconfig(paths: &Paths, cluster: &str, internal: bool) -> Result<String> {
    let missing =
        || Error::NoSuchCluster { cluster: cluster.to_owned(), known: clusters(paths).unwrap_or_default() };
    let record = state::load_cluster(paths, cluster)?.ok_or_else(missing)?;
    let file = paths.cluster(cluster).join("admin.conf");
    let admin_conf = match fs_err::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(Error::file("read the cluster's credentials")(error)),
    };
    let server = format!("https://{}", record.api);
    kubeconfig::rewrite(&admin_conf, cluster, if internal { None } else { Some(&server) })
}

/// Writes a cluster's kubeconfig into the caller's. Returns the file.
///
/// # Errors
/// As [`kubeconfig`], and what the file says.
pub async fn export_kubeconfig(
    paths: &Paths,
    cluster: &str,
    internal: bool,
    explicit: Option<&Path>,
) -> Result<PathBuf> {
    let text = kubeconfig(paths, cluster, internal)?;
    let locations = locate_kubeconfig(explicit)?;
    kubeconfig::merge_into(&locations, &text)
}
