//! Clusters that were booted ahead of being asked for: `pool/CLUSTER_NUMBER`.
//!
//! Each is laid out as a cluster is. The underscore, which no name of a cluster has, keeps the two apart. One that is
//! taken stays where it is, and `clusters/CLUSTER` becomes a link to it: that takes one step, so that a run killed at any
//! time leaves either a standby or a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    os::unix::fs::symlink,
    path::Path,
};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    SCHEMA,
    record::{directories, load},
    remove_if_exists, validate_cluster_name, write_json,
};
use crate::{Error, Paths, Result};

/// One of the clusters that are to become the cluster of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standby {
    /// The name of the cluster that it may become.
    pub cluster: String,
    /// Tells those of one name apart; from 1.
    pub number: u32,
}

impl Standby {
    /// Its directory's name, and what the kernel knows it by.
    #[must_use]
    pub fn handle(&self) -> String {
        format!("{}_{}", self.cluster, self.number)
    }

    /// Where everything is of it, by the name of the cluster that it may become.
    #[must_use]
    pub fn paths(&self, paths: &Paths) -> Paths {
        paths.with_standby(&self.cluster, &self.handle())
    }

    fn parse(handle: &str) -> Option<Self> {
        let (cluster, number) = handle.rsplit_once('_')?;
        validate_cluster_name(cluster).ok()?;
        let standby = Self { cluster: cluster.to_owned(), number: number.parse().ok()? };
        (standby.handle() == handle).then_some(standby)
    }
}

impl fmt::Display for Standby {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "standby {} of cluster {}", self.number, self.cluster)
    }
}

/// What a cluster was asked to be. One that is asked for later can be a standby only if all of it is the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandbyRequest {
    /// The configuration after defaults.
    pub config: serde_json::Value,
    /// The digests of the images of the nodes, in their order.
    pub images: Vec<String>,
    /// Who makes the pod network, and how the control plane is made.
    pub made_by: [String; 2],
    /// The variables that lead the nodes to a proxy.
    pub outbound: Vec<String>,
    /// What stands for the patches that kubeadm finds in mounts, by the nodes' order.
    #[serde(default)]
    pub patches: Vec<Option<String>>,
}

/// What is known about a standby: `pool/CLUSTER_NUMBER/standby.json`. One without it is not finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandbyRecord {
    /// The layout's version, [`SCHEMA`].
    pub schema: u32,
    /// When it was frozen.
    pub frozen: Timestamp,
    /// How long it took to boot, in seconds.
    pub boot_seconds: f64,
    /// What it was made for.
    pub request: StandbyRequest,
    /// When kubelet last reported on each node, where it was stopped before it was frozen; `None` where it was frozen with the rest.
    pub reports: Option<Reports>,
}

/// When kubelet last reported on each node, in whole seconds, as it writes it.
pub type Reports = BTreeMap<String, Timestamp>;

impl StandbyRecord {
    /// A record of one that is frozen now.
    #[must_use]
    pub fn new(boot_seconds: f64, request: StandbyRequest, reports: Option<Reports>) -> Self {
        Self { schema: SCHEMA, frozen: Timestamp::now(), boot_seconds, request, reports }
    }
}

/// All standbys, by name and number. One whose making or removal was killed counts; one that has been taken does not.
///
/// # Errors
/// [`Error::File`] when a directory cannot be read.
pub fn standbys(paths: &Paths) -> Result<Vec<Standby>> {
    let mut found: BTreeSet<Standby> =
        directories(&paths.pool())?.iter().filter_map(|name| Standby::parse(name)).collect();
    found.extend(directories(&paths.run().join("pool"))?.iter().filter_map(|name| Standby::parse(name)));
    Ok(found.into_iter().filter(|standby| !is_taken(paths, standby)).collect())
}

/// Whether the cluster of its name is this one.
fn is_taken(paths: &Paths, standby: &Standby) -> bool {
    let link = fs::read_link(paths.clusters().join(&standby.cluster));
    link.is_ok_and(|target| target.file_name().is_some_and(|name| name == &*standby.handle()))
}

/// Writes a standby's record. The caller holds its lock.
///
/// # Errors
/// [`Error::File`] when the disk refuses.
pub fn save_standby(paths: &Paths, standby: &Standby, record: &StandbyRecord) -> Result<()> {
    write_json(&paths.pool().join(standby.handle()).join(FILE), record)
}

/// Reads a standby's record; `None` when it is not finished.
///
/// # Errors
/// As [`super::load_cluster`].
pub fn load_standby(paths: &Paths, standby: &Standby) -> Result<Option<StandbyRecord>> {
    load(&paths.pool().join(standby.handle()).join(FILE))
}

const FILE: &str = "standby.json";

/// Makes a standby the cluster of its name, which there must not be. The caller holds the locks of both.
///
/// # Errors
/// [`Error::File`] when the disk refuses.
pub fn link_standby(paths: &Paths, standby: &Standby) -> Result<()> {
    let failed = |source| Error::File { what: "make a standby a cluster", source };
    fs::create_dir_all(paths.clusters()).map_err(failed)?;
    symlink(Path::new("../pool").join(standby.handle()), paths.clusters().join(&standby.cluster))
        .map_err(failed)
}

/// Makes the cluster a standby again, or, where that is gone, nothing. A cluster that was none is left alone. The caller
/// holds its lock.
///
/// # Errors
/// [`Error::File`] when the disk refuses.
pub fn unlink_standby(paths: &Paths, cluster: &str) -> Result<()> {
    let link = paths.clusters().join(cluster);
    // What is known by this name is the standby itself, and was never taken.
    if paths.meant_standby(cluster).is_some() || !link.is_symlink() {
        return Ok(());
    }
    remove_if_exists(&link)
        .map_err(|source: io::Error| Error::File { what: "remove a cluster's state", source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{cluster_exists, cluster_names, node_names, remove_cluster};

    fn paths(directory: &tempfile::TempDir) -> Paths {
        Paths::new(directory.path().join("state"), directory.path().join("run"))
    }

    #[test]
    fn a_standby_is_told_from_everything_else_by_its_handle() {
        let standby = Standby { cluster: "a.b-c".to_owned(), number: 12 };
        assert_eq!(standby.handle(), "a.b-c_12");
        assert_eq!(Standby::parse("a.b-c_12"), Some(standby));
        for other in ["a", "a_", "_1", "a_01", "a_x", "a_1_2", "A_1", "a_99999999999"] {
            assert_eq!(Standby::parse(other), None, "{other}");
        }
        assert!(validate_cluster_name("a_1").is_err());
    }

    #[test]
    fn what_was_a_standby_is_a_cluster_and_no_standby_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let standby = Standby { cluster: "a".to_owned(), number: 2 };
        let ahead = standby.paths(&paths);
        fs::create_dir_all(ahead.node("a", "a-control-plane")).unwrap();
        fs::create_dir_all(ahead.node_run("a", "a-control-plane")).unwrap();
        assert_eq!(standbys(&paths).unwrap(), std::slice::from_ref(&standby));
        assert!(cluster_names(&paths).unwrap().is_empty() && !cluster_exists(&paths, "a").unwrap());
        assert_eq!(
            (paths.handle("a"), ahead.handle("a"), ahead.handle("b")),
            ("a".into(), "a_2".into(), "b".into())
        );

        link_standby(&paths, &standby).unwrap();
        assert!(standbys(&paths).unwrap().is_empty());
        assert_eq!(cluster_names(&paths).unwrap(), ["a"]);
        assert_eq!(node_names(&paths, "a").unwrap(), ["a-control-plane"]);
        assert_eq!(paths.cluster("a"), ahead.cluster("a"));
        assert_eq!(paths.node_run("a", "a-control-plane"), ahead.node_run("a", "a-control-plane"));

        unlink_standby(&paths, "a").unwrap();
        assert_eq!(standbys(&paths).unwrap(), std::slice::from_ref(&standby));
        link_standby(&paths, &standby).unwrap();
        remove_cluster(&paths, "a").unwrap();
        assert!(!cluster_exists(&paths, "a").unwrap() && standbys(&paths).unwrap().is_empty());
    }

    #[test]
    fn a_removal_that_was_killed_leaves_something_to_remove() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let standby = Standby { cluster: "a".to_owned(), number: 1 };
        fs::create_dir_all(paths.pool().join("a_1")).unwrap();
        link_standby(&paths, &standby).unwrap();
        fs::remove_dir(paths.pool().join("a_1")).unwrap();
        assert!(cluster_exists(&paths, "a").unwrap());
        assert_eq!(cluster_names(&paths).unwrap(), ["a"]);
        remove_cluster(&paths, "a").unwrap();
        assert!(!cluster_exists(&paths, "a").unwrap());
    }

    #[test]
    fn a_cluster_that_never_was_a_standby_is_no_link() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        fs::create_dir_all(paths.cluster("a")).unwrap();
        unlink_standby(&paths, "a").unwrap();
        assert!(cluster_exists(&paths, "a").unwrap());
        let standby = Standby { cluster: "a".to_owned(), number: 1 };
        assert!(link_standby(&paths, &standby).is_err(), "there is a cluster of that name");
        // Removing a standby leaves the cluster of its name alone.
        let ahead = standby.paths(&paths);
        fs::create_dir_all(ahead.cluster("a")).unwrap();
        remove_cluster(&ahead, "a").unwrap();
        assert!(cluster_exists(&paths, "a").unwrap() && standbys(&paths).unwrap().is_empty());
    }
}
