//! Stopping a cluster so that it goes on as if no time had passed.
//!
//! Frozen processes find the clock gone on, and two of a cluster's take that for a failure. kube-controller-manager
//! compares a node's last sign of life with the clock before it has read the next one, and calls the node unreachable; and
//! kubelet calls its node not ready because it has not asked containerd for so long. So neither is there while the
//! cluster is frozen: kubelet starts beside containers that run on, and kube-controller-manager from its manifest.

use std::time::Duration;

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

use super::super::{api, blocking::Steps, inside, node};
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

/// How long to wait for the scheduler to say that it is there. It does so every two seconds, and when it has just done so
/// it is not in the middle of it.
const CALM: Duration = Duration::from_secs(5);

const SYSTEM: &str = "kube-system";

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

/// Ends what does not outlive a stop, and stops the rest. Returns the last reports of kubelet, which a new one's are to be told
/// from.
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
) -> Result<Reports> {
    reporter.step("ending kube-controller-manager");
    for (name, process) in control_planes(nodes) {
        inside::rename(process, name, MANIFEST[0], MANIFEST[1])?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    let ended = control_planes(nodes).map(|(name, _)| {
        let (pods, name) = (pods.clone(), format!("kube-controller-manager-{name}"));
        async move { await_condition(pods, &name, |pod: Option<&Pod>| pod.is_none()).await }
    });
    let ended = tokio::time::timeout(ENDED, futures_util::future::try_join_all(ended)).await;
    if !matches!(ended, Ok(Ok(_))) {
        return Err(Error::Unsettled { cluster: cluster.to_owned(), seconds: ENDED.as_secs() });
    }
    // It has not let go of its office, and its successor would wait until that has lapsed.
    let leases: Api<Lease> = Api::namespaced(client.clone(), SYSTEM);
    match leases.delete("kube-controller-manager", &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(Error::api("end the term of kube-controller-manager".to_owned())(error)),
    }
    reporter.step("stopping kubelet");
    // systemd would take services for hung that have not answered while they were frozen.
    let stops = kubernetes_nodes(nodes).map(|(name, process)| {
        run(name, process, "systemctl stop kubelet && systemctl service-watchdogs no")
    });
    futures_util::future::try_join_all(stops).await?;
    let reports = last_reports(client).await?;
    let only = api::named("kube-scheduler");
    let _ = tokio::time::timeout(CALM, api::changed::<Lease>(&leases, only)).await;
    reporter.step("freezing the nodes");
    let freezes = nodes.iter().map(|record| {
        let cgroup = node::cgroup(paths, cluster, &record.name);
        steps.run(move || cgroup.freeze())
    });
    futures_util::future::try_join_all(freezes).await?;
    Ok(reports)
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
pub(super) fn thaw(paths: &Paths, cluster: &str, nodes: &[NodeRecord]) -> Result<()> {
    // Before kubelet looks: it starts what it finds.
    for (name, process) in control_planes(nodes) {
        inside::rename(process, name, MANIFEST[1], MANIFEST[0])?;
    }
    for record in nodes {
        node::cgroup(paths, cluster, &record.name).thaw()?;
    }
    Ok(())
}

/// Begins what was ended in nodes that run again.
///
/// # Errors
/// What a node says.
pub(super) async fn revive(nodes: &[NodeRecord]) -> Result<()> {
    let starts = kubernetes_nodes(nodes).map(|(name, process)| {
        run(name, process, "systemctl --no-block start kubelet && systemctl service-watchdogs yes")
    });
    futures_util::future::try_join_all(starts).await.map(drop)
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
