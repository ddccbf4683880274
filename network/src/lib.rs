//! The network of a cluster over netlink: bridge, veth pairs, addresses, routes, NAT and published ports.
//!
//! Everything is done by talking to the kernel: route netlink for links, addresses and routes, nf_tables netlink
//! for translation, `/proc/sys` for the three settings that have no other door. No program of the host is run.
//!
//! What the kernel cannot do, a process does: see [`proxy`].
//!
//! A netlink socket belongs for life to the network namespace of the thread that opened it. This crate opens the
//! sockets of other namespaces on throw-away threads, so no thread of the caller ever changes its namespace unless it asks
//! for that ([`enter_netns`]); "the host" is whatever namespace the caller's thread is in, which is how the tests run in
//! namespaces of their own.

#![forbid(unsafe_code)]

mod bridge;
mod endpoint;
mod error;
mod forwarding;
mod hold;
mod isolation;
mod link;
mod name;
mod nat;
mod netns;
mod network;
mod nft;
mod pod;
mod port;
pub mod proxy;
mod queue;
mod resolver;
mod route;
mod subnet;
mod sysctl;
mod teardown;
mod uplink;

pub use bridge::create_bridge;
pub use endpoint::{Endpoint, UPLINK, attach};
pub use error::{Error, Result};
pub use forwarding::{ForwardDrops, forward_drops};
pub use hold::{Patience, hold};
pub use nat::publish;
pub use netns::{enter_netns, new_netns};
pub use network::Network;
pub use pod::{PodRules, isolate_services, pod_rules_present};
pub use port::{PortMapping, Protocol, free_port, port_is_free};
pub use resolver::{Resolvers, host_resolvers, node_resolv_conf};
pub use route::{PodRoute, RouteChanges, route_pods, sync_pod_routes};
pub use subnet::{choose_subnet, choose_subnet_v6, occupied_subnets, overlap};
pub use teardown::remove;
pub use uplink::{Uplink, node_uplink, uplink_mtu};
