//! Making a cluster.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_network::Network;

use super::{
    Cancel, api,
    blocking::Steps,
    bootstrap::{self, KUBEADM_CONF},
    delete, demands, inside, kubernetes, load_balancer,
    node::{self, StartedNode, Surroundings},
    observe, outbound,
    plan::{self, NodePlan},
    publication, registry,
    reserve::{Reserved, ensure_images, image_names, reserve},
    start::{self, Bootstrap},
    unpacked,
};
use crate::{
    Error, Outcome, Paths, Reporter, Result, config, doctor,
    image::Store,
    kubeconfig,
    state::{self, ClusterRecord, NodeRole, Phase},
    trace::{self, Trace},
};

/// What to make.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The cluster's configuration, after defaults and validation.
    pub config: config::Cluster,
    /// Overrides the configuration's name.
    pub name: Option<String>,
    /// Overrides the image of every node.
    pub image: Option<String>,
    /// How long to wait for the nodes to be Ready; zero does not wait.
    pub wait: Duration,
    /// Where to write the kubeconfig; what `KUBECONFIG` names, or `~/.kube/config`, when there is none.
    pub kubeconfig: Option<PathBuf>,
    /// Whether to keep what there is when making the cluster fails.
    pub retain: bool,
    /// Who makes the pod network.
    pub pod_network: PodNetwork,
    /// How the control plane is made.
    pub bootstrap: Bootstrap,
    /// Where it is recorded what happens when. The time before it was made belongs to nobody.
    pub trace: Trace,
}

/// Who makes the pod network of a cluster whose configuration does not leave it to the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// Kiln, before kubelet asks for it. Between several nodes an agent keeps the routes from then on, where the image
    /// brings one.
    #[default]
    Launcher,
    /// What the image's own manifest installs, such as kindnet.
    Image,
}

/// A cluster that was made.
#[derive(Clone, Debug)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// The context in the kubeconfig.
    pub context: String,
    /// The kubeconfig that was written.
    pub kubeconfig: PathBuf,
}

/// Set by Kiln's own tests of what does not need Kubernetes: `nodes` stops when the nodes run.
const STOP_AFTER: &str = "KILN_STOP_AFTER";

/// Makes a cluster. When that fails or is cancelled, everything it made is removed again, unless `options.retain` says
/// otherwise.
///
/// # Errors
/// What went wrong first, or [`Error::Interrupted`].
pub async fn create(
    paths: &Paths,
    options: CreateOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Created> {
    let name = options.name.clone().unwrap_or_else(|| options.config.name.clone());
    state::validate_cluster_name(&name)?;
    // A half-made cluster without an owner is told apart from one that is being made by its lock.
    let lock = tokio::select! {
        lock = state::cluster_lock(paths, &name, reporter) => lock?,
        () = cancel.triggered() => return Err(Error::Interrupted),
    };
    let result = options.trace.follow(create_locked(paths, &name, &options, reporter, cancel)).await;
    // The lock's file stays with the cluster, and goes when there is none.
    if result.is_err() && !state::cluster_exists(paths, &name)? {
        lock.remove()?;
    }
    result
}

/// Checks whatever can be told before images are looked for.
pub(super) async fn check(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    reporter: &dyn Reporter,
) -> Result<()> {
    if state::cluster_exists(paths, name)? {
        return Err(Error::ClusterExists { name: name.to_owned() });
    }
    if state::is_long_name(name) {
        let text = format!(
            "Warning: the cluster name {name:?} is long; host names of its nodes may not work everywhere"
        );
        reporter.message(0, &text);
    }
    config::preflight(&options.config, "the configuration")?;
    doctor::preflight(paths)?;
    demands::check(&options.config).await
}

async fn create_locked(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Created> {
    check(paths, name, options, reporter).await?;

    reporter.message(0, &format!("Creating cluster {name:?} ..."));
    let steps = Steps::default();
    let made = tokio::select! {
        made = make(paths, name, options, reporter, &steps) => made,
        () = cancel.triggered() => Err(Error::Interrupted),
    };
    // Before anything is removed, and only for what this call made: a cluster that was there keeps its own.
    observe::finish(paths, name, &options.trace, made.is_ok());
    match made {
        Err(error) if options.retain && !matches!(error, Error::Interrupted) => {
            reporter
                .message(0, &format!("Keeping what there is of cluster {name:?} for inspection (--retain)"));
            Err(error)
        }
        Err(error) => {
            reporter.step("cleaning up");
            steps.settle().await;
            let locations = locate_kubeconfig(options.kubeconfig.as_deref())?;
            match delete::remove_all(paths, name, Some(&locations), reporter).await {
                Ok(deleted) if !deleted.nodes.is_empty() => {
                    reporter.message(0, &deleted.summary());
                }
                Ok(_) => {}
                // The first error is the one to fix; this one says what is left.
                Err(left) => {
                    reporter.message(0, &format!("Warning: {left}; `kiln delete cluster` tries again"))
                }
            }
            Err(error)
        }
        created => created,
    }
}

/// Shows a phase while it runs.
pub(super) async fn phase<T>(
    reporter: &dyn Reporter,
    title: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    reporter.phase_started(title);
    let started = Instant::now();
    let result = trace::phase(title).over(work).await;
    reporter.phase_ended(title, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
    reporter.message(1, &format!("{title}: {:.1} s", started.elapsed().as_secs_f64()));
    result
}

async fn make(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    reporter: &dyn Reporter,
    steps: &Steps,
) -> Result<Created> {
    let config = &options.config;
    let leftovers = paths.clone();
    steps.run(move || unpacked::remove_leftovers(&leftovers)).await?;
    let store = Store::open(&paths.images())?;
    let wanted = image_names(options);
    let title = format!("Ensuring node image ({}) 🖼", wanted[0].split('@').next().unwrap_or_default());
    // Until the nodes have records that say what they stand on.
    let sharing = store.clone();
    let promise = steps.run(move || sharing.share()).await?;
    let images = phase(reporter, &title, async {
        trace::step("", "ensure images").over(ensure_images(paths, &store, &wanted, steps, reporter)).await
    })
    .await?;

    // What is about to be made is written down first: a run killed from here on leaves a cluster that can be deleted.
    let reserved = trace::step("", "reserve").over(reserve(paths, name, config, &images, reporter)).await?;
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
        return Ok(Created { name: name.to_owned(), context: String::new(), kubeconfig: PathBuf::new() });
    }

    // Before anything is pulled: a registry may be a cache of where the images are.
    registry::tell_nodes(paths, name, reporter).await?;
    phase(reporter, "Writing configuration 📜", configure(&nodes, reporter)).await?;

    let (admin_conf, client) = kubernetes::bring_up(paths, &nodes, &around, config, reporter).await?;
    wait_ready(&client, &nodes, options.wait, reporter).await?;

    let server = format!("https://{}", record.api);
    let admin = kubeconfig::rewrite(&admin_conf, name, Some(&server))?;
    fs_err::write(paths.cluster(name).join("admin.conf"), &admin_conf)
        .map_err(Error::file("keep the cluster's credentials"))?;
    let locations = locate_kubeconfig(options.kubeconfig.as_deref())?;
    // Another program may hold the file's lock for a while.
    let written = steps.run(move || kubeconfig::merge_into(&locations, &admin));
    let written = trace::step("", "write kubeconfig").over(written).await?;
    state::save_cluster(paths, &ClusterRecord { phase: Phase::Ready, ..record })?;
    // Only now: whoever makes a registry from here on tells the cluster himself.
    registry::tell_cluster(paths, name, &client, reporter).await?;
    Ok(Created { name: name.to_owned(), context: kubeconfig::key(name), kubeconfig: written })
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

/// Where this process's kubeconfig is.
pub(super) fn locate_kubeconfig(explicit: Option<&Path>) -> Result<kubeconfig::Locations> {
    let env = std::env::var_os("KUBECONFIG");
    let home = std::env::var_os("HOME").map(PathBuf::from);
    kubeconfig::locate(explicit, env.as_deref(), home.as_deref())
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
