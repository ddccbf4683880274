//! Ports of the host, and how they are mapped to nodes.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname, socket,
    },
};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the host that leads to a port of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` or `::` for all of them.
    pub listen: IpAddr,
    /// The host's port, not 0.
    pub host_port: u16,
    /// The node's address, of the same family as `listen`.
    pub target: IpAddr,
    /// The node's port, not 0.
    pub target_port: u16,
}

impl PortMapping {
    /// Whether the kernel can translate it: within one address family, and not from `[::1]`, whose packets cannot
    /// leave the host. The others take a proxy.
    #[must_use]
    pub fn is_translatable(&self) -> bool {
        self.listen.is_ipv4() == self.target.is_ipv4() && self.listen != IpAddr::V6(Ipv6Addr::LOCALHOST)
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listen = SocketAddr::new(self.listen, self.host_port);
        let target = SocketAddr::new(self.target, self.target_port);
        write!(formatter, "{listen}/{} to {target}", self.protocol)
    }
}

/// A port that no socket of the host uses on `listen`.
///
/// Nothing holds the port afterwards: another program may take it. Ports that are published for other clusters have
/// no socket; the caller knows those.
///
/// # Errors
///
/// [`Error::FreePort`], such as when `listen` is not an address of the host.
pub fn free_port(listen: IpAddr, protocol: Protocol) -> Result<u16> {
    let chosen = match bound(listen, 0, protocol) {
        // A kernel without SCTP translates it all the same, and has nobody who could use the port: any will do.
        Err(error) if protocol == Protocol::Sctp && unsupported(&error) => bound(listen, 0, Protocol::Tcp),
        chosen => chosen,
    };
    chosen.map_err(|source| Error::FreePort { protocol, listen, source })
}

/// Whether this process could bind `port` on `listen` now. The limits of [`free_port`] apply.
#[must_use]
pub fn port_is_free(listen: IpAddr, port: u16, protocol: Protocol) -> bool {
    match bound(listen, port, protocol) {
        Ok(_) => true,
        // A kernel without SCTP has nobody who could use the port either.
        Err(error) => protocol == Protocol::Sctp && unsupported(&error),
    }
}

/// Binds the port, 0 for any, for a moment; gives back which it was.
fn bound(listen: IpAddr, port: u16, protocol: Protocol) -> io::Result<u16> {
    let address = SocketAddr::new(listen, port);
    match protocol {
        Protocol::Tcp => TcpListener::bind(address)?.local_addr().map(|address| address.port()),
        Protocol::Udp => UdpSocket::bind(address)?.local_addr().map(|address| address.port()),
        Protocol::Sctp => bound_sctp(address),
    }
}

fn bound_sctp(address: SocketAddr) -> io::Result<u16> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    let bound: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let ipv4 = bound.as_sockaddr_in().map(|address| address.port());
    let port = ipv4.or_else(|| bound.as_sockaddr_in6().map(|address| address.port()));
    port.ok_or_else(|| io::Error::other("the socket has no IP address"))
}

fn unsupported(error: &io::Error) -> bool {
    [Errno::EPROTONOSUPPORT, Errno::ESOCKTNOSUPPORT]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!port_is_free(LOCAL, port, Protocol::Tcp));
        assert!(!port_is_free(Ipv4Addr::UNSPECIFIED.into(), port, Protocol::Tcp));
    }

    #[test]
    fn udp_and_tcp_ports_are_apart() {
        let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(!port_is_free(LOCAL, port, Protocol::Udp));
    }

    #[test]
    fn a_free_port_can_be_had() {
        assert_ne!(free_port(LOCAL, Protocol::Tcp).unwrap(), 0);
        assert_ne!(free_port(LOCAL, Protocol::Udp).unwrap(), 0);
        // Whether the kernel has it or not.
        assert_ne!(free_port(LOCAL, Protocol::Sctp).unwrap(), 0);
    }

    #[test]
    fn an_address_of_another_host_has_no_ports() {
        let elsewhere = "192.0.2.1".parse().unwrap();
        assert!(matches!(free_port(elsewhere, Protocol::Tcp), Err(Error::FreePort { .. })));
    }

    #[test]
    fn some_mappings_take_a_proxy() {
        for (listen, target, translatable) in [
            ("127.0.0.1", "172.30.0.2", true),
            ("::", "fd00::2", true),
            ("::1", "fd00::2", false),
            ("::", "172.30.0.2", false),
        ] {
            let (listen, target) = (listen.parse().unwrap(), target.parse().unwrap());
            let mapping =
                PortMapping { protocol: Protocol::Tcp, listen, host_port: 80, target, target_port: 80 };
            assert_eq!(mapping.is_translatable(), translatable, "{mapping}");
        }
    }

    #[test]
    fn mappings_read_well() {
        let mapping = PortMapping {
            protocol: Protocol::Tcp,
            listen: "::".parse().unwrap(),
            host_port: 80,
            target: "fd00::2".parse().unwrap(),
            target_port: 8080,
        };
        assert_eq!(mapping.to_string(), "[::]:80/tcp to [fd00::2]:8080");
    }
}
