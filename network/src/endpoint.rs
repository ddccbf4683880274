//! A node's place in its cluster's network.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use rtnetlink::{
    Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage},
};
use serde::{Deserialize, Serialize};

use crate::{Error, Network, Result, bridge, link, name, netns};

/// The name of a node's link to the bridge, inside the node.
pub const UPLINK: &str = "eth0";

const LOOPBACK: &str = "lo";

/// A node's place in its cluster's network. Saved with the node, so that a restarted node keeps its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The node's name.
    pub node: String,
    /// The host's end of the veth pair; at most 15 bytes and unique on the host, see [`Endpoint::link_name`].
    pub link: String,
    /// The hardware address of the node's end.
    pub mac: [u8; 6],
    /// The node's IPv4 address, where the cluster speaks IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// The node's IPv6 address, where the cluster speaks IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

impl Endpoint {
    /// The name of the host's end of a node's veth pair: `kn` and a hash of what the cluster and the node are called.
    #[must_use]
    pub fn link_name(cluster: &str, node: &str) -> String {
        name::node_link(cluster, node)
    }

    /// Whether this is one of the node's addresses.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4 == Some(address),
            IpAddr::V6(address) => self.ipv6 == Some(address),
        }
    }

    /// The node's addresses with their subnets' prefix lengths and gateways; an error for one outside of them.
    fn addresses(&self, network: &Network) -> Result<Vec<(IpAddr, u8, IpAddr)>> {
        let mut addresses = Vec::new();
        if let Some(address) = self.ipv4 {
            let subnet = network.ipv4.filter(|net| net.contains(&address)).zip(network.gateway_v4());
            let (net, gateway) = subnet.ok_or_else(|| self.outside(network, address.into()))?;
            addresses.push((address.into(), net.prefix_len(), gateway.into()));
        }
        if let Some(address) = self.ipv6 {
            let subnet = network.ipv6.filter(|net| net.contains(&address)).zip(network.gateway_v6());
            let (net, gateway) = subnet.ok_or_else(|| self.outside(network, address.into()))?;
            addresses.push((address.into(), net.prefix_len(), gateway.into()));
        }
        Ok(addresses)
    }

    fn outside(&self, network: &Network, address: IpAddr) -> Error {
        Error::AddressOutside { address, node: self.node.clone(), cluster: network.cluster.clone() }
    }
}

/// Connects a node's namespace to the cluster's bridge: a veth pair, loopback up, addresses and default routes.
///
/// A host's end left from the node's previous life is replaced.
///
/// # Errors
///
/// [`Error::NoLink`] before [`create_bridge`](crate::create_bridge); [`Error::ForeignLink`] when the host's end
/// exists and is not on this bridge; otherwise what the kernel refused. What was made stays for
/// [`remove`](crate::remove), or the next `attach` of the node.
pub async fn attach(network: &Network, endpoint: &Endpoint, netns: BorrowedFd<'_>) -> Result<()> {
    let addresses = endpoint.addresses(network)?;
    let host = netns::route_handle(None).await?;
    let bridge = bridge::find_ours(&host, network)
        .await?
        .ok_or_else(|| Error::NoLink { link: network.bridge.clone() })?;

    // The kernel takes down a dead node's namespace, and with it the pair, only some time after its last process.
    if let Some(stale) = link::find(&host, &endpoint.link).await? {
        if link::controller(&stale) != Some(bridge.header.index) {
            return Err(Error::ForeignLink { link: endpoint.link.clone() });
        }
        link::remove(&host, &stale).await?;
    }
    host.link().add(veth(network, endpoint, bridge.header.index, netns)).execute().await.map_err(
        |error| Error::CreateVeth {
            link: endpoint.link.clone(),
            node: endpoint.node.clone(),
            bridge: network.bridge.clone(),
            source: link::cause(error),
        },
    )?;

    // A node that calls its own published port sends packets that come back to it. With br_netfilter in the kernel
    // they are translated while still on the bridge, and turned round there, which a port has to allow. (IPv6's
    // duplicate address detection knows its own questions when they are returned, since Linux 4.10.)
    let port = link::get(&host, &endpoint.link).await?.header.index;
    link::change(&host, &endpoint.link, LinkBridgePort::new(port).hairpin(true).build()).await?;

    let node = netns::route_handle(Some(netns)).await?;
    set_up(&node, LOOPBACK).await?;
    let uplink = link::get(&node, UPLINK).await?;
    for (address, prefix, _) in &addresses {
        link::add_address(&node, &uplink, *address, *prefix).await?;
    }
    set_up(&node, UPLINK).await?;
    for (_, _, gateway) in &addresses {
        add_default_route(&node, endpoint, uplink.header.index, *gateway).await?;
    }
    Ok(())
}

/// The message that makes both ends at once: the host's on the bridge and up, the node's born in its namespace with
/// its final name and hardware address. No step in between can be seen, or left behind.
fn veth(network: &Network, endpoint: &Endpoint, bridge: u32, netns: BorrowedFd<'_>) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(UPLINK)
        .setns_by_fd(netns.as_raw_fd())
        .address(endpoint.mac.to_vec())
        .mtu(network.mtu)
        .build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(endpoint.link.as_str())
        .mtu(network.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(bridge)
        .up()
        .build()
}

async fn set_up(handle: &Handle, name: &str) -> Result<()> {
    let index = link::get(handle, name).await?.header.index;
    link::change(handle, name, LinkUnspec::new_with_index(index).up().build()).await
}

async fn add_default_route(handle: &Handle, endpoint: &Endpoint, uplink: u32, gateway: IpAddr) -> Result<()> {
    let route = match gateway {
        IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(ip).output_interface(uplink).build(),
        IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(ip).output_interface(uplink).build(),
    };
    handle.route().add(route).execute().await.map_err(|error| Error::AddRoute {
        gateway,
        node: endpoint.node.clone(),
        source: link::cause(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_must_lie_in_the_network() {
        let network = Network {
            cluster: "kind".to_owned(),
            bridge: "kiln-kind".to_owned(),
            ipv4: Some("172.30.0.0/24".parse().unwrap()),
            ipv6: None,
            mtu: 1500,
        };
        let endpoint = Endpoint {
            node: "kind-worker".to_owned(),
            link: Endpoint::link_name("kind", "kind-worker"),
            mac: [2, 0, 0, 0, 0, 2],
            ipv4: Some(Ipv4Addr::new(172, 30, 0, 2)),
            ipv6: None,
        };
        let expected = (Ipv4Addr::new(172, 30, 0, 2).into(), 24, Ipv4Addr::new(172, 30, 0, 1).into());
        assert_eq!(endpoint.addresses(&network).unwrap(), [expected]);

        let outside = Endpoint { ipv4: Some(Ipv4Addr::new(172, 30, 1, 2)), ..endpoint.clone() };
        assert!(matches!(outside.addresses(&network), Err(Error::AddressOutside { .. })));
        let other_family = Endpoint { ipv6: Some("fd00::2".parse().unwrap()), ..endpoint };
        assert!(matches!(other_family.addresses(&network), Err(Error::AddressOutside { .. })));
    }
}
