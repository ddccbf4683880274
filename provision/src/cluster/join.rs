//! Bringing more nodes into a cluster that has one.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    task::Context,
    time::Instant,
};

use futures_util::future::{MaybeDone, maybe_done, try_join_all};
use tokio::sync::watch;

use super::{
    api,
    bootstrap::{self, Asks},
    controllers,
    create::phase,
    inside,
    kubernetes::node_url,
    node::{ADMIN_CONF, StartedNode, Surroundings},
    start::{FromFollower, Start},
    template_boot,
};
use crate::{Paths, Reporter, Result, config, kubeadm::KubernetesVersion, state::NodeRole, trace};

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

/// Work that goes on beside other work, and may be polled after its end.
type Job<'a> = MaybeDone<Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>>;

/// The nodes that follow the first, and the network between all of them. Everything waits for the API, and then goes on side
/// by side, whatever phase is shown.
pub(super) struct Followers<'a> {
    control_planes: Option<Job<'a>>,
    workers: Option<Job<'a>>,
    network: Job<'a>,
}

impl<'a> Followers<'a> {
    /// Work that begins when there is a client in `opened`, and when it is polled.
    pub(super) fn new(
        paths: &'a Paths,
        nodes: &'a [StartedNode],
        around: &'a Surroundings,
        networking: &'a config::Networking,
        opened: &watch::Receiver<Option<kube::Client>>,
        reporter: &'a dyn Reporter,
    ) -> Self {
        let of = |role| nodes.iter().filter(move |node| node.plan.role == role && !node.plan.first);
        let log_of =
            move |node: &StartedNode| bootstrap::log_path(&paths.node(&around.cluster, &node.plan.name));
        let join = move |node: &'a StartedNode| async move {
            bootstrap::join(&node.plan.name, &node.process, &log_of(node), reporter).await
        };
        let follow = move |node: &'a StartedNode, client: kube::Client| async move {
            let Some(from) = around.start.follower(&node.plan.name) else { return join(node).await };
            bootstrap::tell_not_run(&log_of(node))?;
            let followed = template_boot::follow(node, from, &client, reporter).await;
            followed.inspect_err(|_| around.start.discard(paths))
        };
        let follow_control_plane = move |node: &'a StartedNode, from: FromFollower<'a>| async move {
            bootstrap::tell_not_run(&log_of(node))?;
            let url = node_url(&node.plan.endpoint, networking);
            let joined = template_boot::join(node, from, &url, reporter).await;
            joined.inspect_err(|_| around.start.discard(paths))
        };
        let join_control_plane = move |node: &'a StartedNode| async move {
            let url = node_url(&node.plan.endpoint, networking);
            tokio::select! {
                joined = join(node) => joined,
                never = restart_kubelet_in_time(nodes, node, &url) => match never? {},
            }
        };
        let mut gate = opened.clone();
        let control_planes = async move {
            open(&mut gate).await;
            let from = |node: &'a StartedNode| Some((node, around.start.follower(&node.plan.name)?));
            let known: Option<Vec<_>> = of(NodeRole::ControlPlane).map(from).collect();
            if let Some(known) = known {
                let all = known.into_iter().map(|(node, from)| follow_control_plane(node, from));
                return try_join_all(all).await.map(drop);
            }
            trace::step("", "share keys").over(async { share_keys(nodes, &around.start) }).await?;
            if joins_in_parallel(nodes) {
                return try_join_all(of(NodeRole::ControlPlane).map(join_control_plane)).await.map(drop);
            }
            for node in of(NodeRole::ControlPlane) {
                join_control_plane(node).await?;
            }
            Ok(())
        };
        let mut gate = opened.clone();
        let workers = async move {
            let client = open(&mut gate).await;
            try_join_all(of(NodeRole::Worker).map(|node| follow(node, client.clone()))).await.map(drop)
        };
        let mut gate = opened.clone();
        let network = async move {
            let client = open(&mut gate).await;
            controllers::caught_up(&client, nodes, around).await
        };
        Self {
            control_planes: of(NodeRole::ControlPlane).next().map(|_| job(control_planes)),
            workers: of(NodeRole::Worker).next().map(|_| job(workers)),
            network: job(network),
        }
    }

    /// Drives `work` to its end, and the followers as far as they get meanwhile.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.poll_all(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Waits until the network between the nodes that have joined is there.
    ///
    /// # Errors
    /// What making it says.
    pub(super) async fn network(&mut self) -> Result<()> {
        ended(&mut self.network).await
    }

    /// Waits until all nodes have joined and their network is there, and shows it in kind's two phases.
    ///
    /// # Errors
    /// What failed first, on the node that it names.
    pub(super) async fn finish(mut self, reporter: &dyn Reporter) -> Result<()> {
        if let Some(mut control_planes) = self.control_planes.take() {
            // Workers join at the same time; what becomes of them is told in their own phase.
            let joined = self.beside(ended(&mut control_planes));
            phase(reporter, "Joining more control-plane nodes 🎮", joined).await?;
        }
        let workers = self.workers.take();
        let shown = workers.is_some();
        let rest = async {
            if let Some(mut workers) = workers {
                self.beside(ended(&mut workers)).await?;
            }
            reporter.step("waiting for the nodes' pod ranges");
            controllers::bounded(self.network(), reporter).await
        };
        if shown { phase(reporter, "Joining worker nodes 🚜", rest).await } else { rest.await }
    }

    fn poll_all(&mut self, context: &mut Context<'_>) {
        let all = self.control_planes.iter_mut().chain(&mut self.workers).chain([&mut self.network]);
        for job in all {
            let _ = Pin::new(job).poll(context);
        }
    }
}

fn job<'a>(work: impl Future<Output = Result<()>> + Send + 'a) -> Job<'a> {
    maybe_done(Box::pin(work) as Pin<Box<dyn Future<Output = _> + Send + 'a>>)
}

/// The outcome of a job, waited for.
async fn ended(job: &mut Job<'_>) -> Result<()> {
    (&mut *job).await;
    Pin::new(job).take_output().unwrap_or(Ok(()))
}

/// Waits for the API. Never ends if nobody opens it any more: then the creation has failed, and this is dropped with it.
async fn open(gate: &mut watch::Receiver<Option<kube::Client>>) -> kube::Client {
    match gate.wait_for(Option::is_some).await.ok().and_then(|client| client.clone()) {
        Some(client) => client,
        None => pending().await,
    }
}

/// Starts the kubelet of a control plane anew when its API server knows what kubelets ask for, and does not end then. kubeadm lets
/// kubelet start that API server and ask it for its credentials as well, which kubelet does in pauses that double. One that asks
/// often is left alone.
async fn restart_kubelet_in_time(nodes: &[StartedNode], node: &StartedNode, url: &str) -> Result<Infallible> {
    if let Some(first) = nodes.iter().find(|node| node.plan.first) {
        let client = api::connect(&inside::read(&first.process, &first.plan.name, ADMIN_CONF)?, url).await?;
        let begun = Instant::now();
        api::lists_services(&client).await;
        Asks::ForCertificate.or_anew(&node.process, &node.plan.name, begun.elapsed()).await;
    }
    pending().await
}

fn joins_in_parallel(nodes: &[StartedNode]) -> bool {
    nodes.iter().all(|node| {
        let version: Result<KubernetesVersion> = node.plan.kubernetes_version.parse();
        version.is_ok_and(|version| version.at_least(PARALLEL_SINCE))
    })
}

/// Copies the keys of the cluster from its first node to the other control planes, if they have not been there from the start.
fn share_keys(nodes: &[StartedNode], start: &Start) -> Result<()> {
    let Some(first) = nodes.iter().find(|node| node.plan.first) else {
        return Ok(());
    };
    let lacks = |node: &&StartedNode| {
        let plan = &node.plan;
        plan.role == NodeRole::ControlPlane && !plan.first && start.keys_to_join(plan).is_empty()
    };
    let others: Vec<_> = nodes.iter().filter(lacks).collect();
    if others.is_empty() {
        return Ok(());
    }
    for file in KEYS {
        let path = format!("{PKI}/{file}");
        let content = inside::read(&first.process, &first.plan.name, &path)?;
        for node in &others {
            // A mount may have brought it; it is the user's then.
            if inside::read(&node.process, &node.plan.name, &path).ok().as_ref() != Some(&content) {
                inside::write_private(&node.process, &node.plan.name, &path, &content)?;
            }
        }
    }
    Ok(())
}
