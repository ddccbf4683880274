//! Translation between a cluster and everything else: masquerading, published ports, localhost access.
//!
//! A published port is a translated destination. For `127.0.0.1` that takes more: the kernel throws away loopback
//! addresses on a link, unless `route_localnet` is set for it, and that setting alone would open the host's loopback
//! services to the nodes. So a rule drops whatever the bridge brings for 127/8, before anything is translated; the
//! answers to translated connections carry the bridge's address at that point, and pass. Ports published on a
//! loopback address are translated for the host's own packets only: the rule for arriving ones would be met before
//! the kernel gets to throw them away, and so open the port to the neighbours of the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_netfilter::nftables::InetHookNumber;

use crate::{
    Error, Network, PortMapping, Result, forwarding, isolation, name, netns,
    nft::{self, Chain, ChainKind, Family, Match, Rule, Table},
    sysctl,
};

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// Publishes these ports, and no others of the cluster, and lets its nodes reach out but not into other clusters.
///
/// Replaces the cluster's nftables tables in one transaction: at no moment do old and new rules mix. Then, in another,
/// lets the bridge's packets through the chains of other programs that drop what is forwarded, and gives back which
/// these are, as `FAMILY TABLE (chain CHAIN)`. Then sets `route_localnet` of the bridge, and `ip_forward` (and its
/// IPv6 sibling for a network with IPv6) if it is 0.
///
/// # Errors
///
/// [`Error::Unpublishable`] for a mapping that translation cannot do: across address families, of `[::1]`, of a port
/// 0, or the same one twice. [`Error::ForeignTable`] when something else has the table's name. Nothing is changed
/// in these cases.
pub async fn publish(network: &Network, ports: &[PortMapping]) -> Result<Vec<String>> {
    check(network, ports)?;
    let subnets = [network.ipv4.map(IpNet::V4), network.ipv6.map(IpNet::V6)];
    let tables = subnets.into_iter().flatten().map(|subnet| table(network, subnet, ports)).collect();
    nft::install(None, tables).await?;
    let opened = forwarding::open(network).await?;

    // Only now that the rule against loopback traffic from the bridge stands.
    let (bridge, ipv4, ipv6) = (network.bridge.clone(), network.ipv4.is_some(), network.ipv6.is_some());
    netns::on_thread(None, move || {
        if ipv4 {
            sysctl::enable(&["ipv4", "ip_forward"])?;
            sysctl::enable(&["ipv4", "conf", &bridge, "route_localnet"])?;
        }
        if ipv6 {
            sysctl::enable(&["ipv6", "conf", "all", "forwarding"])?;
        }
        Ok(opened)
    })
    .await
}

fn check(network: &Network, ports: &[PortMapping]) -> Result<()> {
    for (index, port) in ports.iter().enumerate() {
        let same = |other: &PortMapping| {
            (other.protocol, other.listen, other.host_port) == (port.protocol, port.listen, port.host_port)
        };
        let has_family = if port.target.is_ipv4() { network.ipv4.is_some() } else { network.ipv6.is_some() };
        let reason = if port.host_port == 0 || port.target_port == 0 {
            "port 0 is no port"
        } else if port.listen.is_ipv4() != port.target.is_ipv4() {
            "the kernel does not translate between IPv4 and IPv6"
        } else if !has_family {
            "the cluster has no network of this address family"
        } else if port.listen == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            "the kernel does not translate the IPv6 loopback address"
        } else if ports[..index].iter().any(same) {
            "the port of the host is mapped twice"
        } else {
            continue;
        };
        return Err(Error::Unpublishable { mapping: port.to_string(), reason });
    }
    Ok(())
}

fn table(network: &Network, subnet: IpNet, ports: &[PortMapping]) -> Table {
    let family = if subnet.addr().is_ipv4() { Family::Ip } else { Family::Ip6 };
    let mut ports: Vec<_> = ports.iter().filter(|port| family.holds(port.listen)).collect();
    // The first rule that matches decides, so the mapping of one address goes before that of all of them.
    ports.sort_by_key(|port| port.listen.is_unspecified());

    let arriving =
        ports.iter().filter(|port| !port.listen.is_loopback()).map(|port| publication(port)).collect();
    let own = ports.iter().map(|port| publication(port)).collect();
    let nat = |name, hook, priority, rules| Chain { name, kind: ChainKind::Nat, hook, priority, rules };
    let mut chains = vec![
        nat("prerouting", InetHookNumber::PreRouting, -100, arriving),
        nat("output", InetHookNumber::LocalOut, -100, own),
        nat("postrouting", InetHookNumber::PostRouting, 100, masquerading(network, subnet)),
        isolation::chain(&network.bridge, family),
    ];
    if family == Family::Ip {
        chains.insert(0, loopback_guard(network));
    }
    Table { family, name: network.table(), comment: name::mark(&network.cluster), chains }
}

/// Before connection tracking, so before any translation.
fn loopback_guard(network: &Network) -> Chain {
    let loopback = IpNet::V4(LOOPBACK);
    let bridge = &network.bridge;
    let rules = vec![
        Rule::new(
            format!("keep {bridge} away from the host's loopback"),
            [nft::from_interface(bridge, Match::Is), nft::destination_in(loopback, Match::Is), nft::drop()],
        ),
        Rule::new(
            format!("keep loopback senders away from {bridge}"),
            [nft::from_interface(bridge, Match::Is), nft::source_in(loopback, Match::Is), nft::drop()],
        ),
    ];
    let (name, kind, hook) = ("guard", ChainKind::Filter, InetHookNumber::PreRouting);
    Chain { name, kind, hook, priority: -300, rules }
}

fn masquerading(network: &Network, subnet: IpNet) -> Vec<Rule> {
    let bridge = &network.bridge;
    let mut rules = vec![
        Rule::new(
            format!("masquerade what leaves {subnet}"),
            [nft::source_in(subnet, Match::Is), nft::to_interface(bridge, Match::IsNot), nft::masquerade()],
        ),
        // A node that calls a published port of the host: without this, the target answers its neighbour directly,
        // and from an address the caller never called.
        Rule::new(
            format!("masquerade what returns to {subnet}"),
            [
                nft::source_in(subnet, Match::Is),
                nft::destination_in(subnet, Match::Is),
                nft::to_interface(bridge, Match::Is),
                nft::translated(),
                nft::masquerade(),
            ],
        ),
    ];
    if subnet.addr().is_ipv4() {
        // A node cannot answer 127.0.0.1.
        rules.push(Rule::new(
            format!("masquerade loopback towards {bridge}"),
            [
                nft::source_in(IpNet::V4(LOOPBACK), Match::Is),
                nft::to_interface(bridge, Match::Is),
                nft::masquerade(),
            ],
        ));
    }
    rules
}

fn publication(port: &PortMapping) -> Rule {
    let listens = match port.listen {
        IpAddr::V4(ip) if ip.is_unspecified() => nft::destination_local(),
        // `[::1]` is left to whom it belongs: its packets cannot leave the host.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            [nft::destination_is(Ipv6Addr::LOCALHOST.into(), Match::IsNot), nft::destination_local()].concat()
        }
        address => nft::destination_is(address, Match::Is),
    };
    Rule::new(
        format!("publish {port}"),
        [
            nft::protocol(port.protocol),
            nft::destination_port(port.host_port),
            listens,
            nft::destination_nat(port.target, port.target_port),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn network() -> Network {
        Network {
            cluster: "kind".to_owned(),
            bridge: "kiln-kind".to_owned(),
            ipv4: Some("172.30.0.0/24".parse().unwrap()),
            ipv6: Some("fd00::/64".parse().unwrap()),
            mtu: 1500,
        }
    }

    fn mapping(listen: &str, target: &str) -> PortMapping {
        PortMapping {
            protocol: Protocol::Tcp,
            listen: listen.parse().unwrap(),
            host_port: 8080,
            target: target.parse().unwrap(),
            target_port: 80,
        }
    }

    fn purposes(table: &Table, chain: &str) -> Vec<String> {
        let chain = table.chains.iter().find(|candidate| candidate.name == chain).unwrap();
        chain.rules.iter().map(|rule| rule.purpose.clone()).collect()
    }

    #[test]
    fn loopback_ports_are_for_the_host_only() {
        let ports = [mapping("127.0.0.1", "172.30.0.2")];
        let table = table(&network(), "172.30.0.0/24".parse().unwrap(), &ports);
        assert!(purposes(&table, "prerouting").is_empty());
        assert_eq!(purposes(&table, "output"), ["publish 127.0.0.1:8080/tcp to 172.30.0.2:80"]);
    }

    #[test]
    fn one_address_goes_before_all() {
        let ports = [mapping("0.0.0.0", "172.30.0.2"), mapping("192.0.2.1", "172.30.0.3")];
        let table = table(&network(), "172.30.0.0/24".parse().unwrap(), &ports);
        let expected =
            ["publish 192.0.2.1:8080/tcp to 172.30.0.3:80", "publish 0.0.0.0:8080/tcp to 172.30.0.2:80"];
        assert_eq!(purposes(&table, "prerouting"), expected);
    }

    #[test]
    fn families_are_kept_apart() {
        let ports = [mapping("0.0.0.0", "172.30.0.2"), mapping("::", "fd00::2")];
        let table = table(&network(), "fd00::/64".parse().unwrap(), &ports);
        assert_eq!(purposes(&table, "output"), ["publish [::]:8080/tcp to [fd00::2]:80"]);
        assert!(table.chains.iter().all(|chain| chain.name != "guard"));
        assert_eq!(purposes(&table, "postrouting").len(), 2);
    }

    #[test]
    fn the_guard_comes_before_connection_tracking() {
        let table = table(&network(), "172.30.0.0/24".parse().unwrap(), &[]);
        let guard = &table.chains[0];
        assert_eq!((guard.name, guard.priority, guard.kind), ("guard", -300, ChainKind::Filter));
    }

    #[test]
    fn what_cannot_be_translated_is_refused() {
        let refused =
            |ports: &[PortMapping]| matches!(check(&network(), ports), Err(Error::Unpublishable { .. }));
        let good = mapping("0.0.0.0", "172.30.0.2");
        assert!(!refused(&[good.clone(), PortMapping { protocol: Protocol::Udp, ..good.clone() }]));
        assert!(refused(&[good.clone(), good.clone()]));
        assert!(refused(&[mapping("0.0.0.0", "fd00::2")]));
        assert!(refused(&[mapping("::1", "fd00::2")]));
        assert!(refused(&[PortMapping { host_port: 0, ..good.clone() }]));
        let only_ipv6 = Network { ipv4: None, ..network() };
        assert!(matches!(check(&only_ipv6, &[good]), Err(Error::Unpublishable { .. })));
    }
}
