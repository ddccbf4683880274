//! CoreDNS of a cluster that kubeadm sets up: kubeadm's own objects, installed as soon as the API answers, and asked for
//! readiness every second.
//!
//! kubeadm leaves the period of the probe open, which makes it ten seconds. A kubelet that has just started waits for a random
//! part of it before it asks first (kubernetes' `prober/worker.go`), which is most of what is left of a boot then.

use std::process::Stdio;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Client, api::Api};
use serde_json::{Value, json};

use super::{api, bootstrap::KUBEADM_CONF, inside, manifest, node::StartedNode};
use crate::{
    Reporter, Result,
    kubeadm::{KubernetesVersion, document},
    trace,
};

/// The phase of kubeadm that is left out.
const PHASE: &str = "addon/coredns";

/// The first minor version whose kubeadm prints the objects of its add-ons.
const PRINTED_SINCE: u32 = 29;

/// Seconds between two probes.
const PERIOD: u32 = 1;

/// What kubeadm would install, changed to be ready sooner.
#[derive(Debug)]
pub(super) struct Dns {
    objects: String,
    /// The phases that kubeadm is to leave out.
    pub(super) skipped: String,
}

/// Asks kubeadm for its objects. `None` where it is not to install them, or does not print them: then they are left to it.
pub(super) async fn printed(node: &StartedNode, reporter: &dyn Reporter) -> Option<Dns> {
    let version: KubernetesVersion = node.plan.kubernetes_version.parse().ok()?;
    let init = document(&node.plan.kubeadm, "InitConfiguration")?;
    let mut skipped: Vec<_> =
        init["skipPhases"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if !version.at_least(PRINTED_SINCE) || skipped.iter().any(|phase| phase == PHASE || phase == "addon") {
        return None;
    }
    let name = &node.plan.name;
    let _span = trace::exec(name, "kubeadm init phase addon coredns");
    let args = ["kubeadm", "init", "phase", "addon", "coredns", "--print-manifest", "--config", KUBEADM_CONF];
    let mut command = inside::command(&node.process, &args).ok()?;
    let output = command.stderr(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    let text = output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten();
    let Some(objects) = text.as_deref().and_then(hastened) else {
        reporter.message(1, &format!("{name}: kubeadm does not print its CoreDNS, and installs it"));
        return None;
    };
    skipped.push(PHASE.to_owned());
    Some(Dns { objects, skipped: skipped.join(",") })
}

impl Dns {
    /// Installs the objects when the API answers and has their namespace.
    ///
    /// # Errors
    /// [`crate::Error::Api`] naming the object that was refused.
    pub(super) async fn install(&self, client: &Client) -> Result<()> {
        api::answers(client).await;
        let namespaces = Api::<Namespace>::all(client.clone());
        api::first_match(namespaces, api::named("kube-system"), |_| Some(())).await;
        let applied = manifest::apply(client, "CoreDNS, as kubeadm prints it,", &self.objects);
        trace::step("", "install CoreDNS").over(applied).await
    }
}

/// The objects with another period of the readiness probe; `None` when they are not what is expected.
fn hastened(text: &str) -> Option<String> {
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&documents(text)).ok()?;
    objects.retain(|object| !object.is_null());
    let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment")?;
    for container in deployment.pointer_mut("/spec/template/spec/containers")?.as_array_mut()? {
        if let Some(probe) = container.get_mut("readinessProbe").and_then(Value::as_object_mut) {
            probe.insert("periodSeconds".to_owned(), json!(PERIOD));
        }
    }
    // JSON is YAML.
    Some(objects.iter().map(|object| format!("---\n{object}\n")).collect())
}

/// What kubeadm prints, as YAML. Where it has patches it tells of them in between, and an object that it has read and written
/// again begins on the line of its marker.
fn documents(printed: &str) -> String {
    let lines = printed.lines().filter(|line| !line.starts_with("[patches]"));
    let parted = lines.map(|line| match line.strip_prefix("---") {
        Some(first) => format!("---\n{first}\n"),
        None => format!("{line}\n"),
    });
    parted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_is_another_and_the_rest_the_same() {
        let text = "---\nkind: Service\nmetadata: {name: kube-dns}\n---\nkind: Deployment\nspec:\n  template:\n    spec:\n      \
                    containers:\n      - name: coredns\n        readinessProbe: {httpGet: {port: 8181}}\n---\n";
        let objects: Vec<Value> = serde_saphyr::from_multiple(&hastened(text).unwrap()).unwrap();
        assert_eq!(objects[0], json!({ "kind": "Service", "metadata": { "name": "kube-dns" } }));
        assert_eq!(
            objects[1]["spec"]["template"]["spec"]["containers"][0],
            json!({ "name": "coredns", "readinessProbe": { "httpGet": { "port": 8181 }, "periodSeconds": 1 } })
        );
        let patched =
            text.replace("---\nkind: D", "[patches] Found the following patch files: [x.yaml]\n---kind: D");
        assert_ne!(patched, text);
        assert_eq!(hastened(&patched), hastened(text));
        assert!(hastened("kind: Service\n").is_none());
        assert!(hastened("error: [").is_none());
    }
}
