//! Stopping a cluster so that it goes on as if no time had passed.
//!
//! Frozen processes find the clock gone on, and two of a cluster's take that for a failure. kube-controller-manager
//! compares a node's last sign of life with the clock before it has read the next one, and calls the node unreachable; and
//! kubelet calls its node not ready because it has not asked containerd for so long. As Kiln compiles them they look first, and
//! are frozen with the rest. Others are not there while the cluster is frozen: kubelet starts beside containers that run on, and
//! kube-controller-manager from its manifest.

use std::{ops::Range, time::Duration};

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kiln_runtime::Process;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::wait::await_condition,
};

use super::super::{api, blocking::Steps, bootstrap, inside, node};
use crate::{
    Error, Paths, Reporter, Result,
    state::{NodeRecord, NodeRole, Reports},
};

/// Where kubelet finds kube-controller-manager, and where it does not.
const MANIFEST: [&str; 2] = [
    "/etc/kubernetes/manifests/kube-controller-manager.yaml",
    "/etc/kubernetes/kube-controller-manager.yaml.parked",
];

/// How long a cluster's add-ons may take to be ready.
const SETTLED: Duration = Duration::from_secs(120);

/// How long kubelet may take to end kube-controller-manager.
const ENDED: Duration = Duration::from_secs(60);

/// How long ago whoever leads may have said so when it is frozen: it has heard that it does, and it says so every two seconds
/// (`retryPeriod`).
const QUIET: Range<SignedDuration> = SignedDuration::from_millis(200)..SignedDuration::from_millis(1500);

/// How long to wait for such a moment.
const CALM: Duration = Duration::from_secs(10);

const WATCHDOGS_OFF: &str = "systemctl service-watchdogs no";
const WATCHDOGS_ON: &str = "systemctl service-watchdogs yes";
const STOP: &str = "systemctl stop kubelet && systemctl service-watchdogs no";
const START: &str = "systemctl --no-block start kubelet && systemctl service-watchdogs yes";

/// What must be as Kiln compiles it for a node's programs to go on from a stop: kubelet asks containerd before it calls its node not
/// ready, and kube-controller-manager hears of nodes before it calls them unreachable.
const OUTLIVING: [&str; 2] = [
    "k8s.io/kubernetes pkg/kubelet/kubelet_node_status.go",
    "k8s.io/kubernetes pkg/controller/nodelifecycle/node_lifecycle_controller.go",
];

const SYSTEM: &str = "kube-system";
const CONTROLLERS: &str = "kube-controller-manager";

/// Returns when everything that is to run in the cluster does.
///
/// # Errors
/// [`Error::Unsettled`] naming what does not.
pub(super) async fn settled(cluster: &str, client: &Client, reporter: &dyn Reporter) -> Result<()> {
    let deployments = api::all_of::<Deployment>(client, |deployment| {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        ready >= wanted
    });
    let daemon_sets = api::all_of::<DaemonSet>(client, |set| {
        set.status.as_ref().is_some_and(|status| {
            status.desired_number_scheduled > 0 && status.number_ready >= status.desired_number_scheduled
        })
    });
    let nodes = api::all_of::<Node>(client, api::is_ready);
    reporter.step("waiting for CoreDNS and the other add-ons");
    match tokio::time::timeout(SETTLED, async { tokio::join!(nodes, deployments, daemon_sets) }).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Unsettled { cluster: cluster.to_owned(), seconds: SETTLED.as_secs() }),
    }
}

/// Stops the nodes. Returns the last reports of kubelet where it was ended, which a new one's are to be told from; nothing where all
/// programs outlive it.
///
/// # Errors
/// What a node says, or the freezer.
pub(super) async fn park(
    paths: &Paths,
    cluster: &str,
    nodes: &[NodeRecord],
    client: &Client,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<Option<Reports>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM);
    let outlives =
        kubernetes_nodes(nodes).all(|(name, process)| bootstrap::has_changed(process, name, &OUTLIVING));
    if !outlives {
        end_controllers(cluster, nodes, client, &leases, reporter).await?;
        reporter.step("stopping kubelet");
    }
    // systemd would take services for hung that have not answered while they were frozen.
    let script = if outlives { WATCHDOGS_OFF } else { STOP };
    try_join_all(kubernetes_nodes(nodes).map(|(name, process)| run(name, process, script))).await?;
    let reports = if outlives { None } else { Some(last_reports(client).await?) };
    let _ = tokio::time::timeout(CALM, calm(&leases)).await;
    reporter.step("freezing the nodes");
    let freezes = nodes.iter().map(|record| {
        let cgroup = node::cgroup(paths, cluster, &record.name);
        steps.run(move || cgroup.freeze())
    });
    try_join_all(freezes).await?;
    Ok(reports)
}

/// Ends kube-controller-manager in all control planes.
async fn end_controllers(
    cluster: &str,
    nodes: &[NodeRecord],
    client: &Client,
    leases: &Api<Lease>,
    reporter: &dyn Reporter,
) -> Result<()> {
    reporter.step("ending kube-controller-manager");
    for (name, process) in control_planes(nodes) {
        inside::rename(process, name, MANIFEST[0], MANIFEST[1])?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    let ended = control_planes(nodes).map(|(name, _)| {
        let (pods, name) = (pods.clone(), format!("{CONTROLLERS}-{name}"));
        async move { await_condition(pods, &name, |pod: Option<&Pod>| pod.is_none()).await }
    });
    let ended = tokio::time::timeout(ENDED, try_join_all(ended)).await;
    if !matches!(ended, Ok(Ok(_))) {
        return Err(Error::Unsettled { cluster: cluster.to_owned(), seconds: ENDED.as_secs() });
    }
    // It has not let go of its office, and its successor would wait until that has lapsed.
    match leases.delete(CONTROLLERS, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::api("end the term of kube-controller-manager".to_owned())(error)),
    }
}

/// Returns when nobody who leads is about to say so again, nor has just done so. Whoever is frozen in the middle of that ends when it goes
/// on, as it has had no answer for too long.
async fn calm(leases: &Api<Lease>) {
    loop {
        let terms =
            futures_util::future::join_all([CONTROLLERS, "kube-scheduler"].map(|name| leases.get(name)))
                .await;
        // Who has none does not lead, or nobody is asked.
        if terms.iter().flatten().filter_map(age).all(|age| QUIET.contains(&age)) {
            return;
        }
        // Nothing tells when it is some time after the last renewal of either.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How long ago a lease was renewed.
pub(super) fn age(lease: &Lease) -> Option<SignedDuration> {
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?;
    Some(Timestamp::now().duration_since(renewed.0))
}

async fn last_reports(client: &Client) -> Result<Reports> {
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.list(&ListParams::default()).await;
    let found = found.map_err(Error::api("list the reports on nodes".to_owned()))?;
    Ok(found.items.iter().filter_map(|node| Some((node.name_any(), api::reported_at(node)?))).collect())
}

/// Lets the nodes go on. What had been ended is begun by [`revive`].
///
/// # Errors
/// What a node says, or the freezer.
pub(super) fn thaw(paths: &Paths, cluster: &str, nodes: &[NodeRecord], stopped: bool) -> Result<()> {
    if stopped {
        // Before kubelet looks: it starts what it finds.
        for (name, process) in control_planes(nodes) {
            inside::rename(process, name, MANIFEST[1], MANIFEST[0])?;
        }
    }
    for record in nodes {
        node::cgroup(paths, cluster, &record.name).thaw()?;
    }
    Ok(())
}

/// Begins what was ended in nodes that run again; kubelet is if it was stopped.
///
/// # Errors
/// What a node says.
pub(super) async fn revive(nodes: &[NodeRecord], stopped: bool) -> Result<()> {
    let script = if stopped { START } else { WATCHDOGS_ON };
    try_join_all(kubernetes_nodes(nodes).map(|(name, process)| run(name, process, script))).await.map(drop)
}

fn running(
    nodes: &[NodeRecord],
    wanted: impl Fn(NodeRole) -> bool,
) -> impl Iterator<Item = (&str, &Process)> {
    let nodes = nodes.iter().filter(move |record| wanted(record.role));
    nodes.filter_map(|record| Some((record.name.as_str(), record.process.as_ref()?)))
}

fn control_planes(nodes: &[NodeRecord]) -> impl Iterator<Item = (&str, &Process)> {
    running(nodes, |role| role == NodeRole::ControlPlane)
}

pub(super) fn kubernetes_nodes(nodes: &[NodeRecord]) -> impl Iterator<Item = (&str, &Process)> {
    running(nodes, |role| role != NodeRole::ExternalLoadBalancer)
}

/// Runs a shell's command in a node.
async fn run(name: &str, process: &Process, script: &str) -> Result<()> {
    let output = inside::command(process, &["sh", "-c", script])?.kill_on_drop(true).output().await;
    let output = output.map_err(Error::file("start the exec helper"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        what: format!("change the services of node {name}"),
        program: script.to_owned(),
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_as_kiln_compiles_them_outlive_a_stop() {
        let changed = include_str!("../../../node-image/kubernetes/changes");
        let outlives = |changed: &str| bootstrap::names_all(changed, &OUTLIVING);
        assert!(outlives(changed));
        assert!(!outlives(&changed.replace("node_lifecycle_controller.go", "")));
        assert!(!outlives(""));
    }
}
