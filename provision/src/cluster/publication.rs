//! The host's ports that lead into a cluster: translated by the kernel where it can, by a process where it cannot.

use std::path::Path;

use kiln_network::{Network, PortMapping};
use kiln_runtime::Cgroup;

use crate::{Paths, Reporter, Result, proxy::process::start_proxy, state::ClusterRecord};

/// Where the proxy of a cluster with this handle is in the cgroup hierarchies.
fn proxy_cgroup(handle: &str) -> Cgroup {
    Cgroup { parent: format!("kiln/{handle}"), leaf: "proxy".to_owned() }
}

/// Publishes the ports of a cluster.
///
/// # Errors
/// What the network or the proxy says.
pub(super) async fn publish(paths: &Paths, record: &ClusterRecord, reporter: &dyn Reporter) -> Result<()> {
    let log = paths.cluster(&record.name).join("proxy.log");
    let cgroup = proxy_cgroup(&paths.handle(&record.name));
    publish_ports(&record.network, &record.ports, &cgroup, &log, reporter).await
}

/// Publishes ports that lead into a network, and says which firewalls had to be opened for it. Only where there are ports that
/// the kernel does not translate is a process made: in `cgroup`, with what it has to say in `log`.
///
/// # Errors
/// What the network or the proxy says.
pub(super) async fn publish_ports(
    network: &Network,
    ports: &[PortMapping],
    cgroup: &Cgroup,
    log: &Path,
    reporter: &dyn Reporter,
) -> Result<()> {
    let (translated, relayed): (Vec<_>, Vec<_>) =
        ports.iter().cloned().partition(PortMapping::is_translatable);
    for chain in kiln_network::publish(network, &translated).await? {
        let bridge = &network.bridge;
        reporter.message(
            0,
            &format!("Letting {bridge} through the firewall's {chain}, which drops what is forwarded"),
        );
    }
    if relayed.is_empty() {
        return Ok(());
    }
    start_proxy(&relayed, cgroup, log).await
}

/// Ends the proxy of the cluster with this handle, if it has one. Blocks.
///
/// # Errors
/// [`crate::Error::Runtime`] when it stays.
pub(super) fn withdraw(handle: &str) -> Result<()> {
    Ok(proxy_cgroup(handle).clear()?)
}
