//! What Kiln knows about its clusters, on disk, and who may change it.
//!
//! A cluster is a directory. Everything that is about to be made is written there before it is made, so that a
//! process killed at any point leaves enough behind for `delete` to remove all of it. Whoever changes a cluster holds
//! its [`Lock`]; what all clusters share (subnets, kernel settings) is changed under the host's lock. Registries are
//! directories of the same kind, of which there are few: one lock is for all of them.

pub(crate) mod file;
mod lock;
mod name;
mod record;
mod registry;
mod reserved;
mod standby;

pub(crate) use file::{read_json, remove_if_exists, write_json};
pub use lock::{
    Lock, cluster_lock, host_lock, is_locked, pool_lock, registries_locked, registry_lock, try_cluster_lock,
    try_registry_lock,
};
pub use name::{LONG_NAME, is_long_name, validate_cluster_name};
pub use record::{
    ClusterRecord, NodeRecord, NodeRole, Phase, SCHEMA, cluster_exists, cluster_names, load_cluster,
    load_node, load_nodes, node_names, remove_cluster, save_cluster, save_node,
};
#[cfg(test)]
pub(crate) use registry::tests::registry as registry_record;
pub use registry::{
    REGISTRY_PORT, RegistryRecord, load_registries, load_registry, registry_exists, registry_names,
    remove_registry, save_registry,
};
pub(crate) use reserved::{Occupant, anything_left, occupants, reservations};
pub use standby::{
    Reports, Standby, StandbyRecord, StandbyRequest, link_standby, load_standby, save_standby, standbys,
    unlink_standby,
};
