//! Bringing a control plane up from a template: etcd is filled before the API server starts, and kubelet starts everything
//! else at once.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use kiln_runtime::{ExecSpec, exec_command};
use serde_json::{Value, json};
use tokio::net::UnixDatagram;

use super::{
    api, bootstrap, inside,
    node::StartedNode,
    start::{ETCD_MANIFEST, FromTemplate, Leaves},
};
use crate::{
    Error, Reporter, Result,
    kubeadm::document,
    template::{self, Cause, Etcd, Seed, Template},
    trace,
};

/// How long the control plane may take, as kubeadm has it.
const TIMEOUT: Duration = Duration::from_secs(240);

/// How long kubelet may take to notice the API server before it is started anew, which takes as long.
const PATIENCE: Duration = Duration::from_millis(700);

/// Where etcd listens while it is filled, in the node's `/run`.
const RUN: &str = "/run/kiln-etcd";

/// The arguments that etcd must be filled with as it will be started later: they go into its data.
const KEPT_ARGUMENTS: [&str; 5] = [
    "--name=",
    "--data-dir=",
    "--initial-advertise-peer-urls=",
    "--initial-cluster=",
    "--advertise-client-urls=",
];

/// Fills etcd and waits until the control plane answers and the node is registered. kubelet is running already.
///
/// # Errors
/// [`Error::Etcd`], or [`Error::ControlPlane`] with the last lines of kubelet.
pub(super) async fn run(
    node: &StartedNode,
    from: &FromTemplate,
    client: &kube::Client,
    reporter: &dyn Reporter,
) -> Result<()> {
    let name = &node.plan.name;
    reporter.step(&format!("{name}: filling etcd"));
    let filled = trace::step(name, "fill etcd").over(fill(node, from)).await;
    filled.map_err(|source| Error::Etcd { what: "fill", node: name.clone(), source })?;
    inside::write_private(&node.process, name, ETCD_MANIFEST, &from.etcd_manifest)?;
    reporter.step(&format!("{name}: waiting for the API server"));
    let up = async {
        trace::wait(name, "the API server to be ready").over(api::answers(client)).await;
        reporter.step(&format!("{name}: waiting for kubelet to register the node"));
        // kubelet has tried while nobody answered, and doubles its pauses: it may be asleep for seconds.
        let registered = tokio::time::timeout(PATIENCE, api::registered(client, name));
        if trace::wait(name, "kubelet to register the node").over(registered).await.is_err() {
            bootstrap::restart_kubelet(&node.process).await;
            api::registered(client, name).await;
        }
    };
    if tokio::time::timeout(TIMEOUT, up).await.is_err() {
        return Err(Error::ControlPlane {
            node: name.clone(),
            seconds: TIMEOUT.as_secs(),
            kubelet: bootstrap::kubelet_log(&node.process).await,
        });
    }
    let annotations: BTreeMap<_, _> = from.beginning.annotations.iter().cloned().collect();
    api::mark_control_plane(client, name, &annotations, &taints(&node.plan.kubeadm)).await
}

/// The taints that a control plane gets: kubeadm's own unless its configuration has others.
fn taints(kubeadm: &str) -> Vec<Value> {
    let init = document(kubeadm, "InitConfiguration").unwrap_or_default();
    let configured = init["nodeRegistration"]["taints"].as_array().cloned();
    configured.unwrap_or_else(|| vec![json!({"key": api::CONTROL_PLANE_TAINT, "effect": "NoSchedule"})])
}

/// Runs etcd for as long as it takes to write the template's values.
async fn fill(node: &StartedNode, from: &FromTemplate) -> Result<(), Cause> {
    let process = &node.process;
    let run = process.root().join(RUN.trim_start_matches('/'));
    fs_err::create_dir_all(&run)?;
    let ready = UnixDatagram::bind(run.join("notify"))?;
    let mut args = vec![from.etcd.display().to_string()];
    let arguments = arguments(&from.etcd_manifest);
    args.extend(
        KEPT_ARGUMENTS
            .iter()
            .filter_map(|kept| arguments.iter().find(|found| found.starts_with(kept)).cloned()),
    );
    args.extend([
        format!("--listen-client-urls=unix://{RUN}/client"),
        format!("--listen-peer-urls=unix://{RUN}/peer"),
        // Nobody else has a vote, and what a crash would lose is thrown away with the cluster.
        "--heartbeat-interval=10".to_owned(),
        "--election-timeout=50".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=error".to_owned(),
    ]);
    let env = vec![format!("NOTIFY_SOCKET={RUN}/notify")];
    let mut command =
        tokio::process::Command::from(exec_command(process, &ExecSpec { args, env, ..ExecSpec::default() })?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let written = async {
        let mut message = [0; 256];
        loop {
            let length = ready.recv(&mut message).await?;
            if message[..length].starts_with(b"READY=1") {
                break;
            }
        }
        Etcd::local(run.join("client")).await?.put(from.beginning.values.clone()).await
    };
    let ended = tokio::select! {
        written = written => {
            written?;
            None
        }
        status = child.wait() => Some(status?),
    };
    if let Some(status) = ended {
        return Err(format!("it ended with {status}: {}", said(child).await).into());
    }
    if let Some(pid) =
        child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw)
    {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    child.wait().await?;
    // In memory, and of no use any more; the node's own processes may be in it by now, but none of them is.
    fs_err::remove_dir_all(run)?;
    Ok(())
}

async fn said(mut child: tokio::process::Child) -> String {
    let mut text = String::new();
    if let Some(mut errors) = child.stderr.take() {
        let _ = tokio::io::AsyncReadExt::read_to_string(&mut errors, &mut text).await;
    }
    bootstrap::last_lines(&text, 3)
}

/// The arguments of the program in a static pod's manifest.
fn arguments(manifest: &str) -> Vec<String> {
    let pod: Value = serde_saphyr::from_str(manifest).unwrap_or_default();
    let command = pod["spec"]["containers"][0]["command"].as_array().cloned().unwrap_or_default();
    command.iter().filter_map(|argument| argument.as_str().map(str::to_owned)).collect()
}

/// Files that kubeadm writes into the first node. All but the last are there with every version.
const FILES: [&str; 7] = [
    ETCD_MANIFEST,
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    "/etc/kubernetes/manifests/kube-controller-manager.yaml",
    "/etc/kubernetes/manifests/kube-scheduler.yaml",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
    "/var/lib/kubelet/instance-config.yaml",
];

/// The port of etcd on its node.
const ETCD_PORT: u16 = 2379;

/// Reads a template of a cluster that kubeadm has set up.
///
/// # Errors
/// A reason for there being none.
pub(super) async fn leave(
    node: &StartedNode,
    leaves: &Leaves,
    client: &kube::Client,
) -> Result<Template, Cause> {
    api::add_ons_bound(client).await;
    let (process, name) = (&node.process, &node.plan.name);
    let pki = |file: &str| inside::read(process, name, &format!("/etc/kubernetes/pki/{file}"));
    let mut files = Vec::new();
    for path in FILES {
        match inside::read(process, name, path) {
            Ok(text) => files.push((path.to_owned(), text)),
            Err(Error::NodeFile { source, .. })
                if source.kind() == io::ErrorKind::NotFound && path.ends_with("instance-config.yaml") => {}
            Err(error) => return Err(error.into()),
        }
    }
    let found = arguments(&files[0].1);
    if let Some(missing) =
        KEPT_ARGUMENTS.iter().find(|kept| !found.iter().any(|found| found.starts_with(*kept)))
    {
        return Err(format!("etcd is started without {missing}").into());
    }
    let address: IpAddr = leaves.origin.addresses.first().ok_or("the node has no address")?.parse()?;
    let seed = Seed {
        origin: leaves.origin.clone(),
        etcd: SocketAddr::new(address, ETCD_PORT),
        credentials: [
            pki("etcd/ca.crt")?,
            pki("apiserver-etcd-client.crt")?,
            pki("apiserver-etcd-client.key")?,
        ],
        files,
        annotations: api::kubeadm_annotations(client, name).await?,
    };
    template::read(seed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_program() {
        let manifest = "spec:\n  containers:\n  - command:\n    - etcd\n    - --name=n\n    - --data-dir=/var/lib/etcd\n";
        assert_eq!(arguments(manifest), ["etcd", "--name=n", "--data-dir=/var/lib/etcd"]);
        assert!(arguments("kind: [").is_empty());
    }

    #[test]
    fn taints_are_kubeadms_unless_configured() {
        let usual = taints("kind: InitConfiguration\nnodeRegistration: {}\n");
        assert_eq!(usual, [json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"})]);
        assert!(taints("kind: InitConfiguration\nnodeRegistration: {taints: []}\n").is_empty());
    }
}
