//! The bridge of a cluster on the host.

use std::net::IpAddr;

use rtnetlink::{
    Handle, LinkBridge, LinkUnspec,
    packet_route::link::{InfoKind, LinkMessage},
};

use crate::{Error, Network, Result, link, name, netns};

/// Creates the cluster's bridge with its addresses, up, or brings one of an earlier run into that state.
///
/// # Errors
///
/// [`Error::ForeignLink`] when a link of that name exists that Kiln did not make for this cluster; it is not
/// touched. Otherwise what the kernel refused.
pub async fn create_bridge(network: &Network) -> Result<()> {
    let handle = netns::route_handle(None).await?;
    if find_ours(&handle, network).await?.is_none() {
        let message = LinkBridge::new(&network.bridge)
            .address(name::bridge_mac(&network.cluster).to_vec())
            .mtu(network.mtu)
            .build();
        handle.link().add(message).execute().await.map_err(|error| Error::CreateBridge {
            bridge: network.bridge.clone(),
            source: link::cause(error),
        })?;
    }
    let bridge = link::get(&handle, &network.bridge).await?;
    let settings = LinkUnspec::new_with_index(bridge.header.index)
        .alias(name::mark(&network.cluster))
        .mtu(network.mtu)
        .up()
        .build();
    link::change(&handle, &network.bridge, settings).await?;
    set_addresses(&handle, &bridge, network).await
}

/// The cluster's bridge, if it is there; an error if something else has its name.
pub(crate) async fn find_ours(handle: &Handle, network: &Network) -> Result<Option<LinkMessage>> {
    match link::find(handle, &network.bridge).await? {
        Some(found) if !is_ours(&found, network) => Err(Error::ForeignLink { link: network.bridge.clone() }),
        found => Ok(found),
    }
}

fn is_ours(found: &LinkMessage, network: &Network) -> bool {
    let marked = match link::alias(found) {
        Some(alias) => alias == name::mark(&network.cluster),
        // Made by a run that was killed before it could set the alias.
        None => link::mac(found) == Some(&name::bridge_mac(&network.cluster)),
    };
    marked && link::is_kind(found, &InfoKind::Bridge)
}

async fn set_addresses(handle: &Handle, bridge: &LinkMessage, network: &Network) -> Result<()> {
    let ipv4 = network.ipv4.zip(network.gateway_v4()).map(|(net, ip)| (IpAddr::V4(ip), net.prefix_len()));
    let ipv6 = network.ipv6.zip(network.gateway_v6()).map(|(net, ip)| (IpAddr::V6(ip), net.prefix_len()));
    let wanted: Vec<_> = ipv4.into_iter().chain(ipv6).collect();

    // An earlier, half-made cluster of this name may have had another subnet.
    for message in link::addresses(handle, bridge).await? {
        let Some(address) = link::address(&message) else {
            continue;
        };
        let link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if link_local || wanted.contains(&(address, message.header.prefix_len)) {
            continue;
        }
        handle.address().del(message).execute().await.map_err(|error| Error::RemoveAddress {
            address,
            link: network.bridge.clone(),
            source: link::cause(error),
        })?;
    }
    for (address, prefix) in wanted {
        link::add_address(handle, bridge, address, prefix).await?;
    }
    Ok(())
}
