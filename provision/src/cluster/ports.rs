//! Ports of the host that are to lead into a cluster or a registry: which are taken, and which are chosen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kiln_network::{Endpoint, PortMapping, Protocol};

use super::plan::API_PORT;
use crate::{Error, Paths, Result, config, state};

/// Where the API is to answer on the host: what the configuration asks for, with a free port for 0.
///
/// # Errors
/// [`Error::ApiAddress`], [`Error::PortTaken`].
pub(super) fn api_address(paths: &Paths, networking: &config::Networking) -> Result<SocketAddr> {
    let text = &networking.api_server_address;
    let address: IpAddr = text.parse().map_err(|_| Error::ApiAddress { address: text.clone() })?;
    claim_port(&mut published_ports(paths)?, address, networking.api_server_port, Protocol::Tcp)
}

/// The ports of the host that are to lead into a node, with free ones chosen where the configuration leaves it open.
/// `own` are those that the cluster has already.
///
/// # Errors
/// [`Error::PortTaken`].
pub(super) fn extra_mappings(
    paths: &Paths,
    own: &[PortMapping],
    node: &config::Node,
    endpoint: &Endpoint,
) -> Result<Vec<PortMapping>> {
    let mut taken = published_ports(paths)?;
    taken.extend(own.iter().map(|port| (None, port.protocol, SocketAddr::new(port.listen, port.host_port))));
    let mut mappings = Vec::new();
    for wanted in &node.extra_port_mappings {
        let protocol = match wanted.protocol {
            config::Protocol::Tcp => Protocol::Tcp,
            config::Protocol::Udp => Protocol::Udp,
            config::Protocol::Sctp => Protocol::Sctp,
        };
        let host = claim_port(&mut taken, wanted.listen_address, wanted.host_port, protocol)?;
        let Some(target) = target(endpoint, host.ip()) else { continue };
        mappings.push(PortMapping {
            protocol,
            listen: host.ip(),
            host_port: host.port(),
            target,
            target_port: wanted.container_port,
        });
    }
    for mapping in &mappings {
        if mapping.protocol == Protocol::Sctp && !mapping.is_translatable() {
            return Err(Error::Unpublishable { mapping: mapping.to_string() });
        }
    }
    Ok(mappings)
}

/// The node's address of the family that the host listens with, or the one it has.
fn target(endpoint: &Endpoint, listen: IpAddr) -> Option<IpAddr> {
    let (ipv4, ipv6) = (endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6));
    if listen.is_ipv4() { ipv4.or(ipv6) } else { ipv6.or(ipv4) }
}

/// A port in use: by whom (none for this cluster itself), and where.
type Taken = (Option<String>, Protocol, SocketAddr);

/// The port that a registry is to answer on, a free one for 0: of `127.0.0.1` and, where the host has IPv6, which is told, of
/// `[::1]`.
///
/// # Errors
/// [`Error::PortTaken`].
pub(super) fn registry_port(paths: &Paths, port: u16) -> Result<(u16, bool)> {
    let [ipv4, ipv6] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let has_ipv6 = kiln_network::free_port(ipv6, Protocol::Tcp).is_ok();
    let mut taken = published_ports(paths)?;
    let mut tries = if port == 0 { 64 } else { 1 };
    loop {
        tries -= 1;
        let wanted = (port != 0).then_some(port);
        let found = claim_port(&mut taken, ipv4, wanted, Protocol::Tcp)?.port();
        match has_ipv6.then(|| claim_port(&mut taken, ipv6, Some(found), Protocol::Tcp)) {
            // Free in one family alone.
            Some(Err(Error::PortTaken { .. })) if tries > 0 => {}
            other => return other.transpose().map(|_| (found, has_ipv6)),
        }
    }
}

fn claim_port(
    taken: &mut Vec<Taken>,
    address: IpAddr,
    port: Option<u16>,
    protocol: Protocol,
) -> Result<SocketAddr> {
    let clashes = |taken: &[Taken], wanted: SocketAddr| {
        taken.iter().find(|other| other.1 == protocol && clash(other.2, wanted)).map(|other| other.0.clone())
    };
    let found = match port {
        Some(port) => {
            let wanted = SocketAddr::new(address, port);
            if let Some(owner) = clashes(taken, wanted) {
                let by = owner.unwrap_or_else(|| "this cluster".to_owned());
                return Err(Error::PortTaken { address: wanted, by: Some(by) });
            }
            if !kiln_network::port_is_free(address, port, protocol) {
                return Err(Error::PortTaken { address: wanted, by: None });
            }
            wanted
        }
        None => {
            // The kernel gives out ports nobody listens on; one that is translated for a cluster has no listener.
            let mut tries = (0..64).map(|_| kiln_network::free_port(address, protocol));
            loop {
                let Some(port) = tries.next() else {
                    return Err(Error::PortTaken { address: SocketAddr::new(address, 0), by: None });
                };
                let found = SocketAddr::new(address, port?);
                if clashes(taken, found).is_none() {
                    break found;
                }
            }
        }
    };
    taken.push((None, protocol, found));
    Ok(found)
}

fn published_ports(paths: &Paths) -> Result<Vec<Taken>> {
    let mut ports = Vec::new();
    for other in state::reservations(paths)? {
        for port in other.ports {
            let host = SocketAddr::new(port.listen, port.host_port);
            ports.push((Some(other.owner.clone()), port.protocol, host));
        }
    }
    Ok(ports)
}

fn clash(left: SocketAddr, right: SocketAddr) -> bool {
    let everywhere = |address: SocketAddr| address.ip().is_unspecified();
    left.port() == right.port() && (left.ip() == right.ip() || everywhere(left) || everywhere(right))
}

/// The mapping that leads from the host to the API: its server in a node, or the load balancer in front of several.
pub(super) fn api_mapping(api: SocketAddr, endpoint: &Endpoint) -> Option<PortMapping> {
    Some(PortMapping {
        protocol: Protocol::Tcp,
        listen: api.ip(),
        host_port: api.port(),
        target: target(endpoint, api.ip())?,
        target_port: API_PORT,
    })
}

#[cfg(test)]
mod tests {
    use kiln_network::Network;

    use super::*;
    use crate::cluster::plan::{endpoint, example_network};

    #[test]
    fn ports_lead_to_the_address_of_their_family() {
        let single = endpoint(&example_network(), "c-control-plane", 0).unwrap();
        let network = Network { ipv6: Some("fd00:1::/64".parse().unwrap()), ..example_network() };
        let dual = endpoint(&network, "c-control-plane", 0).unwrap();
        let to = |endpoint: &Endpoint, listen: &str| {
            target(endpoint, listen.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(to(&dual, "0.0.0.0"), "172.30.4.2");
        assert_eq!(to(&dual, "::1"), "fd00:1::2");
        assert_eq!(to(&single, "::1"), "172.30.4.2");
    }

    #[test]
    fn ports_clash_on_one_address_or_all() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(clash(at("127.0.0.1:80"), at("127.0.0.1:80")));
        assert!(clash(at("127.0.0.1:80"), at("0.0.0.0:80")));
        assert!(!clash(at("127.0.0.1:80"), at("127.0.0.2:80")));
        assert!(!clash(at("127.0.0.1:80"), at("127.0.0.1:81")));
    }
}
