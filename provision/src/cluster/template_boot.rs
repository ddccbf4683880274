//! Bringing a control plane up from a template: etcd is filled before the API server starts, and kubelet starts everything
//! else at once.

use std::{
    convert::Infallible,
    path::Path,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    api,
    bootstrap::{self, Asks},
    inside,
    node::StartedNode,
    start::{ETCD_MANIFEST, FromFollower, FromTemplate, KUBELET_CONFIG, STATIC_PODS},
    template_etcd::{self, EtcdMember},
};
use crate::{Error, Reporter, Result, pki::Keys, template::Credentials, trace};

/// How long the control plane may take, as kubeadm has it.
const TIMEOUT: Duration = Duration::from_secs(240);

/// How often kubelet is told of its static pods again.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(250);

/// Where kubelet has the logs of pods, a directory for each (`podLogsDir`): `NAMESPACE_POD_UID`.
const POD_LOGS: &str = "/var/log/pods";

/// Fills etcd and waits until the control plane answers and the node's kubelet has reported. The kubelets of control planes
/// are running already; `members` are the etcds that they are to start, this node's first. `url` is where this node's API
/// answers, `client` an administrator of it, and `announced` is told when other nodes may follow.
///
/// # Errors
/// [`Error::Etcd`], or [`Error::ControlPlane`] with the last lines of kubelet.
pub(super) async fn run(
    node: &StartedNode,
    from: &FromTemplate,
    members: &[EtcdMember<'_>],
    url: &str,
    client: &kube::Client,
    announced: &Notify,
    reporter: &dyn Reporter,
) -> Result<()> {
    let name = &node.plan.name;
    reporter.step(&format!("{name}: filling etcd"));
    let failed = |source| Error::Etcd { what: "fill", node: name.clone(), source };
    let filled = template_etcd::fill(members, from.beginning.values.clone());
    let filled = trace::step(name, "fill etcd").over(filled).await.map_err(failed)?;
    let credentials = credentials(&from.keys).ok_or("there are no keys for etcd".into()).map_err(failed)?;
    let begun = Notify::new();
    let handed_over = async {
        let all = filled.hand_over(&credentials, || begun.notify_one());
        let all = tokio::time::timeout(TIMEOUT, all).await;
        all.unwrap_or_else(|_| Err("not every member serves in time".into())).map_err(failed)
    };
    let up = async {
        begun.notified().await;
        reporter.step(&format!("{name}: waiting for the API server"));
        // Other nodes need nothing more of this one than its API.
        let kubelet = api::connect(&from.keys.kubelet.whole, url).await?;
        up(node, &kubelet, client, reporter, || announced.notify_one()).await
    };
    tokio::try_join!(handed_over, up).map(drop)
}

/// What the API server of the first node shows etcd.
fn credentials(keys: &Keys) -> Option<Credentials> {
    let pki = |name| keys.pki(name).map(str::to_owned);
    Some(Credentials {
        ca: pki("etcd/ca.crt")?,
        certificate: pki("apiserver-etcd-client.crt")?,
        key: pki("apiserver-etcd-client.key")?,
    })
}

/// Starts the rest of a control plane that follows the first, and waits until it answers and its kubelet has reported. Its
/// kubelet runs, and with it etcd. `url` is where its API answers.
///
/// # Errors
/// What keeps files from being written, or [`Error::ControlPlane`] with the last lines of kubelet.
pub(super) async fn join(
    node: &StartedNode,
    from: FromFollower<'_>,
    url: &str,
    reporter: &dyn Reporter,
) -> Result<()> {
    let name = &node.plan.name;
    reporter.step(&format!("{name}: waiting for the API server"));
    let [api_server, others @ ..] = &STATIC_PODS;
    let write = |path: &str| match from.file(path) {
        Some(text) => inside::write_private(&node.process, name, path, text),
        None => Ok(()),
    };
    write(api_server)?;
    let kubelet = api::connect(&from.kubelet().whole, url).await?;
    let mut written = Ok(());
    // They ask this API server, and end when it does not answer soon.
    let start_others = || written = others.iter().try_for_each(|path| write(path));
    up(node, &kubelet, &kubelet, reporter, start_others).await?;
    written
}

/// Waits until the API server of a node answers its `kubelet`, and then `client`; calls `ready`, and waits until the kubelet has
/// reported.
async fn up(
    node: &StartedNode,
    kubelet: &kube::Client,
    client: &kube::Client,
    reporter: &dyn Reporter,
    ready: impl FnOnce(),
) -> Result<()> {
    let name = &node.plan.name;
    let begun = Instant::now();
    let up = async {
        let knows = trace::wait(name, "the API to know kubelet").over(api::lists_services(kubelet));
        tokio::select! {
            () = knows => {}
            never = announce(node) => match never {},
        }
        // kubelet has tried while nobody answered, and doubles its pauses: what looks for pods, and what looks for the
        // Services that pods are told of, may be asleep for seconds yet. A new one asks at once, and until it does, the API
        // server gets ready.
        Asks::AsNode.or_anew(&node.process, name, begun.elapsed()).await;
        trace::wait(name, "the API server to be ready").over(api::answers(client)).await;
        ready();
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

/// Tells kubelet of its static pods again and again, until it begins with them. It lists them when it starts, and has the
/// kernel tell it of others a moment later: one that was written in between would wait until it lists them anew, after 20 s
/// (`fileCheckFrequency`).
async fn announce(node: &StartedNode) -> Infallible {
    loop {
        tokio::time::sleep(ANNOUNCE_EVERY).await;
        let tree = inside::Tree::open(&node.plan.name, &node.process.root());
        let begun = tree.and_then(|tree| tree.list(POD_LOGS)).unwrap_or_default();
        for path in [ETCD_MANIFEST].iter().chain(&STATIC_PODS).filter(|path| !has_begun(path, &begun)) {
            // One that is not there yet is told of when it is.
            let _ = inside::announce(&node.process, path);
        }
    }
}

/// Whether there are logs of the static pod that this manifest is for.
fn has_begun(manifest: &str, logs: &[String]) -> bool {
    let pod = Path::new(manifest).file_stem().unwrap_or_default().to_string_lossy();
    logs.iter().any(|name| name.starts_with(&format!("kube-system_{pod}-")))
}

/// Lets the kubelet of a worker start, and waits until it reports. The API answers already.
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
    inside::write(&node.process, name, KUBELET_CONFIG, from.file(KUBELET_CONFIG).unwrap_or_default())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelet_is_told_of_what_it_has_not_begun_with() {
        let logs =
            ["kube-system_etcd-kind-control-plane_5fe8", "default_kube-apiserver-kind-control-plane_1"]
                .map(str::to_owned);
        assert!(has_begun(ETCD_MANIFEST, &logs));
        for manifest in STATIC_PODS {
            assert!(!has_begun(manifest, &logs), "{manifest}");
        }
        assert!(has_begun(STATIC_PODS[0], &["kube-system_kube-apiserver-kind-control-plane_1".to_owned()]));
    }
}
