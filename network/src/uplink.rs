//! The way out, of the host or of a node.

use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        link::LinkMessage,
        route::{RouteAttribute, RouteMessage},
    },
};

use crate::{Error, Result, UPLINK, link, netns, subnet};

/// What a link has that was given no other size (Ethernet's).
const DEFAULT_MTU: u32 = 1500;

/// The largest packet, in bytes, that fits through the link of the host's preferred default route; 1500 without one.
///
/// # Errors
///
/// When the kernel does not list routes or links.
pub async fn uplink_mtu() -> Result<u32> {
    let handle = netns::route_handle(None).await?;
    Ok(default_link(&handle).await?.as_ref().and_then(link::mtu).unwrap_or(DEFAULT_MTU))
}

/// The link that leads out of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub link: String,
    /// The largest packet, in bytes, that fits through it.
    pub mtu: u32,
}

/// The way out of the node that the caller is in: [`UPLINK`], which is its name with container engines too, or the link
/// of the preferred default route.
///
/// # Errors
///
/// [`Error::NoLink`] when there is neither, or when the kernel does not list routes or links.
pub async fn node_uplink() -> Result<Uplink> {
    let handle = netns::route_handle(None).await?;
    let found = match link::find(&handle, UPLINK).await? {
        None => default_link(&handle).await?,
        found => found,
    };
    let found = found.ok_or_else(|| Error::NoLink { link: UPLINK.to_owned() })?;
    Ok(Uplink {
        link: link::name(&found).unwrap_or(UPLINK).to_owned(),
        mtu: link::mtu(&found).unwrap_or(DEFAULT_MTU),
    })
}

/// The link of the preferred default route.
async fn default_link(handle: &Handle) -> Result<Option<LinkMessage>> {
    let routes = subnet::routes(handle).await?;
    let preferred =
        routes.iter().filter(|route| subnet::is_default(route)).min_by_key(|route| preference(route));
    let Some(index) = preferred.and_then(output) else { return Ok(None) };
    Ok(link::list(handle).await?.into_iter().find(|link| link.header.index == index))
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
