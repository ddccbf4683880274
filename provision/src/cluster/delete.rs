//! Removing a cluster, whole, half-made or broken.

use std::path::Path;

use kiln_network::Network;

use super::{blocking::Steps, create::locate_kubeconfig, node, publication, unpacked};
use crate::{
    Error, Paths, Reporter, Result, hold, host,
    kubeconfig::{self, Locations},
    state::{self, Phase},
};

/// What was removed.
#[derive(Clone, Debug, Default)]
pub struct Deleted {
    /// The nodes, by name; empty when there was no such cluster.
    pub nodes: Vec<String>,
}

impl Deleted {
    /// What was removed, in the words scripts written for kind look for.
    #[must_use]
    pub fn summary(&self) -> String {
        let names: Vec<String> = self.nodes.iter().map(|node| format!("{node:?}")).collect();
        format!("Deleted nodes: [{}]", names.join(" "))
    }
}

/// Removes a cluster and its entry in the kubeconfig. A cluster that does not exist is no error; its kubeconfig entry
/// is removed all the same.
///
/// # Errors
/// [`Error::Leftovers`] with everything that could not be removed, or what the kubeconfig says.
pub async fn delete(
    paths: &Paths,
    name: &str,
    kubeconfig: Option<&Path>,
    reporter: &dyn Reporter,
) -> Result<Deleted> {
    state::validate_cluster_name(name)?;
    let locations = locate_kubeconfig(kubeconfig)?;
    let leftovers = paths.clone();
    Steps::default().run(move || unpacked::remove_leftovers(&leftovers)).await?;
    if !state::cluster_exists(paths, name)? {
        kubeconfig::remove_from(&locations, name)?;
        return Ok(Deleted::default());
    }
    let lock = state::cluster_lock(paths, name, reporter).await?;
    let deleted = remove_all(paths, name, Some(&locations), reporter).await?;
    lock.remove()?;
    Ok(deleted)
}

/// Removes clusters side by side, and tells of each what became of it, in the order given. What a cluster still runs takes the
/// processors from the removal of the others, so all are to end first.
pub async fn delete_all(
    paths: &Paths,
    names: &[String],
    kubeconfig: Option<&Path>,
    reporter: &dyn Reporter,
) -> Vec<Result<Deleted>> {
    let deletions = names.iter().map(|name| delete(paths, name, kubeconfig, reporter));
    futures_util::future::join_all(deletions).await
}

/// Removes everything of a cluster. The caller holds its lock.
///
/// # Errors
/// [`Error::Leftovers`] with everything that could not be removed.
pub(super) async fn remove_all(
    paths: &Paths,
    name: &str,
    locations: Option<&Locations>,
    reporter: &dyn Reporter,
) -> Result<Deleted> {
    let mut errors: Vec<Error> = Vec::new();
    if let Some(locations) = locations {
        errors.extend(kubeconfig::remove_from(locations, name).err());
    }
    // A record that cannot be read must not keep the rest from going: names tell where everything is.
    let record = state::load_cluster(paths, name).ok().flatten();
    let handle = paths.handle(name);
    let network = record.as_ref().map_or_else(|| nameless(&handle), |record| record.network.clone());
    if let Some(record) = record {
        errors.extend(
            state::save_cluster(paths, &state::ClusterRecord { phase: Phase::Deleting, ..record }).err(),
        );
    }

    let nodes = state::node_names(paths, name)?;
    if !nodes.is_empty() {
        reporter.step(&format!("removing {}", nodes.join(", ")));
    }
    let steps = Steps::default();
    let removals = nodes.iter().map(|node| {
        let process = state::load_node(paths, name, node).ok().flatten().and_then(|record| record.process);
        let (cgroup, directory) = (node::cgroup(paths, name, node), paths.node_run(name, node));
        let state = paths.node(name, node);
        steps.run(move || {
            let mut errors: Vec<Error> = kiln_runtime::remove(process.as_ref(), &cgroup, &directory)
                .into_iter()
                .map(Error::from)
                .collect();
            // Only a node that is gone lets go of its files; those of one that stays are needed to try again.
            if errors.is_empty() {
                errors.extend(remove_directory(&state).err());
            }
            errors
        })
    });
    errors.extend(futures_util::future::join_all(removals).await.into_iter().flatten());
    reporter.step("taking the network down");
    let helpers = steps.run(move || [publication::withdraw(&handle), hold::end(&handle)]);
    errors.extend(helpers.await.into_iter().filter_map(Result::err));
    errors.extend(kiln_network::remove(&network).await.into_iter().map(Error::from));

    if errors.is_empty() {
        let _host = state::host_lock(paths, reporter).await?;
        errors.extend(state::remove_cluster(paths, name).err());
        if errors.is_empty() {
            errors.extend(leave_host(paths, reporter).err());
        }
    }
    if errors.is_empty() {
        Ok(Deleted { nodes })
    } else {
        Err(Error::Leftovers { cluster: name.to_owned(), errors })
    }
}

/// Leaves the host as it was before the first cluster or registry, if none is left. The caller holds the host's lock.
///
/// # Errors
/// What restoring a kernel setting says.
pub(super) fn leave_host(paths: &Paths, reporter: &dyn Reporter) -> Result<()> {
    if state::anything_left(paths)? {
        return Ok(());
    }
    // Whoever makes a cluster now waits for the lock before it makes anything below these.
    for directory in ["clusters", "pool", "registries", ""] {
        let _ = fs_err::remove_dir(paths.run().join(directory));
    }
    let _ = fs_err::remove_dir(paths.pool());
    for setting in host::restore(paths)? {
        reporter.message(1, &format!("restored {setting}"));
    }
    Ok(())
}

/// The network of a cluster that was killed before it wrote down which: its names are made of the cluster's.
fn nameless(cluster: &str) -> Network {
    let bridge = Network::bridge_name(cluster);
    Network { cluster: cluster.to_owned(), bridge, ipv4: None, ipv6: None, mtu: 1500 }
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { what: "remove a node's files", source: error })
        }
        _ => Ok(()),
    }
}
