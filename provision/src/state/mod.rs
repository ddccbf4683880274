//! What Kiln knows about its clusters, on disk, and who may change it.
//!
//! A cluster is a directory. Everything that is about to be made is written there before it is made, so that a
//! process killed at any point leaves enough behind for `delete` to remove all of it. Whoever changes a cluster holds
//! its [`Lock`]; what all clusters share (subnets, kernel settings) is changed under the host's lock.

pub(crate) mod file;
mod lock;
mod name;
mod record;

pub(crate) use file::{read_json, remove_if_exists, write_json};
pub use lock::{Lock, cluster_lock, host_lock, is_locked, try_cluster_lock};
pub use name::{LONG_NAME, is_long_name, validate_cluster_name};
pub use record::{
    ClusterRecord, NodeRecord, NodeRole, Phase, SCHEMA, cluster_exists, cluster_names, load_cluster,
    load_node, load_nodes, node_names, remove_cluster, save_cluster, save_node,
};
