//! What of the host is taken: networks and ports, by clusters, standbys and registries.

use kiln_network::{Network, PortMapping};

use super::{cluster_names, load_cluster, load_registries, registry_names, standbys};
use crate::{Paths, Result};

/// What one cluster, standby or registry has for itself.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    /// Who: `cluster dev`, `registry kiln-registry`.
    pub(crate) owner: String,
    pub(crate) network: Network,
    /// Ports of the host.
    pub(crate) ports: Vec<PortMapping>,
}

/// A cluster, or one that was booted ahead and that nobody has asked for yet.
#[derive(Clone, Debug)]
pub(crate) struct Occupant {
    /// Who: `cluster dev`, `standby 1 of cluster dev`.
    pub(crate) owner: String,
    /// The cluster's name, and where everything is of it by that name.
    pub(crate) cluster: String,
    pub(crate) paths: Paths,
}

/// All clusters, then all standbys. What is half-made counts.
///
/// # Errors
/// [`crate::Error::File`] when a directory cannot be read.
pub(crate) fn occupants(paths: &Paths) -> Result<Vec<Occupant>> {
    let clusters = cluster_names(paths)?.into_iter().map(|cluster| Occupant {
        owner: format!("cluster {cluster}"),
        paths: paths.clone(),
        cluster,
    });
    let standbys = standbys(paths)?.into_iter().map(|standby| Occupant {
        owner: standby.to_string(),
        paths: standby.paths(paths),
        cluster: standby.cluster,
    });
    Ok(clusters.chain(standbys).collect())
}

/// Everything that is reserved. Damaged records are left out: they must not keep others from being made, and the host's
/// routes show what is in use.
///
/// # Errors
/// [`crate::Error::File`] when a directory cannot be read.
pub(crate) fn reservations(paths: &Paths) -> Result<Vec<Reservation>> {
    let mut reservations = Vec::new();
    for Occupant { owner, cluster, paths } in occupants(paths)? {
        if let Ok(Some(record)) = load_cluster(&paths, &cluster) {
            reservations.push(Reservation { owner, network: record.network, ports: record.ports });
        }
    }
    for record in load_registries(paths)? {
        let (owner, ports) = (format!("registry {}", record.name), record.ports());
        reservations.push(Reservation { owner, network: record.network, ports });
    }
    Ok(reservations)
}

/// Whether there is any cluster, standby or registry.
///
/// # Errors
/// As [`reservations`].
pub(crate) fn anything_left(paths: &Paths) -> Result<bool> {
    Ok(!occupants(paths)?.is_empty() || !registry_names(paths)?.is_empty())
}
