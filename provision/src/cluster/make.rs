//! Bringing up what a cluster is to be: its nodes, and Kubernetes in them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_network::Network;

use super::{
    CreateOptions, PodNetwork, api,
    blocking::Steps,
    bootstrap::{self, KUBEADM_CONF},
    create::phase,
    inside, kubernetes, load_balancer,
    node::{self, StartedNode, Surroundings},
    outbound,
    plan::{self, NodePlan},
    publication, registry,
    reserve::{NodeImage, Reserved, reserve},
    start,
};
use crate::{
    Outcome, Paths, Reporter, Result, config,
    image::InUse,
    state::{ClusterRecord, NodeRole},
    trace,
};

/// Set by Kiln's own tests of what does not need Kubernetes: `nodes` stops when the nodes run.
const STOP_AFTER: &str = "KILN_STOP_AFTER";

/// A cluster that is up, and that nobody has been told of yet.
pub(super) struct Booted {
    pub(super) record: ClusterRecord,
    /// The administrator's credentials as kubeadm wrote them, and a client with them; `None` when it was to stop early.
    pub(super) access: Option<(String, kube::Client)>,
}

/// Makes the nodes of a cluster of these images, and Kubernetes in them. `promise` is let go of when the nodes have
/// records that say what they stand on.
///
/// # Errors
/// What failed first.
pub(super) async fn boot(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    images: &[NodeImage],
    promise: InUse,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<Booted> {
    let config = &options.config;
    // What is about to be made is written down first: a run killed from here on leaves a cluster that can be deleted.
    let reserved = trace::step("", "reserve").over(reserve(paths, name, config, images, reporter)).await?;
    let start = start::decide(paths, options, name, &reserved.nodes, reporter)?;
    let endpoints = reserved.nodes.iter().map(|plan| &plan.endpoint);
    let all = endpoints.chain(reserved.balancer.as_ref().map(|balancer| &balancer.endpoint));
    let names = all.clone().map(|endpoint| endpoint.node.as_str());
    let outbound = outbound(&reserved.record.network, &config.networking, names, reporter);
    let around = Surroundings {
        cluster: name.to_owned(),
        network: reserved.record.network.clone(),
        hosts: node::hosts_file(config.networking.ip_family, all),
        networking: config.networking.clone(),
        pod_network: !config.networking.disable_default_cni && options.pod_network == PodNetwork::Launcher,
        outbound,
        first: reserved.nodes.iter().find(|plan| plan.first).map(|plan| plan.endpoint.clone()),
        start: Arc::new(start),
    };
    let record = reserved.record.clone();
    let title = format!("Preparing nodes {}", "📦 ".repeat(reserved.nodes.len()));
    let (nodes, balancer) =
        phase(reporter, &title, prepare(paths, reserved, &around, config, reporter, steps)).await?;
    drop(promise);
    if let Some(balancer) = balancer {
        phase(reporter, "Configuring the external load balancer ⚖️", balancer).await?;
    }
    if std::env::var(STOP_AFTER).as_deref() == Ok("nodes") {
        for node in &nodes {
            node.notice.booted(&node.plan.name, &node.process).await?;
        }
        return Ok(Booted { record, access: None });
    }

    // Before anything is pulled: a registry may be a cache of where the images are.
    registry::tell_nodes(paths, name, reporter).await?;
    phase(reporter, "Writing configuration 📜", configure(&nodes, reporter)).await?;

    let access = kubernetes::bring_up(paths, &nodes, &around, config, reporter).await?;
    wait_ready(&access.1, &nodes, options.wait, reporter).await?;
    Ok(Booted { record, access: Some(access) })
}

/// The variables that lead nodes to this process's proxy, with a warning where they cannot get there.
fn outbound<'a>(
    network: &Network,
    networking: &config::Networking,
    nodes: impl IntoIterator<Item = &'a str>,
    reporter: &dyn Reporter,
) -> Vec<String> {
    let lookup = |name: &str| std::env::var(name).ok();
    for (variable, host) in outbound::on_loopback(lookup) {
        reporter.message(
            0,
            &format!(
                "Warning: {variable} leads to {host}, which is another host for a node: nodes will pull no images \
                 through it. Let the proxy listen on an address of this host, and name that"
            ),
        );
    }
    outbound::variables(network, plan::subnet_pool().ok(), networking, nodes, lookup)
}

/// Makes the nodes side by side, and the ports that lead to them. Returns what starts the load balancer as well, where there
/// is one: it has a phase of its own.
async fn prepare<'a>(
    paths: &'a Paths,
    reserved: Reserved,
    around: &'a Surroundings,
    config: &config::Cluster,
    reporter: &dyn Reporter,
    steps: &'a Steps,
) -> Result<(Vec<StartedNode>, Option<impl Future<Output = Result<()>> + 'a>)> {
    let Reserved { record, nodes: plans, balancer } = reserved;
    let control_planes = plans.iter().filter(|plan| plan.role == NodeRole::ControlPlane);
    let control_planes: Vec<_> = control_planes.map(|plan| plan.endpoint.clone()).collect();
    let start = |(plan, extra): (NodePlan, &config::Node)| {
        let (paths, around, extra) = (paths.clone(), around.clone(), extra.clone());
        async move {
            reporter.step(&format!("starting {}", plan.name));
            let (files_paths, files_plan, files_around) = (paths.clone(), plan.clone(), around.clone());
            let written = steps.run(move || node::write_files(&files_paths, &files_plan, &files_around));
            trace::step(&plan.name, "write files").over(written).await?;
            let started = node::start(&paths, plan, &around, &extra, steps).await?;
            trace::step(&started.plan.name, "pod rules").over(node::pod_rules(&started, &around)).await?;
            node::hold_queries(&paths, &started, &around)?;
            Ok(started)
        }
    };
    let started = futures_util::future::try_join_all(plans.into_iter().zip(&config.nodes).map(start));
    let publish = trace::step("", "publish ports").over(publication::publish(paths, &record, reporter));
    let (nodes, ()) = tokio::try_join!(started, publish)?;
    let balancer = balancer
        .map(|plan| async move { load_balancer::start(paths, around, &plan, &control_planes, steps).await });
    Ok((nodes, balancer))
}

/// Writes what kubeadm reads, while the nodes boot, and waits until they have.
async fn configure(nodes: &[StartedNode], reporter: &dyn Reporter) -> Result<()> {
    for node in nodes {
        let name = &node.plan.name;
        let _span = trace::step(name, "write kubeadm.conf");
        reporter.message(2, &format!("{KUBEADM_CONF} of {name}:\n{}", node.plan.kubeadm));
        inside::write(&node.process, name, KUBEADM_CONF, &node.plan.kubeadm)?;
    }
    for node in nodes {
        reporter.step(&format!("{}: waiting for systemd", node.plan.name));
        trace::wait(&node.plan.name, "systemd")
            .over(node.notice.booted(&node.plan.name, &node.process))
            .await?;
    }
    Ok(())
}

async fn wait_ready(
    client: &kube::Client,
    nodes: &[StartedNode],
    timeout: Duration,
    reporter: &dyn Reporter,
) -> Result<()> {
    if timeout.is_zero() {
        return Ok(());
    }
    let names: Vec<String> = nodes.iter().map(|node| node.plan.name.clone()).collect();
    let who = if names.len() == 1 { "control-plane" } else { "all nodes" };
    let title = format!("Waiting ≤ {} for {who} = Ready ⏳", display(timeout));
    reporter.phase_started(&title);
    let started = Instant::now();
    let nudge = async |name: &str| {
        if let Some(node) = nodes.iter().find(|node| node.plan.name == name) {
            bootstrap::restart_kubelet(&node.process).await;
        }
    };
    let ready = api::nodes_ready(client, &names, timeout, reporter, nudge);
    let ready = trace::wait("", "all nodes to be Ready").over(ready).await;
    let outcome = if matches!(ready, Ok(true)) { Outcome::Done } else { Outcome::Failed };
    reporter.phase_ended(&title, outcome);
    if ready? {
        reporter.message(0, &format!(" • Ready after {}s 💚", started.elapsed().as_secs()));
    } else {
        // As with kind, a node that takes longer is no failure: the cluster is there.
        reporter.message(0, " • WARNING: Timed out waiting for Ready ⚠️");
    }
    Ok(())
}

/// A duration in the units it was most likely given in.
fn display(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, _) => format!("{seconds}s"),
        (minutes, 0) => format!("{minutes}m0s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_were_given() {
        let cases = [(10, "10s"), (60, "1m0s"), (90, "1m30s"), (300, "5m0s")];
        for (seconds, text) in cases {
            assert_eq!(display(Duration::from_secs(seconds)), text);
        }
    }
}
