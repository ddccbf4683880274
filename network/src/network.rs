//! The network of one cluster as data.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::name;

/// The network of one cluster: a bridge on the host and a subnet per address family.
///
/// The first host address of each subnet is the bridge's, and the nodes' gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The cluster's name.
    pub cluster: String,
    /// The bridge; at most 15 bytes, see [`Network::bridge_name`].
    pub bridge: String,
    /// The IPv4 subnet, where the cluster speaks IPv4.
    pub ipv4: Option<Ipv4Net>,
    /// The IPv6 subnet, where the cluster speaks IPv6.
    pub ipv6: Option<Ipv6Net>,
    /// The largest packet in bytes, the same for the bridge and all nodes.
    pub mtu: u32,
}

impl Network {
    /// The bridge's IPv4 address; none without an IPv4 subnet, or when that has no room for two hosts.
    #[must_use]
    pub fn gateway_v4(&self) -> Option<Ipv4Addr> {
        let net = self.ipv4.filter(|net| net.prefix_len() <= 30)?;
        Some(Ipv4Addr::from(u32::from(net.network()) + 1))
    }

    /// The bridge's IPv6 address; none without an IPv6 subnet, or when that has no room for two hosts.
    #[must_use]
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        // Not `hosts().next()`: that is the subnet itself, the anycast address of its routers.
        let net = self.ipv6.filter(|net| net.prefix_len() <= 126)?;
        Some(Ipv6Addr::from(u128::from(net.network()) + 1))
    }

    /// The nftables table of the cluster, `kiln-CLUSTER`, in the families `ip` and `ip6`.
    #[must_use]
    pub fn table(&self) -> String {
        name::table(&self.cluster)
    }

    /// The name of a cluster's bridge: `kiln-CLUSTER` where that fits into 15 bytes, else `kiln-` and a hash.
    #[must_use]
    pub fn bridge_name(cluster: &str) -> String {
        name::bridge(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network {
            cluster: "kind".to_owned(),
            bridge: Network::bridge_name("kind"),
            ipv4: Some("172.30.4.0/24".parse().unwrap()),
            ipv6: Some("fd00:4::/64".parse().unwrap()),
            mtu: 1500,
        }
    }

    #[test]
    fn gateways_are_the_first_hosts() {
        assert_eq!(network().gateway_v4(), Some(Ipv4Addr::new(172, 30, 4, 1)));
        assert_eq!(network().gateway_v6(), Some("fd00:4::1".parse().unwrap()));
    }

    #[test]
    fn a_subnet_without_room_has_no_gateway() {
        let tight = Network { ipv4: Some("10.0.0.0/31".parse().unwrap()), ipv6: None, ..network() };
        assert_eq!((tight.gateway_v4(), tight.gateway_v6()), (None, None));
    }

    #[test]
    fn the_table_is_named_after_the_cluster() {
        assert_eq!(network().table(), "kiln-kind");
    }
}
