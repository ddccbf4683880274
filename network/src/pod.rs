//! Rules inside a node's own namespace, for its pods.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
};

use ipnet::IpNet;
use netlink_packet_netfilter::nftables::InetHookNumber;
use serde::{Deserialize, Serialize};

use crate::{
    Protocol, Result,
    nft::{self, Chain, ChainKind, Family, Match, Rule, Table},
};

/// The table in a node's namespace; its comment is the same.
const TABLE: &str = "kiln";

/// kube-proxy translates at -100, with iptables and nftables. A connection is translated once.
const AFTER_KUBE_PROXY: i32 = -90;

/// What [`isolate_services`] needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRules {
    /// The subnets that all nodes' pods take their addresses from.
    pub pod_subnets: Vec<IpNet>,
    /// The subnets of the Services' addresses.
    pub service_subnets: Vec<IpNet>,
    /// The node's link to its cluster, [`UPLINK`](crate::UPLINK).
    pub uplink: String,
    /// The address of a Service, its port, and who answers it for as long as nobody else does.
    pub fallback: Option<(SocketAddr, SocketAddr)>,
}

/// Installs, in a node's namespace or without one in the caller's own, masquerading of what pods send to other places
/// than pods, and a refusal of addresses of Services that nobody translates. What was installed before is replaced.
///
/// A Service's address exists only in the rules of kube-proxy or its like. As long as those are missing, packets for
/// it would leave through the default route and vanish, and a program that started early would wait for its
/// connection's timeout, where a refusal lets it try again at once. The refusal comes after translation, so that it
/// never meets a packet of a Service that works, and can stay.
///
/// One Service may be translated here as well, after everybody else has had the chance to: that of the API, which the
/// first pods of a cluster ask for before kube-proxy has heard of it.
///
/// # Errors
///
/// What the kernel refused. Nothing of it took effect then.
pub async fn isolate_services(netns: Option<BorrowedFd<'_>>, rules: &PodRules) -> Result<()> {
    let tables = Family::ALL.into_iter().filter_map(|family| table(family, rules)).collect();
    nft::install(netns, tables).await
}

/// Whether [`isolate_services`] has installed rules in the caller's namespace, and they are still there.
///
/// # Errors
///
/// When the kernel does not list its tables.
pub async fn pod_rules_present() -> Result<bool> {
    nft::installed(TABLE, TABLE).await
}

/// None when the cluster has nothing of this family.
fn table(family: Family, rules: &PodRules) -> Option<Table> {
    let of_family =
        |nets: &[IpNet]| nets.iter().copied().filter(|net| family.holds(net.addr())).collect::<Vec<_>>();
    let (pods, services) = (of_family(&rules.pod_subnets), of_family(&rules.service_subnets));
    if pods.is_empty() && services.is_empty() {
        return None;
    }
    let masquerading = pods.iter().map(|source| masquerading(*source, &pods, &rules.uplink)).collect();
    let refusals = || services.iter().map(|services| refusal(family, *services)).collect();
    let filter = |name, hook| Chain { name, kind: ChainKind::Filter, hook, priority: 0, rules: refusals() };
    let fallback =
        rules.fallback.filter(|(service, backend)| family.holds(service.ip()) && family.holds(backend.ip()));
    let translation = |name, hook| Chain {
        name,
        kind: ChainKind::Nat,
        hook,
        priority: AFTER_KUBE_PROXY,
        rules: fallback.iter().map(|(service, backend)| translated(*service, *backend)).collect(),
    };
    let chains = vec![
        translation("prerouting", InetHookNumber::PreRouting),
        translation("api", InetHookNumber::LocalOut),
        Chain {
            name: "postrouting",
            kind: ChainKind::Nat,
            hook: InetHookNumber::PostRouting,
            priority: 100,
            rules: masquerading,
        },
        filter("forward", InetHookNumber::Forward),
        filter("output", InetHookNumber::LocalOut),
    ];
    Some(Table { family, name: TABLE.to_owned(), comment: TABLE.to_owned(), chains })
}

fn masquerading(source: IpNet, pods: &[IpNet], uplink: &str) -> Rule {
    let outside = pods.iter().flat_map(|net| nft::destination_in(*net, Match::IsNot)).collect();
    Rule::new(
        format!("masquerade what leaves the pods of {source}"),
        [nft::source_in(source, Match::Is), outside, nft::to_interface(uplink, Match::Is), nft::masquerade()],
    )
}

fn translated(service: SocketAddr, backend: SocketAddr) -> Rule {
    let service_address: IpAddr = service.ip();
    Rule::new(
        format!("answer {service} by {backend} until a proxy does"),
        [
            nft::destination_is(service_address, Match::Is),
            nft::protocol(Protocol::Tcp),
            nft::destination_port(service.port()),
            nft::destination_nat(backend.ip(), backend.port()),
        ],
    )
}

fn refusal(family: Family, services: IpNet) -> Rule {
    Rule::new(
        format!("refuse what is left for the services of {services}"),
        [nft::destination_in(services, Match::Is), nft::reject(family)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(pods: &[&str], services: &[&str]) -> PodRules {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        PodRules {
            pod_subnets: nets(pods),
            service_subnets: nets(services),
            uplink: "eth0".to_owned(),
            fallback: None,
        }
    }

    #[test]
    fn each_family_has_its_own_rules() {
        let rules = rules(&["10.244.0.0/16", "fd00:10:244::/56"], &["10.96.0.0/16", "fd00:10:96::/112"]);
        for family in Family::ALL {
            let table = table(family, &rules).unwrap();
            let counts: Vec<_> = table.chains.iter().map(|chain| (chain.name, chain.rules.len())).collect();
            let expected = [("prerouting", 0), ("api", 0), ("postrouting", 1), ("forward", 1), ("output", 1)];
            assert_eq!(counts, expected);
        }
    }

    #[test]
    fn the_api_is_answered_in_its_own_family() {
        let mut rules = rules(&["10.244.0.0/16", "fd00:10:244::/56"], &["10.96.0.0/16", "fd00:10:96::/112"]);
        rules.fallback = Some(("10.96.0.1:443".parse().unwrap(), "172.30.0.2:6443".parse().unwrap()));
        let of = |family| {
            table(family, &rules).unwrap().chains.iter().take(2).map(|chain| chain.rules.len()).sum::<usize>()
        };
        assert_eq!([of(Family::Ip), of(Family::Ip6)], [2, 0]);
    }

    #[test]
    fn a_family_without_subnets_has_no_table() {
        let rules = rules(&["10.244.0.0/16"], &["10.96.0.0/16"]);
        assert!(table(Family::Ip6, &rules).is_none());
        assert!(table(Family::Ip, &rules).is_some());
    }

    #[test]
    fn pods_of_every_subnet_are_inside() {
        let pods: Vec<IpNet> = ["10.1.0.0/16", "10.2.0.0/16"].map(|text| text.parse().unwrap()).to_vec();
        // Source (3 expressions), two destinations (6), the link (2), masquerade (1).
        assert_eq!(masquerading(pods[0], &pods, "eth0").expressions.len(), 12);
    }
}
