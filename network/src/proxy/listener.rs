//! Sockets that the proxy listens on.

use std::{io, net::SocketAddr, os::fd::AsRawFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

use crate::{Error, Protocol, Result};

/// Connections that may wait to be accepted; the kernel's own limit (`net.core.somaxconn`) is no higher as a rule.
const BACKLOG: u32 = 4096;

/// Listens for connections; port 0 chooses one. An IPv6 address takes IPv6 only, so that `0.0.0.0` and `::` can be
/// listened on side by side.
///
/// To be called within a tokio runtime.
///
/// # Errors
/// [`Error::Listen`], such as when the port is taken.
pub fn listen(address: SocketAddr) -> Result<TcpListener> {
    listen_on(address).map_err(|source| Error::Listen { address, protocol: Protocol::Tcp, source })
}

/// Binds a socket for datagrams, in the same way.
///
/// # Errors
/// [`Error::Listen`], such as when the port is taken.
pub fn listen_datagrams(address: SocketAddr) -> Result<UdpSocket> {
    bind_to(address).map_err(|source| Error::Listen { address, protocol: Protocol::Udp, source })
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // Connections of an earlier process that still linger do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_have_the_port() {
        let ipv4 = listen("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = ipv4.local_addr().unwrap().port();
        listen(format!("[::]:{port}").parse().unwrap()).unwrap();

        let ipv4 = listen_datagrams("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = ipv4.local_addr().unwrap().port();
        listen_datagrams(format!("[::]:{port}").parse().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen(address).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to listen on {address}/tcp"));
        assert!(error.hint().is_some_and(|hint| hint.contains("ss -")));

        let first = listen_datagrams("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = listen_datagrams(address).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to listen on {address}/udp"));
    }
}
