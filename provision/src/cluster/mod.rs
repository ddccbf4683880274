//! Making, finding and removing clusters, and bringing images into them.

mod api;
mod blocking;
mod boot;
mod bootstrap;
mod cancel;
mod cni;
mod controllers;
mod create;
mod daemon;
mod delete;
mod demands;
mod disk;
mod dns;
mod engine;
mod images;
mod initial_files;
mod inside;
mod join;
mod kubernetes;
mod load;
mod load_balancer;
mod make;
mod manifest;
mod mounted;
mod network;
mod node;
mod observe;
mod outbound;
mod plan;
mod pool;
mod ports;
mod preview;
mod publication;
mod query;
pub mod registry;
mod reserve;
mod seeding;
mod start;
mod status;
mod template_boot;
mod template_etcd;
mod unpacked;
mod usage;

pub(crate) use api::connect;
pub(crate) use blocking::Steps;
pub(crate) use bootstrap::is_from_template;
pub use cancel::Cancel;
pub use create::{CreateOptions, Created, PodNetwork, create};
pub use delete::{Deleted, delete, delete_all};
pub use demands::check as check_host;
pub(crate) use disk::own_bytes;
pub use disk::{ClusterDisk, DiskUse, LayerDisk, NodeDisk, StoreDisk, disk_use};
pub use images::{RemovedImages, image_users, prune_images, remove_images};
pub use load::{LoadOptions, LoadSource, load};
pub(crate) use observe::FILE as TRACE_FILE;
pub use observe::{trace, update_trace};
pub use pool::{Drained, FillOptions, Filled, StandbyState, StandbyStatus, drain, fill, pool};
pub use preview::{PlannedCluster, PlannedNode, Removal, plan_create, plan_delete};
pub use query::{
    NodeState, NodeStatus, clusters, exec_command, export_kubeconfig, find_node, kubeconfig, node_images,
    nodes,
};
pub(crate) use query::{running, status};
pub use start::Bootstrap;
pub use status::{ClusterState, ClusterStatus, cluster_status};
pub use usage::{NodeUsage, usage};
