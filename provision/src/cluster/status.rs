//! How a cluster is: whole, on its way, or broken.

use std::net::SocketAddr;

use jiff::Timestamp;
use kiln_network::Network;
use serde::Serialize;

use super::query::{NodeState, NodeStatus, nodes};
use crate::{
    Error, Paths, Result,
    state::{self, Phase},
};

/// Whether a cluster can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterState {
    /// It is being made.
    Creating,
    /// It was made, and all its nodes run.
    Ready,
    /// It is being removed.
    Deleting,
    /// Something is missing; [`ClusterStatus::problem`] says what.
    Broken,
}

impl ClusterState {
    /// The state as listings have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Broken => "broken",
        }
    }
}

/// A cluster as it is now. What is `None` is not known, because the cluster's record is not there or cannot be read.
#[derive(Clone, Debug, Serialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub name: String,
    /// Whether it can be used.
    pub state: ClusterState,
    /// Why it is broken: lower case, no period.
    pub problem: Option<String>,
    /// When its creation began.
    pub created: Option<Timestamp>,
    /// The version of Kubernetes in its first node's image.
    pub kubernetes_version: Option<String>,
    /// That image.
    pub image: Option<String>,
    /// Where its API answers on the host.
    pub api: Option<SocketAddr>,
    /// Its network on the host.
    pub network: Option<Network>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
}

/// Looks at a cluster. One that is damaged is described as far as it can be.
///
/// # Errors
/// [`Error::InvalidName`], or [`Error::File`] when the state cannot be read at all.
pub fn cluster_status(paths: &Paths, name: &str) -> Result<ClusterStatus> {
    let mut status = ClusterStatus {
        name: name.to_owned(),
        state: ClusterState::Broken,
        problem: None,
        created: None,
        kubernetes_version: None,
        image: None,
        api: None,
        network: None,
        nodes: Vec::new(),
    };
    let record = state::load_cluster(paths, name).and_then(|record| {
        status.nodes = nodes(paths, name)?;
        Ok(record)
    });
    let record = match record {
        Ok(Some(record)) => record,
        // The record is the first thing that is written, and the last that is removed.
        Ok(None) if state::is_locked(paths, name)? => {
            status.state = ClusterState::Creating;
            return Ok(status);
        }
        Ok(None) => {
            status.problem = Some("its creation was interrupted".to_owned());
            return Ok(status);
        }
        Err(error @ (Error::Damaged { .. } | Error::StateSchema { .. })) => {
            status.problem = Some(error.to_string());
            return Ok(status);
        }
        Err(error) => return Err(error),
    };
    (status.state, status.problem) = judge(record.phase, || state::is_locked(paths, name), &status.nodes)?;
    status.created = Some(record.created);
    status.kubernetes_version = Some(record.kubernetes_version);
    status.image = Some(record.image);
    status.api = Some(record.api);
    status.network = Some(record.network);
    Ok(status)
}

/// What a phase means, depending on whether anybody is at work on the cluster and on its nodes.
fn judge(
    phase: Phase,
    is_locked: impl FnOnce() -> Result<bool>,
    nodes: &[NodeStatus],
) -> Result<(ClusterState, Option<String>)> {
    let at_work = |state, interrupted: &str| {
        let locked = is_locked()?;
        Ok(if locked { (state, None) } else { (ClusterState::Broken, Some(interrupted.to_owned())) })
    };
    match phase {
        Phase::Creating => at_work(ClusterState::Creating, "its creation was interrupted"),
        Phase::Deleting => at_work(ClusterState::Deleting, "its removal was interrupted"),
        Phase::Ready => {
            let ended = nodes.iter().filter(|node| node.state != NodeState::Running);
            let ended: Vec<&str> = ended.map(|node| node.name.as_str()).collect();
            Ok(match ended.as_slice() {
                [] => (ClusterState::Ready, None),
                ended => (ClusterState::Broken, Some(format!("not running: {}", ended.join(", ")))),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::NodeRole;

    fn node(name: &str, state: NodeState) -> NodeStatus {
        NodeStatus {
            name: name.to_owned(),
            cluster: "c".to_owned(),
            role: NodeRole::Worker,
            state,
            pid: None,
            exit: None,
            image: String::new(),
            ipv4: None,
            ipv6: None,
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_cluster_is_ready_when_all_of_it_runs() {
        let whole = [node("a", NodeState::Running), node("b", NodeState::Running)];
        let free = || Ok(false);
        assert_eq!(judge(Phase::Ready, free, &whole).unwrap(), (ClusterState::Ready, None));
        let half = [node("a", NodeState::Running), node("b", NodeState::Exited)];
        let (state, problem) = judge(Phase::Ready, free, &half).unwrap();
        assert_eq!((state, problem.as_deref()), (ClusterState::Broken, Some("not running: b")));
    }

    #[test]
    fn what_nobody_works_on_was_interrupted() {
        assert_eq!(judge(Phase::Creating, || Ok(true), &[]).unwrap(), (ClusterState::Creating, None));
        assert_eq!(judge(Phase::Deleting, || Ok(true), &[]).unwrap(), (ClusterState::Deleting, None));
        for phase in [Phase::Creating, Phase::Deleting] {
            let (state, problem) = judge(phase, || Ok(false), &[]).unwrap();
            assert_eq!(state, ClusterState::Broken);
            assert!(problem.unwrap().ends_with("was interrupted"));
        }
    }

    #[test]
    fn damage_is_described_and_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        fs_err::create_dir_all(paths.node("c", "c-worker")).unwrap();
        let status = cluster_status(&paths, "c").unwrap();
        assert_eq!(status.problem.as_deref(), Some("its creation was interrupted"));
        let lock = state::try_cluster_lock(&paths, "c").unwrap();
        assert_eq!(cluster_status(&paths, "c").unwrap().state, ClusterState::Creating);
        drop(lock);
        fs_err::write(paths.cluster("c").join("cluster.json"), "{").unwrap();
        let status = cluster_status(&paths, "c").unwrap();
        assert_eq!(status.state, ClusterState::Broken);
        assert!(status.problem.unwrap().contains("cluster.json"));
    }
}
