//! Making, finding and removing clusters.

mod api;
mod blocking;
mod boot;
mod bootstrap;
mod cancel;
#[cfg_attr(not(test), expect(dead_code, reason = "there is no flag that asks for it yet"))]
mod cni;
mod create;
mod delete;
mod inside;
mod manifest;
mod network;
mod node;
mod plan;
mod query;
mod reserve;

pub use cancel::Cancel;
pub use create::{CreateOptions, Created, create};
pub use delete::{Deleted, delete};
pub use query::{
    NodeState, NodeStatus, clusters, exec_command, export_kubeconfig, find_node, kubeconfig, node_images,
    nodes,
};
