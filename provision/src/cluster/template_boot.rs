//! Bringing a control plane up from a template: etcd is filled before the API server starts, and kubelet starts everything
//! else at once.

use std::{process::Stdio, time::Duration};

use kiln_runtime::{ExecSpec, exec_command};
use tokio::{net::UnixDatagram, sync::Notify};

use super::{
    api, bootstrap, inside,
    node::StartedNode,
    start::{ETCD_MANIFEST, FromFollower, FromTemplate, KUBELET_CONFIG, arguments},
};
use crate::{
    Error, Reporter, Result,
    template::{Cause, Etcd},
    trace,
};

/// How long the control plane may take, as kubeadm has it.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Where etcd listens while it is filled, in the node's `/run`.
const RUN: &str = "/run/kiln-etcd";

/// The arguments that etcd must be filled with as it will be started later: they go into its data.
pub(super) const KEPT_ARGUMENTS: [&str; 5] = [
    "--name=",
    "--data-dir=",
    "--initial-advertise-peer-urls=",
    "--initial-cluster=",
    "--advertise-client-urls=",
];

/// Fills etcd and waits until the control plane answers and the node's kubelet has reported. kubelet is running already.
/// `url` is where its API answers, `client` an administrator of it, and `announced` is told when other nodes may follow.
///
/// # Errors
/// [`Error::Etcd`], or [`Error::ControlPlane`] with the last lines of kubelet.
pub(super) async fn run(
    node: &StartedNode,
    from: &FromTemplate,
    url: &str,
    client: &kube::Client,
    announced: &Notify,
    reporter: &dyn Reporter,
) -> Result<()> {
    let name = &node.plan.name;
    reporter.step(&format!("{name}: filling etcd"));
    let filled = trace::step(name, "fill etcd").over(fill(node, from)).await;
    filled.map_err(|source| Error::Etcd { what: "fill", node: name.clone(), source })?;
    inside::write_private(&node.process, name, ETCD_MANIFEST, &from.etcd_manifest)?;
    reporter.step(&format!("{name}: waiting for the API server"));
    let kubelet = api::connect(from.keys.kubelet_conf(), url).await?;
    let up = async {
        trace::wait(name, "the API to know kubelet").over(api::lists_services(&kubelet)).await;
        // kubelet has tried while nobody answered, and doubles its pauses: what looks for pods, and what looks for the
        // Services that pods are told of, may be asleep for seconds yet. A new one asks at once, and until it does, the API
        // server gets ready.
        trace::step(name, "start kubelet anew").over(bootstrap::restart_kubelet(&node.process)).await;
        trace::wait(name, "the API server to be ready").over(api::answers(client)).await;
        // Other nodes need nothing more of this one.
        announced.notify_one();
        reporter.step(&format!("{name}: waiting for kubelet to report"));
        trace::wait(name, "kubelet to report").over(api::reported(client, name)).await;
    };
    if tokio::time::timeout(TIMEOUT, up).await.is_err() {
        return Err(Error::ControlPlane {
            node: name.clone(),
            seconds: TIMEOUT.as_secs(),
            kubelet: bootstrap::kubelet_log(&node.process).await,
        });
    }
    Ok(())
}

/// Lets the kubelet of a node that follows the first start, and waits until it reports. The API answers already.
///
/// # Errors
/// [`Error::KubeletSilent`] with the last lines of kubelet.
pub(super) async fn follow(
    node: &StartedNode,
    from: FromFollower<'_>,
    client: &kube::Client,
    reporter: &dyn Reporter,
) -> Result<()> {
    let name = &node.plan.name;
    reporter.step(&format!("{name}: starting kubelet"));
    inside::write(&node.process, name, KUBELET_CONFIG, from.kubelet_config())?;
    trace::step(name, "start kubelet").over(bootstrap::start_kubelet(&node.process)).await;
    reporter.step(&format!("{name}: waiting for kubelet to report"));
    let reported = tokio::time::timeout(TIMEOUT, api::reported(client, name));
    if trace::wait(name, "kubelet to report").over(reported).await.is_ok() {
        return Ok(());
    }
    Err(Error::KubeletSilent {
        node: name.clone(),
        seconds: TIMEOUT.as_secs(),
        kubelet: bootstrap::kubelet_log(&node.process).await,
    })
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
