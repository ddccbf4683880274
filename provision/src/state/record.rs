//! The records of clusters and their nodes.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fmt,
    fs::FileType,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{read_json, standby::unlink_standby, validate_cluster_name, write_json};
use crate::{Error, Paths, Result};

/// The version of the records' layout. A record of a later version is refused rather than misread.
pub const SCHEMA: u32 = 1;

/// How far the life of a cluster has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Being made; when nobody holds the cluster's lock, its maker was killed.
    Creating,
    /// Complete.
    Ready,
    /// Being removed; when nobody holds the cluster's lock, its remover was killed.
    Deleting,
}

/// What is known about a cluster: `clusters/NAME/cluster.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The layout's version, [`SCHEMA`].
    pub schema: u32,
    /// The cluster's name.
    pub name: String,
    /// When its creation began.
    pub created: Timestamp,
    /// The node image, as it was asked for.
    pub image: String,
    /// The version of Kubernetes in that image, such as `v1.34.4`.
    pub kubernetes_version: String,
    /// The cluster's network.
    pub network: kiln_network::Network,
    /// Ports of the host that lead into the cluster, the API's included.
    pub ports: Vec<kiln_network::PortMapping>,
    /// Where the API answers on the host; the address is what was asked for and may be unspecified (`0.0.0.0`).
    pub api: SocketAddr,
    /// How far the cluster's life has come.
    pub phase: Phase,
    /// The configuration after defaults, for people and for later commands.
    pub config: serde_json::Value,
}

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Runs the control plane, etcd included.
    ControlPlane,
    /// Runs workloads only.
    Worker,
    /// Spreads API connections over several control planes.
    ExternalLoadBalancer,
}

impl NodeRole {
    /// The role as kind writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::ExternalLoadBalancer => "external-load-balancer",
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// What is known about a node: `clusters/NAME/nodes/NODE/node.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The layout's version, [`SCHEMA`].
    pub schema: u32,
    /// The node's name, which is also its host name.
    pub name: String,
    /// What the node is for.
    pub role: NodeRole,
    /// The node's image, as it was asked for.
    pub image: String,
    /// The layers of its root, topmost first, in the image store.
    pub layers: Vec<PathBuf>,
    /// How the node is wired; the same after every restart.
    pub endpoint: kiln_network::Endpoint,
    /// The node's init; `None` until it is started.
    pub process: Option<kiln_runtime::Process>,
}

/// Writes a cluster's record, and its directory when it is missing. The caller holds the cluster's lock.
///
/// # Errors
/// [`Error::InvalidName`], or [`Error::File`] when the disk refuses.
pub fn save_cluster(paths: &Paths, record: &ClusterRecord) -> Result<()> {
    validate_cluster_name(&record.name)?;
    write_json(&cluster_file(paths, &record.name), record)
}

/// Reads a cluster's record; `None` when there is none: either there is no such cluster, or its creation was killed
/// before the record was written, which [`cluster_exists`] tells.
///
/// # Errors
/// [`Error::StateSchema`] for a record of a later Kiln, [`Error::Damaged`] for one that cannot be understood.
pub fn load_cluster(paths: &Paths, name: &str) -> Result<Option<ClusterRecord>> {
    validate_cluster_name(name)?;
    load(&cluster_file(paths, name))
}

/// Whether anything of a cluster is there, however little.
///
/// # Errors
/// [`Error::InvalidName`].
pub fn cluster_exists(paths: &Paths, name: &str) -> Result<bool> {
    validate_cluster_name(name)?;
    // A link that leads nowhere is what a removal leaves that was killed at the end.
    let link = || paths.clusters().join(name).is_symlink();
    Ok(paths.cluster(name).exists() || paths.cluster_run(name).exists() || link())
}

/// The names of all clusters, sorted. One whose making or removal was killed counts, so that it can be removed.
///
/// # Errors
/// [`Error::File`] when a directory cannot be read.
pub fn cluster_names(paths: &Paths) -> Result<Vec<String>> {
    let mut names: BTreeSet<String> = entries(&paths.clusters(), |kind| kind.is_dir() || kind.is_symlink())?;
    names.extend(directories(&paths.run().join("clusters"))?);
    Ok(names.into_iter().filter(|name| validate_cluster_name(name).is_ok()).collect())
}

/// Removes what both roots have of a cluster: its record last, so that a removal that was killed can be repeated.
/// The caller holds the cluster's lock and has stopped its nodes.
///
/// # Errors
/// [`Error::File`] when something cannot be removed.
pub fn remove_cluster(paths: &Paths, name: &str) -> Result<()> {
    validate_cluster_name(name)?;
    for directory in [paths.cluster_run(name), paths.cluster(name).join("nodes"), paths.cluster(name)] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::File { what: "remove a cluster's state", source });
            }
            Ok(()) => {}
        }
    }
    unlink_standby(paths, name)
}

/// Writes a node's record, and its directory when it is missing. The caller holds the cluster's lock.
///
/// # Errors
/// [`Error::InvalidName`], or [`Error::File`] when the disk refuses.
pub fn save_node(paths: &Paths, cluster: &str, record: &NodeRecord) -> Result<()> {
    validate_cluster_name(cluster)?;
    validate_cluster_name(&record.name)?;
    write_json(&node_file(paths, cluster, &record.name), record)
}

/// Reads a node's record; `None` when there is none.
///
/// # Errors
/// As [`load_cluster`].
pub fn load_node(paths: &Paths, cluster: &str, node: &str) -> Result<Option<NodeRecord>> {
    validate_cluster_name(cluster)?;
    validate_cluster_name(node)?;
    load(&node_file(paths, cluster, node))
}

/// The records of a cluster's nodes, in the order of [`node_names`]. A node without a record yet is left out.
///
/// # Errors
/// As [`load_cluster`].
pub fn load_nodes(paths: &Paths, cluster: &str) -> Result<Vec<NodeRecord>> {
    let mut nodes = Vec::new();
    for name in node_names(paths, cluster)? {
        nodes.extend(load_node(paths, cluster, &name)?);
    }
    Ok(nodes)
}

/// The names of a cluster's nodes, sorted with numbers by value (`worker`, `worker2`, `worker10`); empty when there is
/// no such cluster. A node whose making was killed counts.
///
/// # Errors
/// [`Error::InvalidName`], or [`Error::File`] when a directory cannot be read.
pub fn node_names(paths: &Paths, cluster: &str) -> Result<Vec<String>> {
    validate_cluster_name(cluster)?;
    let mut names: BTreeSet<String> =
        directories(&paths.cluster(cluster).join("nodes"))?.into_iter().collect();
    names.extend(directories(&paths.cluster_run(cluster))?);
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_by(|left, right| compare_node_names(left, right));
    Ok(names)
}

fn cluster_file(paths: &Paths, name: &str) -> PathBuf {
    paths.cluster(name).join("cluster.json")
}

fn node_file(paths: &Paths, cluster: &str, node: &str) -> PathBuf {
    paths.node(cluster, node).join("node.json")
}

pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    // The version first: a later layout may lack what this one requires, and "damaged" would be the wrong word for it.
    let Some(value) = read_json::<serde_json::Value>(path)? else {
        return Ok(None);
    };
    if let Some(found) = value.get("schema").and_then(serde_json::Value::as_u64)
        && found > u64::from(SCHEMA)
    {
        return Err(Error::StateSchema { path: path.to_owned(), found, supported: SCHEMA });
    }
    serde_json::from_value(value)
        .map(Some)
        .map_err(|source| Error::Damaged { path: path.to_owned(), source: Box::new(source) })
}

/// The names of the directories in `path`; none when it does not exist.
pub(super) fn directories(path: &Path) -> Result<Vec<String>> {
    Ok(entries(path, |kind| kind.is_dir())?.into_iter().collect())
}

/// The names of what is in `path` and of that kind; none when it does not exist.
fn entries(path: &Path, wanted: impl Fn(FileType) -> bool) -> Result<BTreeSet<String>> {
    let failed = |source| Error::File { what: "list the state", source };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // Kiln's names are ASCII: anything else was put there by somebody else.
        if wanted(entry.file_type().map_err(failed)?)
            && let Ok(name) = entry.file_name().into_string()
        {
            names.insert(name);
        }
    }
    Ok(names)
}

fn compare_node_names(left: &str, right: &str) -> Ordering {
    fn split(name: &str) -> (&str, u64) {
        let stem = name.trim_end_matches(|character: char| character.is_ascii_digit());
        (stem, name[stem.len()..].parse().unwrap_or(0))
    }
    split(left).cmp(&split(right)).then_with(|| left.cmp(right))
}

#[cfg(test)]
impl NodeRecord {
    /// A control plane that does not run, for tests to change.
    pub(crate) fn example(name: &str) -> Self {
        Self {
            schema: SCHEMA,
            name: name.to_owned(),
            role: NodeRole::ControlPlane,
            image: "kiln/node:v1.34.4".to_owned(),
            layers: vec![PathBuf::from("/var/lib/kiln/images/layers/aa/fs")],
            endpoint: kiln_network::Endpoint {
                node: name.to_owned(),
                link: "kn0a1b2c3d".to_owned(),
                mac: [2, 0, 0, 0, 0, 1],
                ipv4: Some("172.30.0.2".parse().unwrap()),
                ipv6: None,
            },
            process: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(directory: &tempfile::TempDir) -> Paths {
        Paths::new(directory.path().join("state"), directory.path().join("run"))
    }

    fn cluster(name: &str) -> ClusterRecord {
        ClusterRecord {
            schema: SCHEMA,
            name: name.to_owned(),
            created: "2026-11-23T13:00:00Z".parse().unwrap(),
            image: "kiln/node:v1.34.4".to_owned(),
            kubernetes_version: "v1.34.4".to_owned(),
            network: kiln_network::Network {
                cluster: name.to_owned(),
                bridge: "kiln-a".to_owned(),
                ipv4: Some("172.30.0.0/24".parse().unwrap()),
                ipv6: None,
                mtu: 1500,
            },
            ports: Vec::new(),
            api: "127.0.0.1:40001".parse().unwrap(),
            phase: Phase::Creating,
            config: json!({"nodes": [{"role": "control-plane"}]}),
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        assert_eq!(load_cluster(&paths, "a").unwrap(), None);
        assert!(!cluster_exists(&paths, "a").unwrap());
        save_cluster(&paths, &cluster("a")).unwrap();
        save_node(&paths, "a", &NodeRecord::example("a-control-plane")).unwrap();
        assert_eq!(load_cluster(&paths, "a").unwrap(), Some(cluster("a")));
        assert_eq!(
            load_node(&paths, "a", "a-control-plane").unwrap(),
            Some(NodeRecord::example("a-control-plane"))
        );
        assert_eq!(load_nodes(&paths, "a").unwrap(), [NodeRecord::example("a-control-plane")]);
        assert!(cluster_exists(&paths, "a").unwrap());
    }

    #[test]
    fn half_made_clusters_are_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        assert!(cluster_names(&paths).unwrap().is_empty());
        save_cluster(&paths, &cluster("b")).unwrap();
        fs::create_dir_all(paths.cluster("a")).unwrap();
        fs::create_dir_all(paths.node_run("c", "c-control-plane")).unwrap();
        fs::create_dir_all(paths.cluster("Not-a-name")).unwrap();
        fs::write(paths.clusters().join("file"), "").unwrap();
        assert_eq!(cluster_names(&paths).unwrap(), ["a", "b", "c"]);
        assert_eq!(load_cluster(&paths, "a").unwrap(), None);
        assert_eq!(node_names(&paths, "c").unwrap(), ["c-control-plane"]);
        for name in ["a", "b", "c"] {
            remove_cluster(&paths, name).unwrap();
            remove_cluster(&paths, name).unwrap();
            assert!(!cluster_exists(&paths, name).unwrap());
        }
        assert!(cluster_names(&paths).unwrap().is_empty());
    }

    #[test]
    fn nodes_are_sorted_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        for name in ["worker10", "control-plane", "worker", "worker2", "control-plane2"] {
            fs::create_dir_all(paths.node("a", name)).unwrap();
        }
        assert_eq!(
            node_names(&paths, "a").unwrap(),
            ["control-plane", "control-plane2", "worker", "worker2", "worker10"]
        );
        assert!(load_nodes(&paths, "a").unwrap().is_empty(), "none has a record yet");
    }

    #[test]
    fn a_later_layout_and_damage_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        save_cluster(&paths, &cluster("a")).unwrap();
        let file = paths.cluster("a").join("cluster.json");

        fs::write(&file, r#"{"schema": 2, "name": "a"}"#).unwrap();
        let error = load_cluster(&paths, "a").unwrap_err();
        assert!(matches!(error, Error::StateSchema { found: 2, supported: SCHEMA, .. }), "{error:?}");

        for damaged in ["", "{", r#"{"schema": 1, "name": "a"}"#, r#"{"name": "a"}"#, "[]"] {
            fs::write(&file, damaged).unwrap();
            let error = load_cluster(&paths, "a").unwrap_err();
            assert!(matches!(&error, Error::Damaged { path, .. } if *path == file), "{damaged}: {error:?}");
        }
        // However damaged, it can be removed.
        assert_eq!(cluster_names(&paths).unwrap(), ["a"]);
        remove_cluster(&paths, "a").unwrap();
    }

    #[test]
    fn names_stay_inside_the_state_root() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        assert!(remove_cluster(&paths, "..").is_err());
        assert!(load_cluster(&paths, "../a").is_err());
        assert!(load_node(&paths, "a", "../b").is_err());
        assert!(save_node(&paths, "a", &NodeRecord::example("../b")).is_err());
    }

    #[test]
    fn the_layout_is_stable() {
        // Changing this text means changing `SCHEMA`.
        insta::assert_snapshot!(serde_json::to_string(&cluster("a")).unwrap(), @r#"{"schema":1,"name":"a","created":"2026-11-23T13:00:00Z","image":"kiln/node:v1.34.4","kubernetes_version":"v1.34.4","network":{"cluster":"a","bridge":"kiln-a","ipv4":"172.30.0.0/24","ipv6":null,"mtu":1500},"ports":[],"api":"127.0.0.1:40001","phase":"creating","config":{"nodes":[{"role":"control-plane"}]}}"#);
    }
}
