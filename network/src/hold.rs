//! Packets of pods to the cluster's name servers, held until those can be reached.
//!
//! A pod may be there before CoreDNS is, and before kube-proxy knows that CoreDNS is. Its first query would be refused, and
//! most resolvers ask again only after seconds. A query that is late by some tenths of a second is merely answered.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use netlink_packet_netfilter::nftables::InetHookNumber;
use tokio::{
    net::UdpSocket,
    time::{self, Instant},
};

use crate::{
    Error, Protocol, Result,
    nft::{self, Chain, ChainKind, Family, Match, Rule, Table},
    queue::Queue,
};

/// The table in the node's namespace; its comment is the same.
const TABLE: &str = "kiln-hold";

/// Before kube-proxy translates, at -100: a packet that goes on meets the rules of that moment.
const BEFORE_KUBE_PROXY: i32 = -110;

const LOOPBACK: &str = "lo";

/// Queues are the namespace's. This one is none that other programs are known to use: they begin at 0 or 100.
const QUEUE: u16 = 27_497;

/// How often the servers are asked while a packet waits for them, and while none does. Nobody tells when a rule of another
/// program's has changed.
const PERIOD: Duration = Duration::from_millis(20);
const IDLE_PERIOD: Duration = Duration::from_millis(200);

/// Their answer needs a millisecond.
const ANSWER: Duration = Duration::from_millis(200);

/// A request for the server's status (RFC 1035, 4.1.1: opcode 2), with no question. Nobody implements it, and everybody says so
/// at once: the answer is about the server alone, whatever names it knows.
const REQUEST: [u8; 12] = *b"KI\x10\0\0\0\0\0\0\0\0\0";

/// How long servers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// As long as nobody asks for them.
    pub idle: Duration,
    /// From the first packet on that is held for them.
    pub holding: Duration,
}

/// Holds what pods send to `servers`, a Service's address, until it is answered there, or `patience` is at its end, or `stop`
/// completes. Then everything goes its way. In the caller's namespace, a node's; if the process ends early, nothing is held.
///
/// # Errors
///
/// [`Error::Hold`] and [`Error::Transaction`], also when the kernel cannot hold packets. Nothing is held then.
pub async fn hold(servers: SocketAddr, patience: Patience, stop: impl Future<Output = ()>) -> Result<()> {
    let mut queue = Queue::open(QUEUE).await.map_err(failed(servers))?;
    nft::install(None, vec![table(servers)]).await?;
    let waited = wait(&mut queue, servers, patience, stop).await;
    let released = queue.release().await;
    nft::uninstall(TABLE, TABLE).await?;
    // And what came before the rules were gone.
    let rest = queue.release().await;
    waited.and(released).and(rest).map_err(failed(servers))
}

async fn wait(
    queue: &mut Queue,
    servers: SocketAddr,
    patience: Patience,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut stop = pin!(stop);
    let mut asked = Instant::now();
    let mut end = asked + patience.idle;
    loop {
        let holds = queue.holds_any();
        let period = if holds { PERIOD } else { IDLE_PERIOD };
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = time::sleep_until(end) => return Ok(()),
            received = queue.receive() => {
                received?;
                if !holds {
                    end = end.min(Instant::now() + patience.holding);
                }
            }
            () = time::sleep_until(asked + period) => {
                if answer(servers).await {
                    return Ok(());
                }
                asked = Instant::now();
            }
        }
    }
}

/// Whether the servers answer the node itself: by the same rules as they would its pods, but for the table here.
async fn answer(servers: SocketAddr) -> bool {
    let any: IpAddr =
        if servers.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let asking = async {
        // Each time from another port: how a flow is translated is decided once.
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(servers).await?;
        socket.send(&REQUEST).await?;
        socket.recv(&mut [0; 512]).await
    };
    matches!(time::timeout(ANSWER, asking).await, Ok(Ok(_)))
}

fn table(servers: SocketAddr) -> Table {
    let rule = |protocol| {
        let expressions = [
            // What the node sends to itself comes in there: the question below, where the address is the node's own.
            nft::from_interface(LOOPBACK, Match::IsNot),
            nft::destination_is(servers.ip(), Match::Is),
            nft::protocol(protocol),
            nft::destination_port(servers.port()),
            nft::queue(QUEUE),
        ];
        Rule::new(format!("hold packets for {servers}"), expressions)
    };
    let chain = Chain {
        name: "prerouting",
        kind: ChainKind::Filter,
        hook: InetHookNumber::PreRouting,
        priority: BEFORE_KUBE_PROXY,
        rules: [Protocol::Udp, Protocol::Tcp].map(rule).into(),
    };
    let family = if servers.is_ipv4() { Family::Ip } else { Family::Ip6 };
    Table { family, name: TABLE.to_owned(), comment: TABLE.to_owned(), chains: vec![chain] }
}

fn failed(servers: SocketAddr) -> impl Fn(io::Error) -> Error {
    move |source| Error::Hold { servers, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn servers_that_answer_are_told_from_those_that_refuse_or_are_silent() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        assert!(!answer(address).await, "it has not answered");
        let answering = async {
            let mut request = [0; 512];
            loop {
                let (length, client) = server.recv_from(&mut request).await.unwrap();
                assert_eq!(request[..length], REQUEST);
                server.send_to(&request[..length], client).await.unwrap();
            }
        };
        tokio::select! {
            _ = answering => unreachable!(),
            answered = answer(address) => assert!(answered),
        }
        drop(server);
        assert!(!answer(address).await, "nobody listens");
    }
}
