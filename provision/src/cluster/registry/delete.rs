//! Removing a registry, whole, half-made or broken.

use std::{io, path::Path};

use kiln_network::Network;

use super::{
    super::{blocking::Steps, delete::leave_host},
    cgroup, identity, nodes, proxy_cgroup, validate_name,
};
use crate::{
    Error, Paths, Reporter, Result,
    state::{self, Phase, RegistryRecord},
};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedRegistry {
    /// Whether there was a registry.
    pub registry: bool,
    /// Whether there were images of it.
    pub data: bool,
}

/// Removes a registry: from the host, and from what nodes know. With `keep_data` its images stay for the next one of the
/// same name. Where there is none, what an earlier one has left is removed.
///
/// # Errors
/// [`Error::RegistryName`]; [`Error::NoSuchRegistry`] when there is nothing to remove; [`Error::RegistryLeftovers`] with
/// everything that could not be removed.
pub async fn delete(
    paths: &Paths,
    name: &str,
    keep_data: bool,
    reporter: &dyn Reporter,
) -> Result<DeletedRegistry> {
    validate_name(name)?;
    let there = |paths: &Paths| -> Result<DeletedRegistry> {
        let data = !keep_data && paths.registry_data(name).exists();
        Ok(DeletedRegistry { registry: state::registry_exists(paths, name)?, data })
    };
    let missing = || -> Result<DeletedRegistry> {
        Err(Error::NoSuchRegistry { name: name.to_owned(), known: state::registry_names(paths)? })
    };
    if there(paths)? == DeletedRegistry::default() {
        return missing();
    }
    let _lock = state::registry_lock(paths, reporter).await?;
    // Another kiln may have been waited for.
    let found = there(paths)?;
    if found == DeletedRegistry::default() {
        return missing();
    }
    remove_all(paths, name, keep_data, reporter).await?;
    nodes::tell_all(paths, reporter).await?;
    Ok(found)
}

/// Removes everything of a registry from the host. The caller holds the registries' lock.
///
/// # Errors
/// [`Error::RegistryLeftovers`].
pub(super) async fn remove_all(
    paths: &Paths,
    name: &str,
    keep_data: bool,
    reporter: &dyn Reporter,
) -> Result<()> {
    let mut errors: Vec<Error> = Vec::new();
    // A record that cannot be read must not keep the rest from going: names tell where everything is.
    let record = state::load_registry(paths, name).ok().flatten();
    let process = record.as_ref().and_then(|record| record.process.clone());
    let network = record.as_ref().map_or_else(|| nameless(name), |record| record.network.clone());
    if let Some(record) = record {
        errors
            .extend(state::save_registry(paths, &RegistryRecord { phase: Phase::Deleting, ..record }).err());
    }
    let (group, proxy, directory) = (cgroup(name), proxy_cgroup(name), paths.registry_run(name));
    let steps = Steps::default();
    let removing = steps.run(move || {
        let mut errors: Vec<_> = proxy.clear().err().into_iter().collect();
        errors.extend(kiln_runtime::remove(process.as_ref(), &group, &directory));
        errors
    });
    errors.extend(removing.await.into_iter().map(Error::from));
    errors.extend(kiln_network::remove(&network).await.into_iter().map(Error::from));
    if errors.is_empty() && !keep_data {
        errors.extend(remove_data(&paths.registry_data(name)).err());
    }
    if errors.is_empty() {
        let _host = state::host_lock(paths, reporter).await?;
        errors.extend(state::remove_registry(paths, name).err());
        if errors.is_empty() {
            errors.extend(leave_host(paths, reporter).err());
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::RegistryLeftovers { name: name.to_owned(), errors }) }
}

/// The network of a registry that was killed before it wrote down which: its names are made of the registry's.
fn nameless(name: &str) -> Network {
    let cluster = identity(name);
    Network { bridge: Network::bridge_name(&cluster), cluster, ipv4: None, ipv6: None, mtu: 1500 }
}

fn remove_data(directory: &Path) -> Result<()> {
    match fs_err::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::File { what: "remove a registry's images", source: error });
        }
        _ => {}
    }
    // That of the last registry takes the directory above with it.
    if let Some(parent) = directory.parent() {
        let _ = fs_err::remove_dir(parent);
    }
    Ok(())
}
