//! The host's way out.

use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage},
};

use crate::{Result, link, netns, subnet};

/// What a link has that was given no other size (Ethernet's).
const DEFAULT_MTU: u32 = 1500;

/// The largest packet, in bytes, that fits through the link of the host's preferred default route; 1500 without one.
///
/// # Errors
///
/// When the kernel does not list routes or links.
pub async fn uplink_mtu() -> Result<u32> {
    let handle = netns::route_handle(None).await?;
    let routes = subnet::routes(&handle).await?;
    let preferred =
        routes.iter().filter(|route| subnet::is_default(route)).min_by_key(|route| preference(route));
    let Some(index) = preferred.and_then(output) else {
        return Ok(DEFAULT_MTU);
    };
    let links = link::list(&handle).await?;
    let uplink = links.iter().find(|link| link.header.index == index);
    Ok(uplink.and_then(link::mtu).unwrap_or(DEFAULT_MTU))
}

/// The smaller, the better: IPv4 before IPv6 (whose metrics count from 1024), then by metric.
fn preference(route: &RouteMessage) -> (bool, u32) {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    (route.header.address_family != AddressFamily::Inet, metric.unwrap_or(0))
}

fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    })
}
