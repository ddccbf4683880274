//! The marks of a boot, by watches on the API wherever it has one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::pin,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kiln_integration::api;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, PostParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{Result, usage};

/// How often the API is asked before it can be watched: what a mark may be late.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);
/// When to give up on the whole.
const LIMIT: Duration = Duration::from_secs(300);
/// The first address of the Service network, which `kubernetes.default` always has.
const KUBERNETES: &str = "10.96.0.1";
const POD: &str = "asks-dns";
const ANSWERED: &str = "answered";

/// Seconds from time zero, and the CPU-seconds of the cluster up to the first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) api: f64,
    pub(crate) nodes: f64,
    pub(crate) dns: f64,
    pub(crate) pod: f64,
    pub(crate) api_cpu: f64,
}

impl Marks {
    /// Waits for all marks. `admin` is kubeadm's kubeconfig in the node's file system, which is there before anything
    /// answers; `port` is where the API is published on 127.0.0.1; `expected` nodes will register.
    pub(crate) async fn observe(
        start: SystemTime,
        admin: PathBuf,
        port: u16,
        cluster: &str,
        expected: usize,
    ) -> Result<Self> {
        let watch = async {
            let client = connect(&admin, port).await;
            let api = since(start);
            let api_cpu = usage::cpu_seconds(cluster)?;
            let nodes = Api::<Node>::all(client.clone());
            let system = Api::<Pod>::namespaced(client.clone(), "kube-system");
            let user = Api::<Pod>::default_namespaced(client);
            let nodes_then_pod = async {
                let ready =
                    |all: &BTreeMap<String, Node>| all.len() == expected && all.values().all(node_is_ready);
                holds(&nodes, "", ready).await;
                let nodes = since(start);
                let pod = ask_dns(&user).await? - epoch(start);
                Ok::<_, Box<dyn std::error::Error>>((nodes, pod))
            };
            let dns = async {
                let both =
                    |all: &BTreeMap<String, Pod>| all.values().filter(|pod| pod_is_ready(pod)).count() >= 2;
                holds(&system, "k8s-app=kube-dns", both).await;
                Ok(since(start))
            };
            let ((nodes, pod), dns) = tokio::try_join!(nodes_then_pod, dns)?;
            Ok(Self { api, nodes, dns, pod, api_cpu })
        };
        tokio::time::timeout(LIMIT, watch).await.map_err(|_| format!("no cluster after {LIMIT:?}"))?
    }
}

/// Seconds since a moment.
pub(crate) fn since(start: SystemTime) -> f64 {
    start.elapsed().unwrap_or_default().as_secs_f64()
}

fn epoch(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A client of an API that is ready.
async fn connect(admin: &Path, port: u16) -> Client {
    let server = format!("https://127.0.0.1:{port}");
    let client = loop {
        // A file that is half-written is no kubeconfig yet.
        if let Ok(text) = fs_err::read_to_string(admin)
            && let Ok(client) = api::client(&text, Some(&server)).await
        {
            break client;
        }
        // A file in a directory that is not there yet cannot be watched.
        tokio::time::sleep(PERIOD).await;
    };
    while api::get_with(&client, "/readyz").await.as_deref() != Ok("ok") {
        // What does not answer cannot be watched.
        tokio::time::sleep(PERIOD).await;
    }
    client
}

/// Returns when the objects that `labels` select fulfil a condition.
async fn holds<K>(api: &Api<K>, labels: &str, condition: impl Fn(&BTreeMap<String, K>) -> bool)
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug,
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

/// Runs a pod that asks for a Service until it gets an answer; when that was, in seconds since the epoch.
async fn ask_dns(pods: &Api<Pod>) -> Result<f64> {
    let script = format!(
        "until nslookup -type=a kubernetes.default.svc.cluster.local | grep -q {KUBERNETES}; do sleep 0.1; done; \
         echo {ANSWERED}"
    );
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": POD },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": POD,
                "image": "docker.io/library/busybox:stable",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", script],
            }],
        },
    }))?;
    while let Err(error) = pods.create(&PostParams::default(), &pod).await {
        if matches!(&error, kube::Error::Api(status) if status.code == 409) {
            break;
        }
        // The namespace's default service account is made some time after the API is ready.
        tokio::time::sleep(PERIOD).await;
    }
    holds(pods, "", |all| {
        let phase = all.get(POD).and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    })
    .await;
    let parameters = LogParams { timestamps: true, ..LogParams::default() };
    let logs = pods.logs(POD, &parameters).await?;
    answered_at(&logs).ok_or_else(|| format!("pod {POD} got no answer; its log:\n{logs}").into())
}

fn answered_at(logs: &str) -> Option<f64> {
    let line = logs.lines().find(|line| line.ends_with(ANSWERED))?;
    let time: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
    Some(time.as_duration().as_secs_f64())
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_s_time_is_read_from_the_log() {
        let logs = "2026-11-23T12:00:00.1Z ;; timed out\n2026-11-23T12:00:01.250000000Z answered\n";
        let expected: jiff::Timestamp = "2026-11-23T12:00:01.25Z".parse().expect("a time");
        assert_eq!(answered_at(logs), Some(expected.as_duration().as_secs_f64()));
        assert_eq!(answered_at("2026-11-23T12:00:00.1Z ;; timed out\n"), None);
    }
}
