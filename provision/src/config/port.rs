//! Port mappings that cannot stand beside each other, and what else the format lets through but no host can
//! do.

use std::{collections::HashMap, net::IpAddr};

use super::{
    document::Position,
    name::node_names,
    problem::{Problem, Problems},
    reader::Reader,
    types::{Cluster, PortMapping, Protocol},
};
use crate::{Error, Result};

/// The longest name of a node: Kubernetes puts it into a label, and Linux takes it as a host name.
const MAX_NODE_NAME: usize = 63;

/// Notes mappings of one node that listen on the same address and port.
pub(super) fn check_distinct(reader: &mut Reader, mappings: &[(Position, PortMapping)]) {
    let mut taken = Listeners::default();
    for (at, mapping) in mappings {
        let Some(port) = mapping.host_port else { continue };
        if taken.add(mapping.listen_address, port, mapping.protocol, String::new()).is_some() {
            let PortMapping { listen_address, protocol, .. } = mapping;
            reader.problem(
                *at,
                format!("{listen_address} port {port}/{protocol} is already mapped on this node"),
            );
        }
    }
}

/// Checks what the format lets through and only shows when nodes are made: long names, container ports, mount
/// paths, the API server's address, and nodes that want the same port of the host. `origin` is what the
/// configuration came from.
///
/// # Errors
/// [`Error::Config`] with everything that was found.
pub fn preflight(cluster: &Cluster, origin: &str) -> Result<()> {
    let mut messages = Vec::new();
    let mut taken = Listeners::default();
    let networking = &cluster.networking;
    match networking.api_server_ip() {
        Err(_) => {
            messages.push(format!(
                "networking.apiServerAddress must be an address, not `{}`",
                networking.api_server_address
            ));
        }
        Ok(address) => {
            if let Some(port) = networking.api_server_port {
                taken.add(address, port, Protocol::Tcp, "the API server".to_owned());
            }
        }
    }
    for named in node_names(cluster) {
        let Some(node) = named.index.and_then(|index| cluster.nodes.get(index)) else { continue };
        let name = &named.name;
        if name.len() > MAX_NODE_NAME {
            messages.push(format!("the node's name {name} is longer than {MAX_NODE_NAME} characters"));
        }
        for mapping in &node.extra_port_mappings {
            if mapping.container_port == 0 {
                messages.push(format!("a port mapping of {name} has no containerPort"));
            }
            let PortMapping { listen_address, host_port: Some(port), protocol, .. } = *mapping else {
                continue;
            };
            if let Some(other) = taken.add(listen_address, port, protocol, name.clone()) {
                messages
                    .push(format!("{name} and {other} both want {listen_address} port {port}/{protocol}"));
            }
        }
        for mount in &node.extra_mounts {
            if mount.host_path.as_os_str().is_empty() {
                messages.push(format!("a mount of {name} has no hostPath"));
            }
            if !mount.container_path.is_absolute() {
                let path = mount.container_path.display();
                messages
                    .push(format!("the containerPath of a mount of {name} must be absolute, not `{path}`"));
            }
        }
    }
    if messages.is_empty() {
        return Ok(());
    }
    let problems = messages.into_iter().map(|message| Problem { at: None, message, hint: None }).collect();
    Err(Error::Config { origin: origin.to_owned(), problems: Problems::new(problems, "") })
}

impl super::types::Networking {
    /// The host address the API server is published on.
    ///
    /// # Errors
    /// When the configuration says something else than an address; [`preflight`] tells so first.
    pub fn api_server_ip(&self) -> std::result::Result<IpAddr, std::net::AddrParseError> {
        self.api_server_address.parse()
    }
}

/// Who listens where.
#[derive(Debug, Default)]
struct Listeners(HashMap<(u16, Protocol), Vec<(IpAddr, String)>>);

impl Listeners {
    /// Adds a listener unless it clashes with another, which is then returned. An unspecified address,
    /// whatever its family, clashes with all: a socket on `::` takes IPv4 connections too.
    fn add(&mut self, address: IpAddr, port: u16, protocol: Protocol, who: String) -> Option<String> {
        let others = self.0.entry((port, protocol)).or_default();
        let clash = others
            .iter()
            .find(|(other, _)| *other == address || other.is_unspecified() || address.is_unspecified())
            .map(|(_, who)| who.clone());
        if clash.is_none() {
            others.push((address, who));
        }
        clash
    }
}
