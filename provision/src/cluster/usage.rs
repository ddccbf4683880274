//! What nodes use of the host, now.

use std::{
    thread,
    time::{Duration, Instant},
};

use kiln_runtime::CgroupUsage;
use serde::Serialize;

use super::{NodeState, NodeStatus, disk::own_bytes, node, nodes};
use crate::{Paths, Result};

/// What a node uses. Without a value: the node does not run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeUsage {
    /// The node's name.
    pub name: String,
    /// The cluster it belongs to.
    pub cluster: String,
    /// Whether it runs.
    pub state: NodeState,
    /// Processors that it kept busy, on average over the interval.
    pub cpu_cores: Option<f64>,
    /// Memory that cannot be taken from it at once, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory with all of the page cache that it has filled, in bytes.
    pub memory_with_cache_bytes: Option<u64>,
    /// Its processes and threads.
    pub pids: Option<u64>,
    /// Bytes on the disk that are its own: what it shares with the image store does not count.
    pub disk_bytes: u64,
}

/// What the nodes of clusters use, the processors over `interval`. Blocks for that long.
///
/// # Errors
/// [`Error::Damaged`](crate::Error::Damaged), [`Error::Runtime`](crate::Error::Runtime), or
/// [`Error::File`](crate::Error::File) when a node's files cannot be looked at.
pub fn usage(paths: &Paths, clusters: &[String], interval: Duration) -> Result<Vec<NodeUsage>> {
    let mut all = Vec::new();
    for cluster in clusters {
        all.extend(nodes(paths, cluster)?);
    }
    let before = sample(paths, &all)?;
    // Looking at all files takes a while too, and the nodes' processors do not notice.
    let (after, disks) = thread::scope(|scope| {
        let disks = scope.spawn(|| all.iter().map(|node| disk(paths, node)).collect::<Result<Vec<_>>>());
        thread::sleep(interval);
        (sample(paths, &all), disks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let samples = before.into_iter().zip(after?);
    let measured = all.into_iter().zip(samples).zip(disks?);
    Ok(measured.map(|((node, (before, after)), disk)| of(node, before, after, disk)).collect())
}

/// A node's counters, and when they were read.
type Sample = Option<(Instant, CgroupUsage)>;

fn sample(paths: &Paths, nodes: &[NodeStatus]) -> Result<Vec<Sample>> {
    let sample = |node: &NodeStatus| -> Result<Sample> {
        if node.state != NodeState::Running {
            return Ok(None);
        }
        let usage = node::cgroup(paths, &node.cluster, &node.name).usage()?;
        Ok(Some((Instant::now(), usage)))
    };
    nodes.iter().map(sample).collect()
}

fn of(node: NodeStatus, before: Sample, after: Sample, disk_bytes: u64) -> NodeUsage {
    let cpu_cores = before.zip(after).map(|((begin, before), (end, after))| {
        // A counter that has gone back belongs to a node that has been started anew.
        let busy = after.cpu_microseconds.saturating_sub(before.cpu_microseconds);
        Duration::from_micros(busy).as_secs_f64() / end.duration_since(begin).as_secs_f64().max(1e-6)
    });
    let now = after.map(|(_, usage)| usage);
    NodeUsage {
        name: node.name,
        cluster: node.cluster,
        state: node.state,
        cpu_cores,
        memory_bytes: now.map(|usage| usage.working_set_bytes),
        memory_with_cache_bytes: now.map(|usage| usage.memory_bytes),
        pids: now.map(|usage| usage.pids),
        disk_bytes,
    }
}

fn disk(paths: &Paths, node: &NodeStatus) -> Result<u64> {
    own_bytes(&paths.node(&node.cluster, &node.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::NodeRole;

    fn node(state: NodeState) -> NodeStatus {
        NodeStatus {
            name: "c-worker".to_owned(),
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
    fn processors_are_an_average_over_the_time_that_passed() {
        let counters = |cpu_microseconds, pids| CgroupUsage {
            cpu_microseconds,
            memory_bytes: 300,
            working_set_bytes: 200,
            pids,
            oom_kills: 0,
        };
        let begin = Instant::now();
        let end = begin + Duration::from_secs(2);
        let (before, after) = (Some((begin, counters(1_000_000, 5))), Some((end, counters(4_000_000, 7))));
        let usage = of(node(NodeState::Running), before, after, 9);
        assert_eq!(usage.cpu_cores, Some(1.5));
        assert_eq!((usage.memory_bytes, usage.memory_with_cache_bytes), (Some(200), Some(300)));
        assert_eq!((usage.pids, usage.disk_bytes), (Some(7), 9));
        assert_eq!(of(node(NodeState::Running), after, before, 0).cpu_cores, Some(0.0));
        let usage = of(node(NodeState::Exited), None, None, 9);
        assert_eq!((usage.cpu_cores, usage.memory_bytes, usage.pids), (None, None, None));
    }
}
