//! How long the network of ten nodes takes: what `kiln create` does for one, in the same order and as much of it side by
//! side, less choosing a subnet. Prints a table; needs root.
//!
//! Each round plays "the host" in a fresh network namespace; the host's own is never entered. No namespace is given back
//! before the last round has ended: the kernel takes them down in the background and lets nobody make one meanwhile, which
//! would be counted for the next round.

#![forbid(unsafe_code)]

use std::{
    error::Error,
    io::{Write, stdout},
    net::Ipv4Addr,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use kiln_network::{
    Endpoint, Network, PodRoute, PodRules, PortMapping, Protocol, UPLINK, attach, create_bridge,
    isolate_services, new_netns, publish, route_pods,
};
use nix::sched::CloneFlags;

const NODES: u8 = 10;
const ROUNDS: usize = 20;

const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(172, 30, 0, 0), 24);
const PODS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
const SERVICES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How long the steps of one round took.
#[derive(Clone, Copy, Debug)]
struct Round {
    bridge: Duration,
    nodes: Duration,
    routes: Duration,
}

/// What is measured of a round.
type Row = (&'static str, fn(&Round) -> Duration);

fn main() -> Result<()> {
    let mut rounds = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..ROUNDS {
        let host = new_netns()?;
        let (round, nodes) = on_host(&host)?;
        rounds.push(round);
        kept.push((host, nodes));
    }
    let rows: [Row; 4] = [
        ("the bridge", |round| round.bridge),
        ("namespaces, links and rules of the nodes; the published port", |round| round.nodes),
        ("routes between their pods", |round| round.routes),
        ("all of it", |round| round.bridge + round.nodes + round.routes),
    ];
    let mut text =
        format!("\n| {NODES} nodes, {ROUNDS} rounds | min | median | max | |\n|---|--:|--:|--:|---|\n");
    for (name, value) in rows {
        let mut values: Vec<f64> = rounds.iter().map(|round| value(round).as_secs_f64() * 1e3).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[ROUNDS - 1]);
        let median = (values[(ROUNDS - 1) / 2] + values[ROUNDS / 2]) / 2.0;
        text.push_str(&format!("| {name} | {least:.1} | {median:.1} | {most:.1} | ms |\n"));
    }
    Ok(stdout().write_all(text.as_bytes())?)
}

/// Runs a round on a thread in the namespace, with the runtime that `kiln` has. The runtime's threads start where the one
/// that makes them is.
fn on_host(host: &OwnedFd) -> Result<(Round, Vec<OwnedFd>)> {
    let host = host.try_clone()?;
    let round = thread::spawn(move || {
        enter(&host)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(wire())
    });
    round.join().map_err(|_| "a round panicked")?
}

#[expect(clippy::disallowed_methods, reason = "on a thread that ends with its round")]
fn enter(netns: &OwnedFd) -> nix::Result<()> {
    nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)
}

async fn wire() -> Result<(Round, Vec<OwnedFd>)> {
    let network = Network {
        cluster: "wiring".to_owned(),
        bridge: Network::bridge_name("wiring"),
        ipv4: Some(SUBNET),
        ipv6: None,
        mtu: 1500,
    };
    let api = PortMapping {
        protocol: Protocol::Tcp,
        listen: Ipv4Addr::LOCALHOST.into(),
        host_port: 6443,
        target: address(0).into(),
        target_port: 6443,
    };

    let start = Instant::now();
    create_bridge(&network).await?;
    let bridge = start.elapsed();

    let start = Instant::now();
    let nodes = futures_util::future::try_join_all((0..NODES).map(|number| connect(&network, number)));
    let (nodes, _) = tokio::try_join!(nodes, publish(&network, std::slice::from_ref(&api)))?;
    let wired = start.elapsed();

    let start = Instant::now();
    for (number, node) in (0..NODES).zip(&nodes) {
        route_pods(&name(number), node.as_fd(), &routes_from(number)).await?;
    }
    Ok((Round { bridge, nodes: wired, routes: start.elapsed() }, nodes))
}

async fn connect(network: &Network, number: u8) -> kiln_network::Result<OwnedFd> {
    let endpoint = Endpoint {
        node: name(number),
        link: Endpoint::link_name("bench", &name(number)),
        mac: [2, 0, 0, 0, 0, number],
        ipv4: Some(address(number)),
        ipv6: None,
    };
    let netns = new_netns()?;
    attach(network, &endpoint, netns.as_fd()).await?;
    let rules = PodRules {
        pod_subnets: vec![PODS.into()],
        service_subnets: vec![SERVICES.into()],
        uplink: UPLINK.to_owned(),
        fallback: None,
    };
    isolate_services(Some(netns.as_fd()), &rules).await?;
    Ok(netns)
}

fn name(number: u8) -> String {
    format!("wiring-{number}")
}

/// The first host address is the bridge's.
fn address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = SUBNET.addr().octets();
    Ipv4Addr::new(a, b, c, number + 2)
}

fn routes_from(number: u8) -> Vec<PodRoute> {
    let [a, b, ..] = PODS.addr().octets();
    let range = |other| Ipv4Net::new_assert(Ipv4Addr::new(a, b, other, 0), 24);
    let others = (0..NODES).filter(|other| *other != number);
    others.map(|other| PodRoute { pods: range(other).into(), via: address(other).into() }).collect()
}
