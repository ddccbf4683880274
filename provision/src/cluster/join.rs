//! Bringing more nodes into a cluster that has one.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
};

use futures_util::future::{maybe_done, try_join_all};

use super::{bootstrap, controllers, create::phase, inside, node::StartedNode};
use crate::{Paths, Reporter, Result, kubeadm::KubernetesVersion, state::NodeRole};

/// What the control planes of a cluster must have in common, as kubeadm lays it out in `/etc/kubernetes/pki`; each makes
/// the rest for itself.
const KEYS: [&str; 8] = [
    "ca.crt",
    "ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "sa.pub",
    "sa.key",
    "etcd/ca.crt",
    "etcd/ca.key",
];

const PKI: &str = "/etc/kubernetes/pki";

/// The first minor version whose kubeadm is made for control planes that join at the same time: new members of etcd
/// join as learners, and one that finds the learners' places taken tries again (kubeadm's EtcdLearnerMode, beta in 1.29).
const PARALLEL_SINCE: u32 = 29;

/// Joins all other nodes side by side, and shows it in kind's two phases. `network` is made meanwhile: nodes get their pod
/// ranges while others still join.
///
/// # Errors
/// What failed first, on the node that it names.
pub(super) async fn join_all(
    paths: &Paths,
    cluster: &str,
    nodes: &[StartedNode],
    network: impl Future<Output = Result<()>>,
    reporter: &dyn Reporter,
) -> Result<()> {
    let join = |node: &StartedNode| {
        let log = bootstrap::log_path(&paths.node(cluster, &node.plan.name));
        let (name, process) = (node.plan.name.clone(), node.process.clone());
        async move { bootstrap::join(&name, &process, &log, reporter).await }
    };
    let of = |role| nodes.iter().filter(move |node| node.plan.role == role && !node.plan.first);
    let mut network = pin!(maybe_done(network));
    let mut workers = pin!(maybe_done(try_join_all(of(NodeRole::Worker).map(join))));

    if of(NodeRole::ControlPlane).next().is_some() {
        let joins = async {
            share_keys(nodes)?;
            if joins_in_parallel(nodes) {
                return try_join_all(of(NodeRole::ControlPlane).map(join)).await.map(drop);
            }
            for node in of(NodeRole::ControlPlane) {
                join(node).await?;
            }
            Ok(())
        };
        // Workers join at the same time; what becomes of them is told in their own phase.
        let joins = beside(joins, [workers.as_mut(), network.as_mut()]);
        phase(reporter, "Joining more control-plane nodes 🎮", joins).await?;
    }
    let finish = async {
        beside(workers.as_mut(), [network.as_mut()]).await;
        workers.as_mut().take_output().transpose()?;
        reporter.step("waiting for the nodes' pod ranges");
        let rest = async {
            network.as_mut().await;
            network.as_mut().take_output().unwrap_or(Ok(()))
        };
        controllers::bounded(rest, reporter).await
    };
    if of(NodeRole::Worker).next().is_some() {
        phase(reporter, "Joining worker nodes 🚜", finish).await
    } else {
        finish.await
    }
}

/// Drives `work` to its end, and others as far as they get meanwhile.
async fn beside<T, const N: usize>(
    work: impl Future<Output = T>,
    mut others: [Pin<&mut dyn Future<Output = ()>>; N],
) -> T {
    let mut work = pin!(work);
    // `MaybeDone` may be polled after its end.
    poll_fn(|context| {
        for other in &mut others {
            let _ = other.as_mut().poll(context);
        }
        work.as_mut().poll(context)
    })
    .await
}

fn joins_in_parallel(nodes: &[StartedNode]) -> bool {
    nodes.iter().all(|node| {
        let version: Result<KubernetesVersion> = node.plan.kubernetes_version.parse();
        version.is_ok_and(|version| version.at_least(PARALLEL_SINCE))
    })
}

/// Copies the keys of the cluster from its first node to the other control planes.
fn share_keys(nodes: &[StartedNode]) -> Result<()> {
    let Some(first) = nodes.iter().find(|node| node.plan.first) else {
        return Ok(());
    };
    for file in KEYS {
        let path = format!("{PKI}/{file}");
        let content = inside::read(&first.process, &first.plan.name, &path)?;
        let others = nodes.iter().filter(|node| node.plan.role == NodeRole::ControlPlane && !node.plan.first);
        for node in others {
            inside::write_private(&node.process, &node.plan.name, &path, &content)?;
        }
    }
    Ok(())
}
