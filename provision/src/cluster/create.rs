//! Making a cluster.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    Cancel, api,
    blocking::Steps,
    bootstrap::{self, KUBEADM_CONF},
    delete, inside, manifest,
    network::connect_pods,
    node::{self, ADMIN_CONF, StartedNode, Surroundings},
    plan::{API_PORT, NodePlan},
    reserve::{ensure_images, image_names, reserve},
};
use crate::{
    Error, Outcome, Paths, Reporter, Result, config, doctor,
    image::Store,
    kubeconfig,
    state::{self, ClusterRecord, NodeRole, Phase},
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
    let result = create_locked(paths, &name, &options, reporter, cancel).await;
    // The lock's file stays with the cluster, and goes when there is none.
    if result.is_err() && !state::cluster_exists(paths, &name)? {
        lock.remove()?;
    }
    result
}

async fn create_locked(
    paths: &Paths,
    name: &str,
    options: &CreateOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Created> {
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
    refuse_unsupported(&options.config)?;
    doctor::preflight(paths)?;

    reporter.message(0, &format!("Creating cluster {name:?} ..."));
    let steps = Steps::default();
    let made = tokio::select! {
        made = make(paths, name, options, reporter, &steps) => made,
        () = cancel.triggered() => Err(Error::Interrupted),
    };
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

/// What the configuration may ask for and this version does not do. Refused before anything is made.
fn refuse_unsupported(config: &config::Cluster) -> Result<()> {
    let refuse = |feature: &str| Err(Error::NotSupported { feature: feature.to_owned() });
    if config.control_planes() > 1 {
        return refuse("more than one control plane");
    }
    if config.networking.ip_family != config::IpFamily::Ipv4 {
        return refuse("an ipFamily other than ipv4");
    }
    let bidirectional = |mount: &config::Mount| mount.propagation == config::MountPropagation::Bidirectional;
    if config.nodes.iter().any(|node| node.extra_mounts.iter().any(bidirectional)) {
        return refuse("extraMounts with propagation Bidirectional");
    }
    for mount in config.nodes.iter().flat_map(|node| &node.extra_mounts) {
        if !mount.host_path.exists() {
            return Err(Error::MountSource { path: mount.host_path.clone() });
        }
    }
    Ok(())
}

/// Shows a phase while it runs.
async fn phase<T>(reporter: &dyn Reporter, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    reporter.phase_started(title);
    let started = Instant::now();
    let result = work.await;
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
    let store = Store::open(&paths.images())?;
    let wanted = image_names(options);
    let title = format!("Ensuring node image ({}) 🖼", wanted[0].split('@').next().unwrap_or_default());
    let images = phase(reporter, &title, ensure_images(&store, &wanted, steps)).await?;

    // What is about to be made is written down first: a run killed from here on leaves a cluster that can be deleted.
    let (record, plans) = reserve(paths, name, config, &images, reporter).await?;
    let around = Surroundings {
        cluster: name.to_owned(),
        network: record.network.clone(),
        hosts: node::hosts_file(&plans),
        networking: config.networking.clone(),
    };
    let title = format!("Preparing nodes {}", "📦 ".repeat(plans.len()));
    let nodes = phase(reporter, &title, prepare(paths, &record, plans, &around, config, steps)).await?;
    if std::env::var(STOP_AFTER).as_deref() == Ok("nodes") {
        for node in &nodes {
            node.notice.booted(&node.plan.name, &node.process).await?;
        }
        return Ok(Created { name: name.to_owned(), context: String::new(), kubeconfig: PathBuf::new() });
    }

    phase(reporter, "Writing configuration 📜", configure(&nodes, reporter)).await?;

    let Some(first) = nodes.iter().find(|node| node.plan.role == NodeRole::ControlPlane) else {
        return Err(Error::NotSupported { feature: "a cluster without a control plane".to_owned() });
    };
    let log = |node: &StartedNode| bootstrap::log_path(&paths.node(name, &node.plan.name));
    let (admin_conf, client) = phase(reporter, "Starting control-plane 🕹️", async {
        bootstrap::init(&first.plan.name, &first.process, &log(first), reporter).await?;
        let admin_conf = inside::read(&first.process, &first.plan.name, ADMIN_CONF)?;
        let client = api::connect(&admin_conf, &node_url(first)).await?;
        if nodes.len() == 1 {
            api::make_schedulable(&client, &first.plan.name).await?;
        }
        Ok((admin_conf, client))
    })
    .await?;

    if !config.networking.disable_default_cni {
        // Its configuration has been there since before kubelet started; that of workers follows when they join.
        phase(reporter, "Installing CNI 🔌", async { Ok(()) }).await?;
    }
    let workers: Vec<&StartedNode> = nodes.iter().filter(|node| node.plan.role == NodeRole::Worker).collect();
    let caught_up = controllers_caught_up(&client, &nodes, &around, reporter);
    let storage = install_storage(first, &client);
    if workers.is_empty() {
        phase(reporter, "Installing StorageClass 💾", async {
            storage.await?;
            reporter.step("waiting for the default service account");
            caught_up.await
        })
        .await?;
    } else {
        phase(reporter, "Installing StorageClass 💾", storage).await?;
        let joins = workers.iter().map(|node| {
            let log = log(node);
            async move { bootstrap::join(&node.plan.name, &node.process, &log, reporter).await }
        });
        // Nodes get their pod ranges while others still join.
        let joined = futures_util::future::try_join_all(joins);
        phase(reporter, "Joining worker nodes 🚜", async { tokio::try_join!(joined, caught_up).map(drop) })
            .await?;
    }
    wait_ready(&client, &nodes, options.wait, reporter).await?;

    let server = format!("https://{}", record.api);
    let admin = kubeconfig::rewrite(&admin_conf, name, Some(&server))?;
    fs_err::write(paths.cluster(name).join("admin.conf"), &admin_conf)
        .map_err(Error::file("keep the cluster's credentials"))?;
    let locations = locate_kubeconfig(options.kubeconfig.as_deref())?;
    // Another program may hold the file's lock for a while.
    let written = steps.run(move || kubeconfig::merge_into(&locations, &admin)).await?;
    state::save_cluster(paths, &ClusterRecord { phase: Phase::Ready, ..record })?;
    Ok(Created { name: name.to_owned(), context: kubeconfig::key(name), kubeconfig: written })
}

/// Makes the nodes side by side, and the ports that lead to them.
async fn prepare(
    paths: &Paths,
    record: &ClusterRecord,
    plans: Vec<NodePlan>,
    around: &Surroundings,
    config: &config::Cluster,
    steps: &Steps,
) -> Result<Vec<StartedNode>> {
    let start = |(plan, extra): (NodePlan, &config::Node)| {
        let (paths, around, extra) = (paths.clone(), around.clone(), extra.clone());
        async move {
            let (files_paths, files_plan, files_around) = (paths.clone(), plan.clone(), around.clone());
            steps.run(move || node::write_files(&files_paths, &files_plan, &files_around)).await?;
            let started = node::start(&paths, plan, &around, &extra, steps).await?;
            node::pod_rules(&started, &around.networking).await?;
            Ok(started)
        }
    };
    let started = futures_util::future::try_join_all(plans.into_iter().zip(&config.nodes).map(start));
    let publish = async { Ok::<_, Error>(kiln_network::publish(&record.network, &record.ports).await?) };
    let (nodes, ()) = tokio::try_join!(started, publish)?;
    Ok(nodes)
}

/// Writes what kubeadm reads, while the nodes boot, and waits until they have.
async fn configure(nodes: &[StartedNode], reporter: &dyn Reporter) -> Result<()> {
    for node in nodes {
        let name = &node.plan.name;
        reporter.message(2, &format!("{KUBEADM_CONF} of {name}:\n{}", node.plan.kubeadm));
        inside::write(&node.process, name, KUBEADM_CONF, &node.plan.kubeadm)?;
    }
    for node in nodes {
        reporter.step(&format!("{}: waiting for systemd", node.plan.name));
        node.notice.booted(&node.plan.name, &node.process).await?;
    }
    Ok(())
}

fn node_url(node: &StartedNode) -> String {
    // The node's own address: it is in the API server's certificate, and no translation is needed to get there.
    node.plan.endpoint.ipv4.map_or_else(String::new, |address| format!("https://{address}:{API_PORT}"))
}

/// How long kube-controller-manager may take to get to what is waited for: it starts its controllers one by one, and
/// nodes have to join first.
const CONTROLLERS_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for what the first users of a cluster count on and kube-controller-manager only makes some seconds after the
/// API is up: the service account without which the API refuses every pod, and the nodes' pod ranges, from which
/// their pod networks follow.
async fn controllers_caught_up(
    client: &kube::Client,
    nodes: &[StartedNode],
    around: &Surroundings,
    reporter: &dyn Reporter,
) -> Result<()> {
    let network = async {
        if around.networking.disable_default_cni { Ok(()) } else { connect_pods(client, nodes, around).await }
    };
    let both = async { tokio::join!(network, api::pods_admitted(client)).0 };
    match tokio::time::timeout(CONTROLLERS_TIMEOUT, both).await {
        Ok(result) => result,
        // Patches may have turned the controllers off, on purpose.
        Err(_) => {
            let seconds = CONTROLLERS_TIMEOUT.as_secs();
            let text =
                "kube-controller-manager has not made the default service account and the nodes' pod ranges";
            reporter.message(
                0,
                &format!("Warning: {text} within {seconds} s; pods may be refused until it does"),
            );
            Ok(())
        }
    }
}

/// Where kind's contract puts the manifest of the default StorageClass.
const STORAGE_MANIFEST: &str = "/kind/manifests/default-storage.yaml";

async fn install_storage(node: &StartedNode, client: &kube::Client) -> Result<()> {
    let text = inside::read(&node.process, &node.plan.name, STORAGE_MANIFEST)?;
    manifest::apply(client, STORAGE_MANIFEST, &text).await
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
    let ready = api::nodes_ready(client, &names, timeout, reporter).await;
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
    let env = std::env::var("KUBECONFIG").ok();
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

    #[test]
    fn several_control_planes_are_refused_by_name() {
        let mut config = config::Cluster::single_node("c");
        config.nodes.push(config::Node::new(config::Role::Worker));
        assert!(refuse_unsupported(&config).is_ok());
        config.nodes.push(config::Node::new(config::Role::ControlPlane));
        let error = refuse_unsupported(&config).unwrap_err();
        assert!(error.to_string().contains("more than one control plane"), "{error}");
    }
}
