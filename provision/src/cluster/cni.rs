//! The CNI manifest that a node image brings, filled in as kind does.
//!
//! Such a manifest asks for it in words. One that wants the subnet of the pods is a template of Go's, of which kind and
//! the manifests of its images use one value; one that wants the address of the API gets it added to the environment of
//! its DaemonSets.

use serde_json::{Value, json};

use super::{inside, node::StartedNode};
use crate::{
    Error, Result,
    config::{self, JsonPatch},
    patch,
};

/// Where kind's contract puts the manifest, which is also what errors call it.
const CNI_MANIFEST: &str = "/kind/manifests/default-cni.yaml";

/// What a manifest says to get the subnet of the pods.
const TEMPLATE: &str = "would you kindly template this file";

/// What a manifest says to get the address of the API.
const PATCH: &str = "would you kindly patch this file";

/// What the manifest of an image whose agent is Kiln's own names as its image.
const AGENT: &str = "docker.io/kiln/agent:";

/// Installs the pod network that the image of the cluster's first node brings.
///
/// # Errors
/// [`Error::NodeFile`] when it brings none, or what [`manifest`] and the API say.
pub(super) async fn install(
    node: &StartedNode,
    client: &kube::Client,
    cluster: &str,
    config: &config::Cluster,
) -> Result<()> {
    let text = inside::read(&node.process, &node.plan.name, CNI_MANIFEST)?;
    let named = config::Cluster { name: cluster.to_owned(), ..config.clone() };
    let endpoint = config::control_plane_endpoint(&named);
    let filled = manifest(&text, config.networking.pod_subnet.as_str(), &endpoint)?;
    super::manifest::apply(client, CNI_MANIFEST, &filled).await
}

/// Whether what the image brings keeps the network as the launcher has made it.
pub(super) fn is_agent(node: &StartedNode) -> bool {
    inside::read(&node.process, &node.plan.name, CNI_MANIFEST).is_ok_and(|text| text.contains(AGENT))
}

/// Fills in what a manifest asks for: the cluster's pod subnets, with a comma between two, and the host and port of the
/// API that work before kube-proxy does.
///
/// # Errors
/// [`Error::Manifest`] for a template that wants anything else, what is not YAML, and a DaemonSet without an environment.
fn manifest(text: &str, pod_subnet: &str, control_plane_endpoint: &str) -> Result<String> {
    let filled = if text.contains(TEMPLATE) { fill(text, pod_subnet)? } else { text.to_owned() };
    if filled.contains(PATCH) { add_endpoint(&filled, control_plane_endpoint) } else { Ok(filled) }
}

/// Puts the pod subnet in place of `{{ .PodSubnet }}`; `{{-` and `-}}` take the white space beside them away.
fn fill(text: &str, pod_subnet: &str) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) =
            after.split_once("}}").ok_or_else(|| damaged("a {{ of the template has no }}"))?;
        let (action, trims_before) =
            action.strip_prefix('-').map_or((action, false), |action| (action, true));
        let (action, trims_after) = action.strip_suffix('-').map_or((action, false), |action| (action, true));
        if action.trim() != ".PodSubnet" {
            return Err(damaged(format!(
                "the template wants {{{{{action}}}}}, and only .PodSubnet is known"
            )));
        }
        filled.push_str(if trims_before { before.trim_end() } else { before });
        filled.push_str(pod_subnet);
        rest = if trims_after { after.trim_start() } else { after };
    }
    filled.push_str(rest);
    Ok(filled)
}

fn add_endpoint(text: &str, endpoint: &str) -> Result<String> {
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| damaged(error.to_string()))?;
    documents.retain(|document| !document.is_null());
    let added = json!([{
        "op": "add",
        "path": "/spec/template/spec/containers/0/env/-",
        "value": { "name": "CONTROL_PLANE_ENDPOINT", "value": endpoint },
    }]);
    let daemon_sets = JsonPatch {
        group: "apps".to_owned(),
        version: "v1".to_owned(),
        kind: "DaemonSet".to_owned(),
        patch: added.to_string(),
    };
    patch::patch_objects(&mut documents, &[], &[daemon_sets], "").map_err(|error| match error {
        Error::Patch { source, .. } => damaged(source.to_string()),
        other => other,
    })?;
    Ok(patch::emit(&documents))
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::Manifest { origin: CNI_MANIFEST.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What matters of the manifest of kind's images.
    const KINDNET: &str = "\
# kindnetd networking manifest
# would you kindly template this file
# would you kindly patch this file
---
kind: ClusterRole
apiVersion: rbac.authorization.k8s.io/v1
metadata:
  name: kindnet
rules:
  - apiGroups:
      - \"\"
    resources:
      - nodes
    verbs:
      - list
      - watch
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: kindnet
  namespace: kube-system
spec:
  template:
    spec:
      containers:
      - name: kindnet-cni
        image: docker.io/kindest/kindnetd:v20250512-df8de77b
        env:
        - name: HOST_IP
          valueFrom:
            fieldRef:
              fieldPath: status.hostIP
        - name: POD_SUBNET
          value: {{ .PodSubnet }}
";

    /// Kiln's own, with a name in place of what the build puts in.
    fn own() -> String {
        include_str!("../../node-image/rootfs/kind/manifests/default-cni.yaml")
            .replace("@AGENT_IMAGE@", "docker.io/kiln/agent:v0")
    }

    fn documents(text: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(text).unwrap()
    }

    fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
        let mut found = documents.iter().filter(|document| document["kind"] == kind);
        let document = found.next().unwrap();
        assert_eq!(found.next(), None);
        document
    }

    fn container(documents: &[Value]) -> &Value {
        &of_kind(documents, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]
    }

    fn variable<'a>(documents: &'a [Value], name: &str) -> &'a Value {
        let env = container(documents)["env"].as_array().unwrap();
        &env.iter().find(|variable| variable["name"] == name).unwrap()["value"]
    }

    #[test]
    fn subnet_and_endpoint_are_filled_in() {
        let subnet = "10.244.0.0/16,fd00:10:244::/56";
        for text in [KINDNET, &own()] {
            let rendered = documents(&manifest(text, subnet, "c-control-plane:6443").unwrap());
            assert_eq!(variable(&rendered, "POD_SUBNET"), subnet);
            assert_eq!(variable(&rendered, "CONTROL_PLANE_ENDPOINT"), "c-control-plane:6443");
            let verbs = of_kind(&rendered, "ClusterRole")["rules"][0]["verbs"].as_array().unwrap();
            assert!(verbs.contains(&json!("watch")));
        }
    }

    #[test]
    fn nothing_is_done_that_is_not_asked_for() {
        let text = KINDNET.replace("kindly", "");
        assert_eq!(manifest(&text, "10.244.0.0/16", "c:6443").unwrap(), text);
        let text = KINDNET.replace("kindly patch", "");
        let rendered = manifest(&text, "10.244.0.0/16", "c:6443").unwrap();
        assert_eq!(rendered, text.replace("{{ .PodSubnet }}", "10.244.0.0/16"));
    }

    #[test]
    fn actions_may_be_tight_or_trim() {
        for (template, expected) in [
            ("a: {{.PodSubnet}} b", "a: S b"),
            ("a:  {{- .PodSubnet }} b", "a:S b"),
            ("a: {{ .PodSubnet -}} \n b", "a: Sb"),
            ("{{ .PodSubnet }}{{ .PodSubnet }}", "SS"),
        ] {
            assert_eq!(fill(template, "S").unwrap(), expected);
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let message = |text: &str| manifest(text, "10.244.0.0/16", "c:6443").unwrap_err().to_string();
        let other = message(&KINDNET.replace(".PodSubnet", ".ServiceSubnet"));
        assert!(other.contains("the template wants {{ .ServiceSubnet }}"), "{other}");
        assert!(message(&KINDNET.replace("}}", "}")).contains("has no }}"));
        let bare = KINDNET.replace("env:", "environment:");
        assert!(message(&bare).contains("/spec/template/spec/containers/0/env/-"), "{}", message(&bare));
    }

    #[test]
    fn the_agent_gets_what_it_needs_and_no_more() {
        let rendered = documents(&manifest(&own(), "10.244.0.0/16", "c:6443").unwrap());
        let pod = &of_kind(&rendered, "DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(pod["hostNetwork"], true);
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
        assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/etc/cni/net.d");
        let container = container(&rendered);
        assert_eq!(container["volumeMounts"][0]["mountPath"], "/etc/cni/net.d");
        let capabilities = json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] });
        assert_eq!(container["securityContext"]["capabilities"], capabilities);
        let node =
            container["env"].as_array().unwrap().iter().find(|env| env["name"] == "NODE_NAME").unwrap();
        assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
        let account = of_kind(&rendered, "ServiceAccount");
        assert_eq!(pod["serviceAccountName"], account["metadata"]["name"]);
        assert_eq!(
            of_kind(&rendered, "ClusterRoleBinding")["subjects"][0]["name"],
            account["metadata"]["name"]
        );
    }
}
