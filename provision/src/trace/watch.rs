//! The marks that only the API can tell, by watching it from outside.
//!
//! What is not there yet cannot be watched: the API is asked every [`PERIOD`] until it is, and that is what a mark may be
//! late.

use std::{collections::BTreeMap, fmt::Debug, pin::pin, time::Duration};

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;

use crate::cluster;

/// How often what cannot be watched is asked.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);
/// How long the API may take to answer before it is asked anew: a packet to an address that is not there yet is lost.
const ANSWER: Duration = Duration::from_secs(1);
/// How many CoreDNS pods kubeadm asks for.
const RESOLVERS: usize = 2;

/// The API answers its check of readiness.
pub(crate) const API_READY: &str = "API ready";
/// The node is known to the API.
pub(crate) const REGISTERED: &str = "node registered";
/// The node is Ready.
pub(crate) const NODE_READY: &str = "node Ready";
/// As many nodes as were expected are.
pub(crate) const NODES_READY: &str = "all nodes Ready";
/// The node's kube-proxy is Ready.
pub(crate) const PROXY_READY: &str = "kube-proxy ready";
/// Both CoreDNS pods are Ready.
pub(crate) const DNS_READY: &str = "CoreDNS ready";
/// A pod with an address of its own runs.
pub(crate) const FIRST_POD: &str = "first pod running";

/// Is told the name of a mark, and the node that it is of, at its moment. May be told again.
pub(crate) type Seen<'a> = &'a (dyn Fn(Option<&str>, &str) + Send + Sync);

/// The text of a kubeconfig and the API's address (`https://…`), once there are both.
pub(crate) type Credentials<'a> = &'a (dyn Fn() -> Option<(String, String)> + Send + Sync);

/// Waits for the API to be ready.
pub(crate) async fn ready(credentials: Credentials<'_>, seen: Seen<'_>) -> Client {
    let client = loop {
        // A file that is half-written is no kubeconfig yet.
        if let Some((text, server)) = credentials()
            && let Ok(client) = cluster::connect(&text, &server).await
        {
            break client;
        }
        tokio::time::sleep(PERIOD).await;
    };
    while !answers(&client).await {
        tokio::time::sleep(PERIOD).await;
    }
    seen(None, API_READY);
    client
}

async fn answers(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    let answer = tokio::time::timeout(ANSWER, client.request_text(request)).await;
    matches!(answer, Ok(Ok(text)) if text == "ok")
}

/// Watches the nodes until as many as are expected are Ready.
pub(crate) async fn nodes(client: &Client, expected: usize, seen: Seen<'_>) {
    follow(&Api::<Node>::all(client.clone()), "", |all| {
        for (name, node) in all {
            seen(Some(name), REGISTERED);
            if node_is_ready(node) {
                seen(Some(name), NODE_READY);
            }
        }
        let ready = all.values().filter(|node| node_is_ready(node)).count();
        if ready >= expected {
            seen(None, NODES_READY);
        }
        ready >= expected
    })
    .await;
}

/// Watches the pods until CoreDNS is Ready, and so is kube-proxy on as many nodes as are expected to have one.
pub(crate) async fn pods(client: &Client, proxies: usize, seen: Seen<'_>) {
    follow(&Api::<Pod>::all(client.clone()), "", |all| {
        let of = |label: &'static str| {
            all.values().filter(move |pod| pod.labels().get("k8s-app").is_some_and(|app| app == label))
        };
        let mut proxies_ready = 0;
        for pod in of("kube-proxy").filter(|pod| pod_is_ready(pod)) {
            proxies_ready += 1;
            seen(pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()), PROXY_READY);
        }
        let resolvers_ready = of("kube-dns").filter(|pod| pod_is_ready(pod)).count();
        if resolvers_ready >= RESOLVERS {
            seen(None, DNS_READY);
        }
        if let Some(pod) = all.values().find(|pod| is_ordinary(pod) && phase(pod) == Some("Running")) {
            seen(pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()), FIRST_POD);
        }
        proxies_ready >= proxies && resolvers_ready >= RESOLVERS
    })
    .await;
}

/// Returns when the objects that `labels` select fulfil a condition.
pub(crate) async fn follow<K>(api: &Api<K>, labels: &str, condition: impl Fn(&BTreeMap<String, K>) -> bool)
where
    K: kube::Resource + Clone + DeserializeOwned + Debug,
{
    loop {
        if let Ok(list) = api.list(&ListParams::default().labels(labels)).await {
            let version = list.metadata.resource_version.clone().unwrap_or_default();
            let mut all: BTreeMap<String, K> =
                list.items.into_iter().map(|item| (item.name_any(), item)).collect();
            if condition(&all) {
                return;
            }
            if let Ok(events) = api.watch(&WatchParams::default().labels(labels), &version).await {
                let mut events = pin!(events);
                while let Ok(Some(event)) = events.try_next().await {
                    match event {
                        WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                            all.insert(item.name_any(), item);
                        }
                        WatchEvent::Deleted(item) => {
                            all.remove(&item.name_any());
                        }
                        WatchEvent::Bookmark(_) => {}
                        WatchEvent::Error(_) => break,
                    }
                    if condition(&all) {
                        return;
                    }
                }
            }
        }
        // Access rules come a little later than the API itself, and a watch may end at any time.
        tokio::time::sleep(PERIOD).await;
    }
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The phase of a pod's life.
pub(crate) fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Whether a pod needs the pod network: one of the control plane has the node's.
fn is_ordinary(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network != Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_the_condition_of_that_name() {
        let conditions = |status: &str| {
            serde_json::json!({ "status": { "conditions": [
                { "type": "Initialized", "status": "True" }, { "type": "Ready", "status": status } ] } })
        };
        for (status, expected) in [("True", true), ("False", false), ("Unknown", false)] {
            let node: Node = serde_json::from_value(conditions(status)).unwrap();
            let pod: Pod = serde_json::from_value(conditions(status)).unwrap();
            assert_eq!((node_is_ready(&node), pod_is_ready(&pod)), (expected, expected), "{status}");
        }
        assert!(!node_is_ready(&Node::default()) && !pod_is_ready(&Pod::default()));
    }

    #[test]
    fn pods_of_the_control_plane_are_not_ordinary() {
        let pod = |host: bool| -> Pod {
            let spec = serde_json::json!({ "hostNetwork": host, "containers": [] });
            serde_json::from_value(serde_json::json!({ "spec": spec, "status": { "phase": "Running" } }))
                .unwrap()
        };
        assert!(is_ordinary(&pod(false)) && !is_ordinary(&pod(true)));
        assert_eq!(phase(&pod(true)), Some("Running"));
    }
}
