//! Bringing what nodes and clusters know of registries up to date.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use kiln_runtime::Process;
use kube::Client;

use super::{super::api, hosting, hosts::Known};
use crate::{
    Paths, Reporter, Result,
    cluster::inside::Tree,
    state::{self, NodeRecord, NodeRole, Phase, RegistryRecord},
};

/// How long a cluster's API may take to answer; one that does not run does not answer at all.
const ANSWER: Duration = Duration::from_secs(10);

/// Tells the nodes of a cluster that is being made.
///
/// # Errors
/// [`crate::Error::Lock`], or [`crate::Error::File`] when the records cannot be read.
pub(in super::super) async fn tell_nodes(
    paths: &Paths,
    cluster: &str,
    reporter: &dyn Reporter,
) -> Result<()> {
    // Most hosts have no registry, and need no lock for that.
    if state::registry_names(paths)?.is_empty() {
        return Ok(());
    }
    let _lock = state::registry_lock(paths, reporter).await?;
    tell(paths, cluster, &Known::of(&state::load_registries(paths)?), reporter)
}

/// Tells a cluster that is being made, its nodes once more: registries may have come and gone since.
///
/// # Errors
/// As [`tell_nodes`].
pub(in super::super) async fn tell_cluster(
    paths: &Paths,
    cluster: &str,
    client: &Client,
    reporter: &dyn Reporter,
) -> Result<()> {
    let _lock = state::registry_lock(paths, reporter).await?;
    let registries = state::load_registries(paths)?;
    tell(paths, cluster, &Known::of(&registries), reporter)?;
    if !registries.is_empty() {
        announce(cluster, client, &registries, reporter).await;
    }
    Ok(())
}

/// Tells all clusters. What one of them cannot be told is said, and is no failure: the registry is there all the same.
/// The caller holds the registries' lock.
pub(super) async fn tell_all(paths: &Paths, reporter: &dyn Reporter) -> Result<()> {
    let registries = state::load_registries(paths)?;
    let known = Known::of(&registries);
    let clusters = state::cluster_names(paths)?;
    for cluster in &clusters {
        tell(paths, cluster, &known, reporter)?;
    }
    join_all(clusters.iter().map(async |cluster| match connect(paths, cluster).await {
        Ok(Some(client)) => announce(cluster, &client, &registries, reporter).await,
        // It has no API yet, and is told when it has.
        Ok(None) => {}
        Err(error) => warn(reporter, &format!("cluster {cluster:?} is not told: {error}")),
    }))
    .await;
    Ok(())
}

fn tell(paths: &Paths, cluster: &str, known: &Known, reporter: &dyn Reporter) -> Result<()> {
    for node in state::node_names(paths, cluster)? {
        // A damaged record, or one that is not written yet: the node is told when it is made.
        let Ok(Some(record)) = state::load_node(paths, cluster, &node) else { continue };
        if record.role == NodeRole::ExternalLoadBalancer || record.process.is_none() {
            continue;
        }
        match open(paths, cluster, &record).and_then(|tree| known.apply(&tree)) {
            Ok(foreign) => {
                for host in foreign {
                    let text =
                        format!("node {node} has a hosts.toml of its own for {host}, which stays as it is");
                    warn(reporter, &text);
                }
            }
            // A node that is being removed takes its files with it.
            Err(_) if !matches!(state::load_node(paths, cluster, &node), Ok(Some(_))) => {}
            Err(error) => warn(reporter, &format!("node {node} does not know the registries: {error}")),
        }
    }
    Ok(())
}

/// The files of a node: as it sees them, or what it will find there when it is started again.
fn open(paths: &Paths, cluster: &str, record: &NodeRecord) -> Result<Tree> {
    let running = record.process.as_ref().filter(|process| Process::is_alive(process));
    let root =
        running.map_or_else(|| paths.node(cluster, &record.name).join("upper"), |process| process.root());
    Tree::open(&record.name, &root)
}

/// A client for a cluster that is complete and runs.
async fn connect(paths: &Paths, cluster: &str) -> Result<Option<Client>> {
    let Ok(Some(record)) = state::load_cluster(paths, cluster) else { return Ok(None) };
    if record.phase != Phase::Ready {
        return Ok(None);
    }
    let running = |record: &NodeRecord| record.process.as_ref().is_some_and(Process::is_alive);
    if !state::load_nodes(paths, cluster)?.iter().any(running) {
        return Ok(None);
    }
    let Ok(admin_conf) = fs_err::read_to_string(paths.cluster(cluster).join("admin.conf")) else {
        return Ok(None);
    };
    api::connect(&admin_conf, &format!("https://{}", reachable(record.api))).await.map(Some)
}

/// All of the host's addresses are no address to connect to.
fn reachable(api: SocketAddr) -> SocketAddr {
    match api {
        SocketAddr::V4(_) if api.ip().is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, api.port()).into(),
        SocketAddr::V6(_) if api.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, api.port()).into(),
        _ => api,
    }
}

async fn announce(cluster: &str, client: &Client, registries: &[RegistryRecord], reporter: &dyn Reporter) {
    let announcing = hosting::announce(client, hosting::main_registry(registries));
    let problem = match tokio::time::timeout(ANSWER, announcing).await {
        Ok(Ok(false)) => return,
        Ok(Ok(true)) => {
            "has a ConfigMap kube-public/local-registry-hosting of its own, which stays".to_owned()
        }
        Ok(Err(error)) => format!("is not told by a ConfigMap: {error}"),
        Err(_) => format!("is not told by a ConfigMap: no answer in {} s", ANSWER.as_secs()),
    };
    warn(reporter, &format!("cluster {cluster:?} {problem}"));
}

fn warn(reporter: &dyn Reporter, text: &str) {
    reporter.message(0, &format!("Warning: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_on_all_addresses_is_reached_on_one() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:6443"), "127.0.0.1:6443");
        assert_eq!(at("[::]:6443"), "[::1]:6443");
        assert_eq!(at("192.0.2.1:6443"), "192.0.2.1:6443");
    }
}
