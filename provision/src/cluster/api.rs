//! Talking to a cluster's API: one client, a few changes, and waits that are watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, NodeCondition, Pod, ServiceAccount};
use kube::{
    Client, Config, ResourceExt,
    api::{Api, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use crate::{
    Error, Reporter, Result,
    template::{CONTROL_PLANE_TAINT, EXCLUDE_LABEL},
};

/// A client with an administrator's rights, for the API at `server` (`https://…`).
///
/// # Errors
/// [`Error::Api`] when the configuration is not usable.
pub(crate) async fn connect(admin_conf: &str, server: &str) -> Result<Client> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| Error::ApiConfiguration { source };
    let mut kubeconfig = Kubeconfig::from_yaml(admin_conf).map_err(|error| fail(error.into()))?;
    for named in &mut kubeconfig.clusters {
        if let Some(cluster) = &mut named.cluster {
            cluster.server = Some(server.to_owned());
            // The cluster is on this machine; a proxy of the environment's is for elsewhere.
            cluster.proxy_url = None;
        }
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| fail(error.into()))?;
    config.proxy_url = None;
    Client::try_from(config).map_err(Error::api("make a client for the API".to_owned()))
}

/// Lets ordinary pods run on a control plane, and load balancers send to it.
///
/// # Errors
/// [`Error::Api`] naming the node.
pub(super) async fn make_schedulable(client: &Client, node: &str) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let found = api.get(node).await.map_err(Error::api(format!("read node {node}")))?;
    let taints: Vec<_> = found
        .spec
        .and_then(|spec| spec.taints)
        .unwrap_or_default()
        .into_iter()
        .filter(|taint| taint.key != CONTROL_PLANE_TAINT)
        .collect();
    // With the version that was read: another writer's taint must not be lost.
    let patch = serde_json::json!({
        "metadata": { "resourceVersion": found.metadata.resource_version, "labels": { EXCLUDE_LABEL: null } },
        "spec": { "taints": taints },
    });
    match api.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Box::pin(make_schedulable(client, node)).await,
        Err(error) => Err(Error::api(format!("untaint node {node}"))(error)),
    }
}

/// A node's object.
///
/// # Errors
/// [`Error::Api`] naming the node.
pub(super) async fn node(client: &Client, node: &str) -> Result<serde_json::Value> {
    let found = Api::<Node>::all(client.clone()).get(node).await;
    let found = found.map_err(Error::api(format!("read node {node}")))?;
    Ok(serde_json::to_value(found).unwrap_or_default())
}

/// Between two tries of what nobody tells the time of.
const SOON: Duration = Duration::from_millis(20);

/// Returns when the API server is ready. Never ends if it never is: callers bound it.
pub(super) async fn answers(client: &Client) {
    succeeds(client, "/readyz").await;
}

/// Returns when the API server lists Services to whoever asks, as kubelets do: it knows them and what they may do. That is some
/// time before it is ready. Never ends if it never does: callers bound it.
pub(super) async fn lists_services(client: &Client) {
    succeeds(client, "/api/v1/services?limit=1").await;
}

async fn succeeds(client: &Client, path: &str) {
    loop {
        let Ok(request) = http::Request::get(path).body(Vec::new()) else { return };
        if client.request_text(request).await.is_ok() {
            return;
        }
        // Nothing tells when a process in another namespace begins to listen, nor when its readiness changes.
        tokio::time::sleep(SOON).await;
    }
}

/// Returns when a node's kubelet has told of itself. Never ends if it never does: callers bound it.
pub(super) async fn reported(client: &Client, node: &str) {
    let only = named(node);
    let told = |node: Node| {
        let information = node.status.and_then(|status| status.node_info);
        information.filter(|information| !information.kubelet_version.is_empty()).map(drop)
    };
    first_match(Api::<Node>::all(client.clone()), only, told).await;
}

/// How long the scheduler may take to find the add-ons a node.
const BOUND: Duration = Duration::from_secs(5);

/// The pods of the cluster's DNS server, of which kubeadm wants two.
const DNS_PODS: (&str, usize) = ("k8s-app=kube-dns", 2);

/// Returns when the pods of the cluster's add-ons are bound to nodes, or have not been for so long that nobody should wait
/// for them.
pub(super) async fn add_ons_bound(client: &Client) {
    let only = watcher::Config::default().labels(DNS_PODS.0);
    let mut bound = BTreeSet::new();
    let tell = |pod: Pod| {
        if pod.spec.is_some_and(|spec| spec.node_name.is_some()) {
            bound.insert(pod.metadata.name);
        }
        (bound.len() >= DNS_PODS.1).then_some(())
    };
    let pods = Api::<Pod>::namespaced(client.clone(), "kube-system");
    let _ = tokio::time::timeout(BOUND, first_match(pods, only, tell)).await;
}

/// What a kubelet says whose node was registered only after it had tried to note its storage drivers there. It tries again
/// 0.6, 3.2 and then 19 seconds later (pkg/volume/csi/csi_plugin.go), and is not ready until it has succeeded. etcd has no
/// leader for a moment when a member joins, so this happens to control planes.
const UNREGISTERED: &str = "failed to initialize CSINode";

/// How long to wait for the attempt that may come soon.
const PATIENCE: Duration = Duration::from_millis(3500);

/// Waits until every node of `expected` is Ready. Returns whether they were within `timeout`. `nudge` is to start the kubelet
/// of a node anew, which then does not wait for its next attempt; it is called once for a node at most.
///
/// # Errors
/// [`Error::Api`] when watching is refused.
pub(super) async fn nodes_ready(
    client: &Client,
    expected: &[String],
    timeout: Duration,
    reporter: &dyn Reporter,
    nudge: impl AsyncFn(&str),
) -> Result<bool> {
    let api: Api<Node> = Api::all(client.clone());
    let mut waiting: Vec<String> = expected.to_vec();
    let mut late: BTreeMap<String, Instant> = BTreeMap::new();
    let mut nudged: BTreeSet<String> = BTreeSet::new();
    let watching = async {
        let mut events =
            std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
        loop {
            // The watcher retries what fails; an error in between only means that it takes longer.
            let next = late.values().min().map(|since| *since + PATIENCE);
            let event = tokio::select! {
                event = events.try_next() => event,
                () = until(next) => {
                    let due = |(name, since): (&String, &Instant)| (since.elapsed() >= PATIENCE).then(|| name.clone());
                    for name in late.iter().filter_map(due).collect::<Vec<_>>() {
                        late.remove(&name);
                        reporter.step(&format!("{name}: starting kubelet anew"));
                        nudge(&name).await;
                        nudged.insert(name);
                    }
                    continue;
                }
            };
            match event {
                Ok(Some(node)) => {
                    let name = node.metadata.name.clone().unwrap_or_default();
                    if let Some(reason) = not_ready(&node) {
                        reporter.step(&format!("{name}: {reason}"));
                        if reason.contains(UNREGISTERED) && waiting.contains(&name) && !nudged.contains(&name)
                        {
                            late.entry(name).or_insert_with(Instant::now);
                        }
                    } else {
                        late.remove(&name);
                        waiting.retain(|other| *other != name);
                    }
                    if waiting.is_empty() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => reporter.step(&format!("watching nodes: {error}")),
            }
        }
    };
    Ok(tokio::time::timeout(timeout, watching).await.is_ok())
}

/// The pod ranges a node was given, as soon as it was.
pub(super) async fn pod_ranges(client: &Client, node: &str) -> Vec<IpNet> {
    let only = named(node);
    let ranges = |node: Node| {
        let ranges = node.spec.and_then(|spec| spec.pod_cidrs).unwrap_or_default();
        let parsed: Vec<IpNet> = ranges.iter().filter_map(|range| range.parse().ok()).collect();
        (!parsed.is_empty()).then_some(parsed)
    };
    first_match(Api::all(client.clone()), only, ranges).await
}

/// How long kube-controller-manager may take to sign what joining nodes look for. They ask for it themselves, but only every
/// five seconds.
const SIGNED: Duration = Duration::from_secs(30);

/// Returns when nodes can join: the cluster's public information is there and signed with a bootstrap token, or has not been
/// for so long that the nodes had better find out why.
pub(super) async fn joinable(client: &Client) {
    let only = named("cluster-info");
    let signed = |information: ConfigMap| {
        let mut keys = information.data.iter().flat_map(|data| data.keys());
        keys.any(|key| key.starts_with("jws-kubeconfig-")).then_some(())
    };
    let api = Api::<ConfigMap>::namespaced(client.clone(), "kube-public");
    let _ = tokio::time::timeout(SIGNED, first_match(api, only, signed)).await;
}

/// Returns when the namespace `default` has its service account. The API refuses every pod until then.
pub(super) async fn pods_admitted(client: &Client) {
    let only = named("default");
    first_match(Api::<ServiceAccount>::namespaced(client.clone(), "default"), only, |_| Some(())).await;
}

/// Returns when all objects of a kind are as wanted. Never ends if they never are: callers bound it.
pub(super) async fn all_of<K>(client: &Client, wanted: impl Fn(&K) -> bool)
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut waiting: BTreeSet<(Option<String>, String)> = BTreeSet::new();
    let mut events =
        std::pin::pin!(watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff());
    let mut listed = false;
    loop {
        let key = |object: &K| (object.namespace(), object.name_any());
        match events.next().await {
            Some(Ok(watcher::Event::Init)) => {
                listed = false;
                waiting.clear();
            }
            Some(Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object))) => {
                if wanted(&object) {
                    waiting.remove(&key(&object));
                } else {
                    waiting.insert(key(&object));
                }
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                waiting.remove(&key(&object));
            }
            Some(Ok(watcher::Event::InitDone)) => listed = true,
            // The watcher tries again by itself, and does not end.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
        if listed && waiting.is_empty() {
            return;
        }
    }
}

/// Only the object of this name.
pub(super) fn named(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Watches until an object tells what was looked for. Never ends if none does: callers bound it.
pub(super) async fn first_match<K, T>(
    api: Api<K>,
    only: watcher::Config,
    mut tell: impl FnMut(K) -> Option<T>,
) -> T
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, only).default_backoff().applied_objects());
    loop {
        match events.next().await {
            Some(Ok(object)) => {
                if let Some(told) = tell(object) {
                    return told;
                }
            }
            // The watcher tries again by itself, and does not end.
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// Returns at that time; never without one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether a node says that it is ready.
pub(super) fn is_ready(node: &Node) -> bool {
    not_ready(node).is_none()
}

/// Why a node is not ready; `None` when it is.
fn not_ready(node: &Node) -> Option<String> {
    match ready_condition(node) {
        Some(condition) if condition.status == "True" => None,
        Some(condition) => Some(condition.message.clone().unwrap_or_else(|| "not ready".to_owned())),
        None => Some("has not reported yet".to_owned()),
    }
}

/// When kubelet last reported on a node, in whole seconds, as it writes it.
pub(super) fn reported_at(node: &Node) -> Option<Timestamp> {
    ready_condition(node)?.last_heartbeat_time.as_ref().map(|time| time.0)
}

fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: serde_json::Value) -> Node {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "n" }, "status": status })).unwrap()
    }

    #[test]
    fn readiness_is_the_condition_of_that_name() {
        let ready = node(serde_json::json!({ "conditions": [
            { "type": "MemoryPressure", "status": "False" }, { "type": "Ready", "status": "True" } ] }));
        assert_eq!(not_ready(&ready), None);
        let pending = node(serde_json::json!({ "conditions": [
            { "type": "Ready", "status": "False", "message": "no CNI" } ] }));
        assert_eq!(not_ready(&pending).as_deref(), Some("no CNI"));
        assert!(not_ready(&node(serde_json::json!({}))).is_some());
    }
}
