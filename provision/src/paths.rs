//! Where everything lives: the state root survives a reboot, the run root does not.

use std::path::{Path, PathBuf};

/// The directories of one installation. Two installations with different roots share nothing but the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: PathBuf::from("/var/lib/kiln"), run: PathBuf::from("/run/kiln") }
    }
}

impl Paths {
    /// Roots for state (disk) and run-time data (memory). Both are absolute.
    #[must_use]
    pub fn new(state: PathBuf, run: PathBuf) -> Self {
        Self { state, run }
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
        self.clusters().join(cluster)
    }

    /// The state of one node: its record, upper directory, `/var`, console log.
    #[must_use]
    pub fn node(&self, cluster: &str, node: &str) -> PathBuf {
        self.cluster(cluster).join("nodes").join(node)
    }

    /// The run-time directory of one cluster.
    #[must_use]
    pub fn cluster_run(&self, cluster: &str) -> PathBuf {
        self.run.join("clusters").join(cluster)
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
