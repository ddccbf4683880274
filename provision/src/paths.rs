//! Where everything lives: the state root survives a reboot, the run root does not.

use std::path::{Path, PathBuf};

/// The directories of one installation. Two installations with different roots share nothing but the kernel.
///
/// A cluster that was booted ahead lives in the pool, under a name of its own that is no cluster's: its *handle*. That is
/// also what the kernel knows it by: its control groups, bridge and tables cannot be renamed. When it is taken, a link
/// among the clusters leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    run: PathBuf,
    /// Of one cluster, the standby that is meant by its name.
    standby: Option<(String, String)>,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new(PathBuf::from("/var/lib/kiln"), PathBuf::from("/run/kiln"))
    }
}

impl Paths {
    /// Roots for state (disk) and run-time data (memory). Both are absolute.
    #[must_use]
    pub fn new(state: PathBuf, run: PathBuf) -> Self {
        Self { state, run, standby: None }
    }

    /// The same, but the cluster's name means the standby with this handle.
    #[must_use]
    pub fn with_standby(&self, cluster: &str, handle: &str) -> Self {
        Self { standby: Some((cluster.to_owned(), handle.to_owned())), ..self.clone() }
    }

    /// What the kernel knows a cluster by: its name, or that of the standby it was.
    #[must_use]
    pub fn handle(&self, cluster: &str) -> String {
        self.standby_of(cluster).unwrap_or_else(|| cluster.to_owned())
    }

    /// The standby that is meant by a cluster's name, which is not that cluster yet.
    pub(crate) fn meant_standby(&self, cluster: &str) -> Option<&str> {
        self.standby.as_ref().filter(|(meant, _)| meant == cluster).map(|(_, handle)| handle.as_str())
    }

    fn standby_of(&self, cluster: &str) -> Option<String> {
        if let Some(handle) = self.meant_standby(cluster) {
            return Some(handle.to_owned());
        }
        let target = fs_err::read_link(self.clusters().join(cluster)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// What survives a reboot: images, layers, clusters.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What does not: bundles, sockets.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Image blobs, unpacked layers and the index of image names.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// How registries are reached: a directory for each, with a `hosts.toml` as containerd has it.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.state.join("certs.d")
    }

    /// Intermediate results of image builds, keyed by their recipe.
    #[must_use]
    pub fn build_cache(&self) -> PathBuf {
        self.state.join("build")
    }

    /// What later clusters of an image and configuration begin with: one file for each.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.state.join("templates")
    }

    /// One directory per cluster.
    #[must_use]
    pub fn clusters(&self) -> PathBuf {
        self.state.join("clusters")
    }

    /// The state of one cluster: `cluster.json` and `nodes/`.
    #[must_use]
    pub fn cluster(&self, cluster: &str) -> PathBuf {
        match self.standby_of(cluster) {
            Some(handle) => self.pool().join(handle),
            None => self.clusters().join(cluster),
        }
    }

    /// One directory per cluster that was booted ahead.
    #[must_use]
    pub fn pool(&self) -> PathBuf {
        self.state.join("pool")
    }

    /// The state of one node: its record, upper directory, `/var`, console log.
    #[must_use]
    pub fn node(&self, cluster: &str, node: &str) -> PathBuf {
        self.cluster(cluster).join("nodes").join(node)
    }

    /// The run-time directory of one cluster.
    #[must_use]
    pub fn cluster_run(&self, cluster: &str) -> PathBuf {
        match self.standby_of(cluster) {
            Some(handle) => self.run.join("pool").join(handle),
            None => self.run.join("clusters").join(cluster),
        }
    }

    /// The run-time directory of one node: bundle, sockets.
    #[must_use]
    pub fn node_run(&self, cluster: &str, node: &str) -> PathBuf {
        self.cluster_run(cluster).join(node)
    }

    /// One directory per registry.
    #[must_use]
    pub fn registries(&self) -> PathBuf {
        self.state.join("registries")
    }

    /// The state of one registry: `registry.json`, what its container changes, console log.
    #[must_use]
    pub fn registry(&self, registry: &str) -> PathBuf {
        self.registries().join(registry)
    }

    /// The images in one registry; they may outlive it.
    #[must_use]
    pub fn registry_data(&self, registry: &str) -> PathBuf {
        self.state.join("registry-data").join(registry)
    }

    /// The run-time directory of one registry: bundle, sockets.
    #[must_use]
    pub fn registry_run(&self, registry: &str) -> PathBuf {
        self.run.join("registries").join(registry)
    }

    /// Locks: one file for what is shared by all clusters, one per cluster.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }
}
