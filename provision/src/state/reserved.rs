//! What of the host is taken: networks and ports, by clusters and registries.

use kiln_network::{Network, PortMapping};

use super::{cluster_names, load_cluster, load_registries, registry_names};
use crate::{Paths, Result};

/// What one cluster or registry has for itself.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    /// Who: `cluster dev`, `registry kiln-registry`.
    pub(crate) owner: String,
    pub(crate) network: Network,
    /// Ports of the host.
    pub(crate) ports: Vec<PortMapping>,
}

/// Everything that is reserved. Damaged records are left out: they must not keep others from being made, and the host's
/// routes show what is in use.
///
/// # Errors
/// [`crate::Error::File`] when a directory cannot be read.
pub(crate) fn reservations(paths: &Paths) -> Result<Vec<Reservation>> {
    let mut reservations = Vec::new();
    for name in cluster_names(paths)? {
        if let Ok(Some(record)) = load_cluster(paths, &name) {
            let owner = format!("cluster {name}");
            reservations.push(Reservation { owner, network: record.network, ports: record.ports });
        }
    }
    for record in load_registries(paths)? {
        let (owner, ports) = (format!("registry {}", record.name), record.ports());
        reservations.push(Reservation { owner, network: record.network, ports });
    }
    Ok(reservations)
}

/// Whether there is any cluster or registry.
///
/// # Errors
/// As [`reservations`].
pub(crate) fn anything_left(paths: &Paths) -> Result<bool> {
    Ok(!cluster_names(paths)?.is_empty() || !registry_names(paths)?.is_empty())
}
