//! Keeping clusters apart.
//!
//! The host routes between all of its links, so between clusters' bridges too, and every node would reach every
//! other cluster's nodes under their own addresses. Each cluster's table guards what goes out through its own
//! bridge; guards of both sides keep both directions shut.

use netlink_packet_netfilter::nftables::InetHookNumber;

use crate::{
    name,
    nft::{self, Chain, ChainKind, Family, Match, Rule},
};

/// Refuses what comes from the bridge of another cluster, but for published ports and answers.
///
/// What is left over in the end is refused, rather than what is new: packets that connection tracking cannot make
/// sense of have no state, which no rule about states would match.
pub(crate) fn chain(bridge: &str, family: Family) -> Chain {
    let rules = vec![
        // With br_netfilter in the kernel, frames between two nodes come by here as well.
        Rule::new(
            format!("let {bridge} speak to itself"),
            [nft::from_interface(bridge, Match::Is), nft::accept()],
        ),
        Rule::new(format!("let published ports of {bridge} be reached"), [nft::translated(), nft::accept()]),
        Rule::new(format!("let answers reach {bridge}"), [nft::established(), nft::accept()]),
        Rule::new(
            format!("keep other clusters away from {bridge}"),
            [nft::from_interfaces(name::PREFIX), nft::to_interface(bridge, Match::Is), nft::reject(family)],
        ),
    ];
    let (name, kind, hook) = ("isolation", ChainKind::Filter, InetHookNumber::Forward);
    Chain { name, kind, hook, priority: 0, rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_go_before_the_refusal() {
        let chain = chain("kiln-kind", Family::Ip6);
        let purposes: Vec<_> = chain.rules.iter().map(|rule| rule.purpose.as_str()).collect();
        assert_eq!(purposes.len(), 4);
        assert_eq!(purposes[3], "keep other clusters away from kiln-kind");
    }

    #[test]
    fn every_bridge_is_known_by_its_name() {
        for cluster in ["kind", "a-name-that-is-too-long-for-a-link"] {
            assert!(name::bridge(cluster).starts_with(name::PREFIX));
        }
    }
}
