//! The clusters that were booted ahead.

use jiff::Timestamp;
use kiln_runtime::Process;

use super::super::{node, own_bytes};
use crate::{
    Paths, Result,
    state::{self, Standby},
};

/// What can be done with a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyState {
    /// It can be taken.
    Frozen,
    /// It is being booted, taken or removed.
    Changing,
    /// Its making or removal was killed, or a node has ended: it can only be removed.
    Broken,
}

impl StandbyState {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Changing => "changing",
            Self::Broken => "broken",
        }
    }
}

/// A standby as it is now.
#[derive(Clone, Debug)]
pub struct StandbyStatus {
    /// Which it is.
    pub standby: Standby,
    /// What can be done with it.
    pub state: StandbyState,
    /// The node image, as it was asked for.
    pub image: Option<String>,
    /// The version of Kubernetes.
    pub kubernetes_version: Option<String>,
    /// The names of its nodes.
    pub nodes: Vec<String>,
    /// When it was frozen.
    pub frozen: Option<Timestamp>,
    /// How long it took to boot, in seconds.
    pub boot_seconds: Option<f64>,
    /// Memory that its processes hold, in bytes, page cache included.
    pub memory_bytes: u64,
    /// What would be free on the disk without it, in bytes.
    pub disk_bytes: u64,
}

/// All standbys, by name and number.
///
/// # Errors
/// [`crate::Error::File`] when a directory cannot be read.
pub fn pool(paths: &Paths) -> Result<Vec<StandbyStatus>> {
    state::standbys(paths)?.into_iter().map(|standby| status(paths, standby)).collect()
}

fn status(paths: &Paths, standby: Standby) -> Result<StandbyStatus> {
    let (ahead, name) = (standby.paths(paths), standby.cluster.clone());
    let record = state::load_standby(paths, &standby).ok().flatten();
    let cluster = state::load_cluster(&ahead, &name).ok().flatten();
    let nodes = state::node_names(&ahead, &name)?;
    let state = if state::is_locked(&ahead, &name)? {
        StandbyState::Changing
    } else if record.is_some() && is_alive(paths, &standby) {
        StandbyState::Frozen
    } else {
        StandbyState::Broken
    };
    let used = nodes.iter().filter_map(|node| node::cgroup(&ahead, &name, node).usage().ok());
    Ok(StandbyStatus {
        state,
        image: cluster.as_ref().map(|cluster| cluster.image.clone()),
        kubernetes_version: cluster.map(|cluster| cluster.kubernetes_version),
        memory_bytes: used.map(|usage| usage.memory_bytes).sum(),
        disk_bytes: own_bytes(&ahead.cluster(&name)).unwrap_or_default(),
        nodes,
        frozen: record.as_ref().map(|record| record.frozen),
        boot_seconds: record.map(|record| record.boot_seconds),
        standby,
    })
}

/// Whether all nodes run, frozen as they are.
pub(super) fn is_alive(paths: &Paths, standby: &Standby) -> bool {
    let records = state::load_nodes(&standby.paths(paths), &standby.cluster);
    records.is_ok_and(|records| {
        let alive = |process: &Option<Process>| process.as_ref().is_some_and(Process::is_alive);
        !records.is_empty() && records.iter().all(|record| alive(&record.process))
    })
}
