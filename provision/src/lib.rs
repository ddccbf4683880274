//! Local Kubernetes clusters as a library: configuration, images, bootstrapping, state.
//!
//! Nothing here prints: progress goes to a [`Reporter`], results are returned, and errors carry the object they
//! are about, their cause and, where there is a cure, a hint. Only services ([`run_service`]) log: each is a process of
//! its own, and what it does is told nowhere else.

mod agent;
mod balancer;
pub mod bench;
pub mod build;
pub mod cluster;
mod cni;
pub mod config;
pub mod containerd;
pub mod copy;
#[cfg(test)]
mod damage;
pub mod doctor;
mod error;
mod hint;
mod hold;
pub mod host;
pub mod image;
pub mod kubeadm;
pub mod kubeconfig;
pub mod logs;
pub mod patch;
mod paths;
mod pki;
mod progress;
mod proxy;
pub mod registry;
mod service;
pub mod state;
mod template;
mod text;
pub mod trace;

pub use error::{Error, KubeadmFailure, Result};
pub use kiln_network::PortMapping;
pub use paths::Paths;
pub use progress::{Outcome, Reporter, Silent};
pub use service::run_service;
