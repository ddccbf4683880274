//! The host's ports that lead into a cluster: translated by the kernel where it can, by a process where it cannot.

use kiln_runtime::Cgroup;

use crate::{Paths, Reporter, Result, proxy::process::start_proxy, state::ClusterRecord};

/// Where the proxy of a cluster with this handle is in the cgroup hierarchies.
fn proxy_cgroup(handle: &str) -> Cgroup {
    Cgroup { parent: format!("kiln/{handle}"), leaf: "proxy".to_owned() }
}

/// Publishes the ports of a cluster, and says which firewalls had to be opened for it. Only where there are ports that the
/// kernel does not translate is a process made.
///
/// # Errors
/// What the network or the proxy says.
pub(super) async fn publish(paths: &Paths, record: &ClusterRecord, reporter: &dyn Reporter) -> Result<()> {
    let (translated, relayed): (Vec<_>, Vec<_>) =
        record.ports.iter().cloned().partition(kiln_network::PortMapping::is_translatable);
    for chain in kiln_network::publish(&record.network, &translated).await? {
        let bridge = &record.network.bridge;
        reporter.message(
            0,
            &format!("Letting {bridge} through the firewall's {chain}, which drops what is forwarded"),
        );
    }
    if relayed.is_empty() {
        return Ok(());
    }
    let log = paths.cluster(&record.name).join("proxy.log");
    start_proxy(&relayed, &proxy_cgroup(&paths.handle(&record.name)), &log).await
}

/// Ends the proxy of the cluster with this handle, if it has one. Blocks.
///
/// # Errors
/// [`crate::Error::Runtime`] when it stays.
pub(super) fn withdraw(handle: &str) -> Result<()> {
    Ok(proxy_cgroup(handle).clear()?)
}
