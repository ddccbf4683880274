//! Firewalls of other programs around clusters, and clusters beside each other.

#![expect(clippy::unwrap_used, reason = "a stage that cannot be set up is a failed test")]
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kiln_network::{
    Endpoint, Network, PortMapping, Protocol, attach, create_bridge, forward_drops, new_netns, publish,
    remove,
};

use crate::stage::*;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const HOST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Long enough for any connection that comes about at all.
const ATTEMPT: Duration = Duration::from_secs(1);
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

#[test]
fn dropping_firewalls_are_opened_and_closed_again() {
    on_a_host_of_its_own(|| async {
        if !there("nft") {
            return;
        }
        let (network, first, second) = two_nodes().await;
        let (world, outside) = world().await;
        let ports = [mapping(18080, FIRST.into())];
        let filtered = fs_err::write(BRIDGE_FILTER, "1").is_ok();
        let passing = || passing(&first, &second, &outside, filtered);

        assert_eq!(publish(&network, &ports).await.unwrap(), [""; 0]);
        assert_eq!(passing(), [true; 3], "without a firewall");
        drop_what_is_forwarded();
        let before = ruleset();
        assert_eq!(passing(), [false, false, !filtered], "behind the firewalls");

        let chains = ["inet fw (chain forward)", "ip filter (chain FORWARD)", "ip6 filter (chain FORWARD)"];
        assert_eq!(forward_drops().unwrap().chains, chains);
        for _ in 0..2 {
            assert_eq!(publish(&network, &ports).await.unwrap(), chains);
        }
        if there("iptables-nft") {
            // As a host does that keeps its rules in a file: the comment takes another form on the way.
            restore_iptables();
            assert!(!run("nft", "list chain ip filter FORWARD").contains("comment \"kiln:wired\""));
            assert_eq!(publish(&network, &ports).await.unwrap(), chains);
        }
        assert_eq!(passing(), [true; 3], "through the opened firewalls");
        for chain in ["ip filter FORWARD", "ip6 filter FORWARD", "inet fw forward"] {
            let listed = run("nft", &format!("list chain {chain}"));
            let rules: Vec<_> = listed.lines().map(str::trim).filter(|line| line.contains("kiln")).collect();
            assert_eq!(rules.len(), 2, "{listed}");
            for (rule, side) in rules.iter().zip(["iifname", "oifname"]) {
                assert!(rule.starts_with(&format!("{side} \"{}\" counter", network.bridge)), "{rule}");
                assert!(rule.ends_with("accept comment \"kiln:wired\""), "{rule}");
            }
        }
        if there("iptables-nft") {
            let listed = run("iptables-nft", "-S FORWARD");
            let rules: Vec<_> = listed.lines().collect();
            assert_eq!(rules.len(), 4, "{listed}");
            assert_eq!(rules[0], "-P FORWARD DROP");
            assert!(rules[1].starts_with("-A FORWARD -i kiln-wired ") && rules[1].ends_with("-j ACCEPT"));
            assert!(rules[2].starts_with("-A FORWARD -o kiln-wired ") && rules[2].ends_with("-j ACCEPT"));
            // The program's own work goes on around them.
            run("iptables-nft", "-I FORWARD -i docker1 -j ACCEPT");
            run("iptables-nft", "-D FORWARD -i docker1 -j ACCEPT");
        }

        // A chain that has become harmless is left behind clean all the same.
        run("nft", "chain inet fw forward { policy accept; }");
        assert_clean(remove(&network).await);
        run("nft", "chain inet fw forward { policy drop; }");
        assert_eq!(foreign(&ruleset()), foreign(&before));
        assert_clean(remove(&world).await);
    });
}

#[test]
fn a_firewall_that_its_program_keeps_is_told_and_left() {
    on_a_host_of_its_own(|| async {
        if !there("nft") {
            return;
        }
        let mut owner = Owner::start(
            "add table ip kept { flags owner; }\n\
             add chain ip kept forward { type filter hook forward priority 0; policy drop; }\n",
        );
        let network = network("kept");
        create_bridge(&network).await.unwrap();
        assert_eq!(publish(&network, &[]).await.unwrap(), [""; 0]);
        let drops = forward_drops().unwrap();
        assert_eq!((drops.chains.len(), drops.owned), (0, vec!["ip kept (chain forward)".to_owned()]));
        assert_clean(remove(&network).await);
        owner.0.kill().unwrap();
        owner.0.wait().unwrap();
    });
}

#[test]
fn legacy_iptables_is_told() {
    on_a_host_of_its_own(|| async {
        if !there("iptables-legacy") {
            return;
        }
        assert_eq!(forward_drops().unwrap().legacy, [""; 0]);
        let status = Command::new("iptables-legacy").args(["-P", "FORWARD", "DROP"]).status().unwrap();
        if !status.success() {
            println!("skipped: no legacy iptables in this kernel");
            return;
        }
        let drops = forward_drops().unwrap();
        assert_eq!((drops.legacy, drops.chains), (vec!["ip".to_owned()], Vec::new()));
    });
}

#[test]
fn clusters_reach_each_other_through_published_ports_only() {
    on_a_host_of_its_own(|| async {
        let six = std::path::Path::new("/proc/sys/net/ipv6").exists();
        let (here, caller) = cluster("here", 77, six).await;
        let (there, callee) = cluster("there", 78, six).await;
        let mut addresses = vec![(IpAddr::V4(Ipv4Addr::new(172, 30, 78, 2)), IpAddr::V4(FIRST))];
        if six {
            addresses.push((ula(78, 2).into(), ula(77, 2).into()));
        }
        publish(&here, &[]).await.unwrap();

        for (address, own) in &addresses {
            let listener = listen(callee.as_fd(), *address);
            // As long as the other cluster has no rules: so that it is those that refuse.
            assert!(connects(caller.as_fd(), (*address, 8000)).is_ok(), "{address}");
            // The other way is guarded already.
            let listener_here = listen(caller.as_fd(), *own);
            assert_eq!(refusal(callee.as_fd(), (*own, 8000)), io::ErrorKind::ConnectionRefused);
            drop((listener, listener_here));
        }
        let ports: Vec<_> = addresses.iter().map(|(address, _)| mapping(18080, *address)).collect();
        publish(&there, &ports).await.unwrap();
        for (address, own) in &addresses {
            let listener = listen(callee.as_fd(), *address);
            assert_eq!(refusal(caller.as_fd(), (*address, 8000)), io::ErrorKind::ConnectionRefused);
            drop(listener);
            let server = greeter(callee.as_fd(), SocketAddr::from((*address, 8000)), "published");
            let host = match own {
                IpAddr::V4(_) => IpAddr::V4(GATEWAY),
                IpAddr::V6(_) => IpAddr::V6(ula(77, 1)),
            };
            let heard = inside(caller.as_fd(), || greeting(SocketAddr::from((host, 18080))));
            assert_eq!(heard.unwrap().0, "published");
            server.join().unwrap();
        }
        assert_clean(remove(&here).await);
        assert_clean(remove(&there).await);
    });
}

// === firewalls ===

/// Whether a program can be run; says so if not.
fn there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: no program {program} here");
    }
    found
}

/// What a program prints. It runs in the namespace of the calling thread.
fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A firewall like Docker's and one like an administrator's; both accept something, though not ours.
fn drop_what_is_forwarded() {
    if there("iptables-nft") {
        for program in ["iptables-nft", "ip6tables-nft"] {
            run(program, "-P FORWARD DROP");
            run(program, "-A FORWARD -i docker0 -j ACCEPT");
        }
        // Restoring makes all chains of the table: let them be there from the start.
        restore_iptables();
    } else {
        for table in ["ip filter", "ip6 filter"] {
            run("nft", &format!("add table {table}"));
            let hook = "{ type filter hook forward priority 0; policy drop; }";
            run("nft", &format!("add chain {table} FORWARD {hook}"));
            run("nft", &format!("add rule {table} FORWARD iifname docker0 counter accept"));
        }
    }
    run("nft", "add table inet fw");
    run("nft", "add chain inet fw forward { type filter hook forward priority 10; policy drop; }");
    run("nft", "add rule inet fw forward iifname lan0 accept comment \"lan\"");
}

fn restore_iptables() {
    run("sh", "-c iptables-nft-save|iptables-nft-restore");
}

fn ruleset() -> String {
    run("nft", "list ruleset")
}

/// The tables of a ruleset that are not a cluster's, in the order of their names.
fn foreign(ruleset: &str) -> Vec<&str> {
    let tables = ruleset.split_inclusive("\n}\n");
    let mut foreign: Vec<_> = tables.filter(|table| !table.starts_with("table ip kiln-")).collect();
    foreign.sort_unstable();
    foreign
}

/// A program that keeps the tables it makes to itself, as long as it lives.
struct Owner(Child);

impl Owner {
    fn start(commands: &str) -> Self {
        let mut program =
            Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        io::Write::write_all(program.stdin.as_mut().unwrap(), commands.as_bytes()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !run("nft", "list ruleset").contains("chain forward") {
            assert!(Instant::now() < deadline, "no table was made");
            thread::sleep(Duration::from_millis(20));
        }
        Self(program)
    }
}

// === clusters and the world ===

/// Another bridge with a host on it that knows nothing of the cluster's subnet.
async fn world() -> (Network, OwnedFd) {
    let network =
        Network { ipv4: Some("198.51.100.0/24".parse().unwrap()), ..network_named("world", "world0") };
    create_bridge(&network).await.unwrap();
    let outside = new_netns().unwrap();
    attach(&network, &endpoint("world-host", OUTSIDE), outside.as_fd()).await.unwrap();
    drop_default_route(outside.as_fd()).await;
    (network, outside)
}

/// A cluster with one node, `172.30.SUBNET.2`, and its like in IPv6.
async fn cluster(name: &str, subnet: u8, six: bool) -> (Network, OwnedFd) {
    let network = Network {
        ipv4: Some(format!("172.30.{subnet}.0/24").parse().unwrap()),
        ipv6: six.then(|| format!("fd00:{subnet}::/64").parse().unwrap()),
        ..network(name)
    };
    create_bridge(&network).await.unwrap();
    let node = new_netns().unwrap();
    let endpoint = Endpoint {
        ipv6: six.then(|| ula(subnet, 2)),
        ..endpoint(&format!("{name}-node"), Ipv4Addr::new(172, 30, subnet, 2))
    };
    attach(&network, &endpoint, node.as_fd()).await.unwrap();
    (network, node)
}

fn ula(subnet: u8, host: u16) -> Ipv6Addr {
    format!("fd00:{subnet}::{host}").parse().unwrap()
}

fn mapping(host_port: u16, target: IpAddr) -> PortMapping {
    let listen = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    PortMapping { protocol: Protocol::Tcp, listen, host_port, target, target_port: 8000 }
}

// === talking ===

/// Whether connections come about from a node to the outside, from there to the published port, and between nodes.
fn passing(first: &OwnedFd, second: &OwnedFd, outside: &OwnedFd, filtered: bool) -> [bool; 3] {
    if !filtered {
        println!("skipped in part: no br_netfilter here");
    }
    let _node = listen(first.as_fd(), FIRST.into());
    let _world = listen(outside.as_fd(), OUTSIDE.into());
    let reach = |from: &OwnedFd, to: Ipv4Addr, port| match connects(from.as_fd(), (to, port)) {
        Ok(()) => true,
        // Lost, not refused.
        Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
        Err(error) => panic!("{to}:{port}: {error}"),
    };
    [reach(first, OUTSIDE, 8000), reach(outside, HOST_OUTSIDE, 18080), reach(second, FIRST, 8000)]
}

fn listen(netns: BorrowedFd<'_>, address: IpAddr) -> TcpListener {
    inside(netns, || TcpListener::bind((address, 8000)).unwrap())
}

/// Makes a connection. What drops the first packet drops those after it.
fn connects(netns: BorrowedFd<'_>, to: impl Into<SocketAddr> + Send) -> io::Result<()> {
    inside(netns, || TcpStream::connect_timeout(&to.into(), ATTEMPT).map(drop))
}

/// How a connection fails. Over IPv6 a refusal that is as quick as one between namespaces finds the socket still busy
/// with sending, and counts only when TCP asks again after a second.
fn refusal(netns: BorrowedFd<'_>, to: impl Into<SocketAddr> + Send) -> io::ErrorKind {
    inside(netns, || TcpStream::connect_timeout(&to.into(), PATIENCE)).unwrap_err().kind()
}
