//! Standby clusters: booted, checked and frozen ahead of being asked for.
//!
//! A standby is a whole cluster of the name it may get, with keys, addresses and ports of its own; only nobody has been
//! told of it, and its processes are stopped. What does not outlive a stop is ended before ([`park`]), and begun again when
//! the cluster is asked for ([`take`]).

mod drain;
mod fill;
mod list;
mod park;
mod take;

pub use drain::{Drained, drain};
pub use fill::{FillOptions, Filled, fill};
pub use list::{StandbyState, StandbyStatus, pool};
pub(super) use take::take;

use super::{CreateOptions, PodNetwork, mounted, outbound, reserve::NodeImage, start::Bootstrap};
use crate::{config, state::StandbyRequest};

/// What a cluster is asked to be.
fn request(name: &str, options: &CreateOptions, images: &[NodeImage]) -> StandbyRequest {
    let named = config::Cluster { name: name.to_owned(), ..options.config.clone() };
    let pod_network = match options.pod_network {
        PodNetwork::Launcher => "kiln",
        PodNetwork::Image => "image",
    };
    let bootstrap = match options.bootstrap {
        // A template is what it is made from by default, too.
        Bootstrap::Auto | Bootstrap::Template => "template",
        Bootstrap::Kubeadm => "kubeadm",
    };
    StandbyRequest {
        config: serde_json::to_value(named).unwrap_or_default(),
        images: images.iter().map(|image| image.image.manifest.to_string()).collect(),
        made_by: [pod_network, bootstrap].map(str::to_owned),
        outbound: outbound::given_variables(|name| std::env::var(name).ok()),
        patches: mounted::all_patches(&options.config, images.iter().map(|from| &*from.kubernetes_version)),
    }
}
