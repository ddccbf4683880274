//! Registries of images on this host, for the nodes of all clusters.
//!
//! A registry is a container of its own with a network of its own, as a cluster with one node would have: the host reaches
//! it on `127.0.0.1` and `[::1]`, nodes of every cluster on the host's address of that network, from where it is translated. So the
//! isolation of clusters needs no exception: what is published on the host's addresses can be reached by all.
//!
//! Nodes are told by files that containerd reads with each pull (`/etc/containerd/certs.d`), and by `/etc/hosts`; clusters
//! by the ConfigMap that KEP-1755 describes. All of that is made anew, from the records, whenever something changes:
//! nodes that know of a registry that is no more are put right with it.

mod create;
mod delete;
mod hosting;
mod hosts;
mod nodes;
mod query;
mod upstream;

pub use create::{CreatedRegistry, RegistryOptions, create};
pub use delete::{DeletedRegistry, delete};
pub(super) use nodes::{tell_cluster, tell_nodes};
pub use query::{RegistryState, RegistryStatus, registries};

use kiln_runtime::Cgroup;

use crate::{Error, Result, state};

/// The registry that is meant when none is named.
pub const DEFAULT_REGISTRY: &str = "kiln-registry";

/// The port of the host that it answers on when none is asked for.
pub const DEFAULT_PORT: u16 = 5001;

/// What stands for a registry where clusters are known by their names: no cluster can have this one.
fn identity(name: &str) -> String {
    format!("registry_{name}")
}

/// Where a registry's process is in the cgroup hierarchies.
fn cgroup(name: &str) -> Cgroup {
    Cgroup { parent: "kiln/_registries".to_owned(), leaf: name.to_owned() }
}

/// Where the process is that serves a registry's port on `[::1]`. No registry can have this name.
fn proxy_cgroup(name: &str) -> Cgroup {
    Cgroup { leaf: format!("{name}_proxy"), ..cgroup(name) }
}

/// Checks that a registry can have this name, which becomes the host part of image names.
fn validate_name(name: &str) -> Result<()> {
    let invalid = |reason| Err(Error::RegistryName { name: name.to_owned(), reason });
    match state::validate_cluster_name(name) {
        Err(Error::InvalidName { reason, .. }) => return invalid(reason),
        other => other?,
    }
    let ends = |part: &str| part.is_empty() || part.starts_with('-') || part.ends_with('-');
    if name == "localhost" {
        return invalid("it means the node itself");
    }
    if name.split('.').any(ends) {
        return invalid("it is no host name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_host_names() {
        for name in [DEFAULT_REGISTRY, "r", "mirror.local"] {
            validate_name(name).unwrap();
        }
        for name in ["", "localhost", "..", "a..b", "-a", "a-", "A", "a/b", "a_b"] {
            assert!(matches!(validate_name(name), Err(Error::RegistryName { .. })), "{name}");
        }
    }

    #[test]
    fn no_cluster_is_taken_for_a_registry() {
        assert!(state::validate_cluster_name(&identity("r")).is_err());
        assert!(state::validate_cluster_name(cgroup("r").parent.trim_start_matches("kiln/")).is_err());
    }
}
