//! Nodes of a template: what kubeadm and kubelet have made of a node, for another cluster's node of the same kind.
//!
//! A node that is in etcd from the beginning has its pod range before kube-controller-manager runs, and a kubelet whose
//! credentials are there needs no bootstrap token and nobody to sign: it finds its node and reports.

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Cause, Origin, REGISTRY, TemplateKey,
    etcd::KeyValue,
    object::{timestamp, written},
    random_uids,
};
use crate::pki::Keys;

/// What begins the names of annotations that kubeadm makes; others are kubelet's and the controllers' own.
const KUBEADM: &str = "kubeadm.";

/// What begins the names of taints that the controllers put on nodes and take away.
const CONDITIONS: &str = "node.kubernetes.io/";

/// The taint that keeps ordinary pods off control planes.
pub(crate) const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// The label that keeps a node out of load balancers.
pub(crate) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A node as it was when its cluster was complete, less what its kubelet reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// What was asked of it.
    pub(crate) key: TemplateKey,
    /// Its cluster, with this node's name and addresses.
    pub(super) origin: Origin,
    /// Files that kubeadm has written, by their paths.
    pub(super) files: Vec<(String, String)>,
    /// Labels, annotations and specification, and what it has room for.
    pub(super) object: Value,
}

/// A node of a new cluster.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    /// Files, by their paths.
    pub(crate) files: Vec<(String, String)>,
    /// The node's object.
    pub(crate) value: KeyValue,
}

impl Member {
    /// Keeps what is the node's for as long as its cluster has it.
    pub(crate) fn new(key: TemplateKey, origin: Origin, files: Vec<(String, String)>, node: &Value) -> Self {
        let mut annotations = node["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        annotations.retain(|name, _| name.starts_with(KUBEADM));
        let mut spec = node["spec"].as_object().cloned().unwrap_or_default();
        // The new node's are given to it.
        spec.retain(|name, _| !name.starts_with("podCIDR"));
        if let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut) {
            taints.retain(|taint| !taint["key"].as_str().unwrap_or_default().starts_with(CONDITIONS));
        }
        let labels = node["metadata"]["labels"].clone();
        // A kubelet that finds its node without room refuses its pods, and ends those that run, until it has reported.
        let room =
            json!({ "capacity": node["status"]["capacity"], "allocatable": node["status"]["allocatable"] });
        let object = json!({ "metadata": { "labels": labels, "annotations": annotations }, "spec": spec, "status": room });
        Self { key, origin, files, object }
    }

    /// The same node in another cluster. `taints` are a control plane's own; `None` for other nodes, and for one that is
    /// alone.
    ///
    /// # Errors
    /// That something is not understood, or that the kernel gives no randomness.
    pub(crate) fn begin(
        &self,
        new: &Origin,
        keys: &Keys,
        ranges: &[IpNet],
        taints: Option<&[Value]>,
        created: Timestamp,
    ) -> Result<Begun, Cause> {
        let texts = self.origin.texts(new, keys);
        let renamed = |text: &str| {
            let text = texts.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
            self.origin.rename(new, &text)
        };
        let files = self.files.iter().map(|(path, text)| (path.clone(), renamed(text))).collect();
        let mut object: Value = serde_json::from_str(&renamed(&self.object.to_string()))?;
        let spec = object["spec"].as_object_mut().ok_or("a node's specification is not understood")?;
        set_taints(spec, taints.unwrap_or_default());
        if let Some(first) = ranges.first() {
            spec.insert("podCIDR".to_owned(), json!(first.to_string()));
            let all: Vec<_> = ranges.iter().map(IpNet::to_string).collect();
            spec.insert("podCIDRs".to_owned(), json!(all));
        }
        let uid = random_uids(1)?.swap_remove(0);
        let metadata = object["metadata"].as_object_mut().ok_or("a node's metadata is not understood")?;
        metadata.insert("name".to_owned(), json!(new.node));
        metadata.insert("uid".to_owned(), json!(String::from_utf8_lossy(&uid)));
        metadata.insert("creationTimestamp".to_owned(), json!(timestamp(created)));
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.retain(|name, _| name != EXCLUDE_LABEL);
            if taints.is_some() {
                labels.insert(EXCLUDE_LABEL.to_owned(), json!(""));
            }
        }
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Node");
        let key = format!("{REGISTRY}minions/{}", new.node);
        Ok(Begun { files, value: written(&key, &object) })
    }
}

/// Gives a node the taints of a control plane beside its own, or none of them.
fn set_taints(spec: &mut Map<String, Value>, wanted: &[Value]) {
    let mut taints = spec.remove("taints").and_then(|taints| taints.as_array().cloned()).unwrap_or_default();
    let same = |one: &Value, other: &Value| one["key"] == other["key"] && one["effect"] == other["effect"];
    taints.retain(|taint| {
        taint["key"] != CONTROL_PLANE_TAINT && !wanted.iter().any(|wanted| same(wanted, taint))
    });
    taints.extend(wanted.iter().cloned());
    if !taints.is_empty() {
        spec.insert("taints".to_owned(), Value::Array(taints));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let kubelet = crate::pki::Kubelet::default();
        let followers = std::collections::BTreeMap::new();
        Keys { files: Vec::new(), ca: "CA".into(), front_proxy_ca: "CA".into(), kubelet, followers }
    }

    fn origin(cluster: &str, address: &str) -> Origin {
        Origin {
            cluster: cluster.to_owned(),
            node: format!("{cluster}-worker"),
            addresses: vec![address.to_owned()],
            endpoint: format!("{cluster}-control-plane:6443"),
            ca: format!("CA of {cluster}"),
            front_proxy_ca: format!("front of {cluster}"),
        }
    }

    fn begun(node: &Value, ranges: &[IpNet], taints: Option<&[Value]>) -> (Value, Vec<(String, String)>) {
        let files = vec![("/f".to_owned(), "--node-ip=172.30.0.3 https://a-control-plane:6443".to_owned())];
        let member = Member::new(TemplateKey::default(), origin("a", "172.30.0.3"), files, node);
        let begun =
            member.begin(&origin("b", "172.30.9.4"), &keys(), ranges, taints, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(begun.value.key, b"/registry/minions/b-worker");
        (serde_json::from_slice(&begun.value.value).unwrap(), begun.files)
    }

    fn node() -> Value {
        json!({
            "metadata": {
                "name": "a-worker", "uid": "old",
                "labels": { "kubernetes.io/hostname": "a-worker", "mine": "yes", EXCLUDE_LABEL: "" },
                "annotations": { "kubeadm.alpha.kubernetes.io/cri-socket": "unix:///s", "node.alpha.kubernetes.io/ttl": "0" },
            },
            "spec": {
                "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"], "providerID": "kind://kiln/a/a-worker",
                "taints": [
                    { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" },
                    { "key": CONTROL_PLANE_TAINT, "effect": "NoSchedule" },
                    { "key": "mine", "effect": "NoExecute" },
                ],
            },
            "status": { "capacity": { "cpu": "2" }, "allocatable": { "cpu": "2" }, "nodeInfo": { "machineID": "m" } },
        })
    }

    #[test]
    fn a_node_keeps_what_it_was_asked_for_and_is_another() {
        let range = "10.244.2.0/24".parse().unwrap();
        let (object, files) = begun(&node(), &[range], None);
        assert_eq!(files[0].1, "--node-ip=172.30.9.4 https://b-control-plane:6443");
        let metadata = &object["metadata"];
        assert_eq!(metadata["labels"], json!({ "kubernetes.io/hostname": "b-worker", "mine": "yes" }));
        assert_eq!(metadata["annotations"], json!({ "kubeadm.alpha.kubernetes.io/cri-socket": "unix:///s" }));
        assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
        let expected = json!({
            "providerID": "kind://kiln/b/b-worker",
            "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"],
            "taints": [{ "key": "mine", "effect": "NoExecute" }],
        });
        assert_eq!(object["spec"], expected);
        assert_eq!(object["status"], json!({ "capacity": { "cpu": "2" }, "allocatable": { "cpu": "2" } }));
    }

    #[test]
    fn a_control_plane_beside_others_is_marked_as_one() {
        let taint = json!({ "key": CONTROL_PLANE_TAINT, "effect": "NoSchedule" });
        let (object, _) = begun(&node(), &[], Some(std::slice::from_ref(&taint)));
        assert_eq!(object["metadata"]["labels"][EXCLUDE_LABEL], "");
        assert_eq!(object["spec"]["taints"], json!([{ "key": "mine", "effect": "NoExecute" }, taint]));
        assert_eq!(object["spec"].get("podCIDR"), None);
    }
}
