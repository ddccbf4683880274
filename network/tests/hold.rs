//! Packets that are held until name servers answer, in network namespaces of the tests' own.

#![expect(clippy::unwrap_used, reason = "what cannot be looked at is a failed test")]

#[expect(dead_code, reason = "other tests use the rest of the stage")]
mod stage;

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

use kiln_network::{Patience, hold, remove};
use stage::*;
use tokio::{sync::oneshot, time};

const LONG: Patience = Patience { idle: PATIENCE, holding: PATIENCE };

const SERVERS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn servers() -> SocketAddr {
    (SERVERS, 53).into()
}

/// The host plays a node, and a node behind its bridge a pod: a query of its, of which nobody knows anything yet.
async fn query() -> (kiln_network::Network, [std::os::fd::OwnedFd; 2], UdpSocket) {
    let (network, pod, other) = two_nodes().await;
    let client = inside(pod.as_fd(), || {
        let client = UdpSocket::bind((FIRST, 0)).unwrap();
        client.connect(servers()).unwrap();
        client
    });
    (network, [pod, other], client)
}

/// Makes the servers' address one of the node's own.
async fn appear() -> UdpSocket {
    let handle = host_handle();
    let index = link(&handle, "lo").await.header.index;
    handle.address().add(index, SERVERS.into(), 32).execute().await.unwrap();
    UdpSocket::bind(servers()).unwrap()
}

/// Echoes one packet, on a thread of the node.
fn echo(server: &UdpSocket) -> Option<Vec<u8>> {
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let (length, client) = server.recv_from(&mut buffer).ok()?;
    server.send_to(&buffer[..length], client).unwrap();
    Some(buffer[..length].to_vec())
}

#[test]
fn a_query_waits_for_servers_that_come_later_and_is_answered() {
    on_a_host_of_its_own(|| async {
        let (network, _nodes, client) = query().await;
        let holding = tokio::spawn(hold(servers(), LONG, pending()));
        time::sleep(SILENCE).await;
        client.send(b"who?").unwrap();
        client.set_read_timeout(Some(SILENCE)).unwrap();
        // Neither answered nor refused; the runtime has but this thread.
        let silent =
            tokio::task::spawn_blocking(move || (client.recv(&mut [0; 64]).unwrap_err().kind(), client));
        let (kind, client) = silent.await.unwrap();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock);

        let server = appear().await;
        let (probe, query) =
            tokio::task::spawn_blocking(move || (echo(&server), echo(&server))).await.unwrap();
        assert!(probe.is_some_and(|probe| probe.starts_with(b"KI")));
        assert_eq!(query.as_deref(), Some(&b"who?"[..]));
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0; 64];
        assert_eq!(client.recv(&mut answer).unwrap(), 4);
        holding.await.unwrap().unwrap();
        assert_clean(remove(&network).await);
    });
}

#[test]
fn what_is_never_answered_goes_its_way_when_the_time_is_over() {
    on_a_host_of_its_own(|| async {
        let (network, _nodes, client) = query().await;
        // It listens and says nothing.
        let server = appear().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async { drop(stopped.await) };
        let holding = tokio::spawn(hold(servers(), LONG, until));
        time::sleep(SILENCE).await;
        client.send(b"who?").unwrap();
        time::sleep(SILENCE).await;
        let queries = |server: &UdpSocket| {
            server.set_nonblocking(true).unwrap();
            let mut buffer = [0; 64];
            std::iter::from_fn(|| server.recv(&mut buffer).ok()).filter(|length| *length == 4).count()
        };
        assert_eq!(queries(&server), 0);
        stop.send(()).unwrap();
        holding.await.unwrap().unwrap();
        assert_eq!(queries(&server), 1);
        // And nothing is in the way of the next.
        client.send(b"who?").unwrap();
        assert_eq!(queries(&server), 1);

        // Nor is it ever for longer than whoever has sent it waits.
        let short = Patience { idle: PATIENCE, holding: SILENCE };
        let holding = tokio::spawn(hold(servers(), short, pending()));
        time::sleep(SILENCE).await;
        client.send(b"who?").unwrap();
        holding.await.unwrap().unwrap();
        assert_eq!(queries(&server), 1);
        let idle = Patience { idle: Duration::from_millis(1), holding: PATIENCE };
        hold(servers(), idle, pending()).await.unwrap();
        assert_clean(remove(&network).await);
    });
}
