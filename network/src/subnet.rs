//! Choosing a subnet that collides with nothing the host knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};

use crate::{Error, Result, link, netns};

/// The routing table of the host's own addresses (`RT_TABLE_LOCAL`).
const LOCAL_TABLE: u32 = 255;

/// The subnets that the host's routes and addresses use, without the default routes.
///
/// # Errors
///
/// When the kernel does not list them.
pub async fn occupied_subnets() -> Result<Vec<IpNet>> {
    let handle = netns::route_handle(None).await?;
    let mut subnets = Vec::new();
    for message in routes(&handle).await? {
        // The host's own addresses, one route each: the addresses below say more.
        if table(&message) != LOCAL_TABLE {
            subnets.extend(destination(&message));
        }
    }
    let addresses: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|error| Error::List { what: "addresses", source: link::cause(error) })?;
    for message in &addresses {
        let net = link::address(message).and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok());
        subnets.extend(net.map(|net| net.trunc()));
    }
    subnets.sort_unstable();
    subnets.dedup();
    Ok(subnets)
}

/// The first subnet of length `prefix` in `pool` that overlaps nothing in `taken`; none when the pool is full, or
/// too small for even one.
#[must_use]
pub fn choose_subnet(pool: Ipv4Net, prefix: u8, taken: &[IpNet]) -> Option<Ipv4Net> {
    pool.subnets(prefix).ok()?.find(|candidate| !taken.iter().any(|net| overlap(*candidate, *net)))
}

/// As [`choose_subnet`], for IPv6.
#[must_use]
pub fn choose_subnet_v6(pool: Ipv6Net, prefix: u8, taken: &[IpNet]) -> Option<Ipv6Net> {
    pool.subnets(prefix).ok()?.find(|candidate| !taken.iter().any(|net| overlap(*candidate, *net)))
}

/// Whether two subnets have an address in common.
#[must_use]
pub fn overlap(a: impl Into<IpNet>, b: IpNet) -> bool {
    let a = a.into();
    a.contains(&b) || b.contains(&a)
}

/// All routes of both families and all tables.
pub(crate) async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>> {
    let queries =
        [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
    let mut all = Vec::new();
    for query in queries {
        let routes: Vec<_> = handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(|error| Error::List { what: "routes", source: link::cause(error) })?;
        all.extend(routes);
    }
    Ok(all)
}

/// Where a route leads to; none for a default route and for other than IP routes.
pub(crate) fn destination(message: &RouteMessage) -> Option<IpNet> {
    let prefix = message.header.destination_prefix_length;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    IpNet::new(address?, prefix).ok().filter(|net| net.prefix_len() > 0)
}

/// Whether this is a default route that is in use.
pub(crate) fn is_default(message: &RouteMessage) -> bool {
    let ip = matches!(message.header.address_family, AddressFamily::Inet | AddressFamily::Inet6);
    ip && message.header.destination_prefix_length == 0 && table(message) != LOCAL_TABLE
}

/// The number of the routing table that a route is in.
pub(crate) fn table(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| message.header.table.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn choose(pool: &str, prefix: u8, taken: &[&str]) -> Option<String> {
        choose_subnet(pool.parse().unwrap(), prefix, &nets(taken)).map(|net| net.to_string())
    }

    #[test]
    fn takes_the_first_when_nothing_is_taken() {
        assert_eq!(choose("172.30.0.0/16", 24, &[]).as_deref(), Some("172.30.0.0/24"));
    }

    #[test]
    fn skips_what_overlaps_either_way() {
        let taken = ["172.30.0.0/24", "172.30.1.128/25", "172.30.2.7/32", "fd00::/8"];
        assert_eq!(choose("172.30.0.0/16", 24, &taken).as_deref(), Some("172.30.3.0/24"));
        assert_eq!(choose("172.30.0.0/16", 24, &["172.16.0.0/12"]), None);
    }

    #[test]
    fn ipv6_is_chosen_alike() {
        let choose = |taken: &[&str]| {
            choose_subnet_v6("fd00:6b69:6c6e::/48".parse().unwrap(), 64, &nets(taken))
                .map(|net| net.to_string())
        };
        assert_eq!(choose(&["172.30.0.0/24"]).as_deref(), Some("fd00:6b69:6c6e::/64"));
        assert_eq!(choose(&["fd00:6b69:6c6e::/63"]).as_deref(), Some("fd00:6b69:6c6e:2::/64"));
        assert_eq!(choose(&["fd00::/16"]), None);
    }

    #[test]
    fn a_full_or_small_pool_has_none() {
        assert_eq!(choose("10.0.0.0/24", 24, &["10.0.0.200/32"]), None);
        assert_eq!(choose("10.0.0.0/25", 24, &[]), None);
    }

    #[test]
    fn the_last_of_the_pool_is_found() {
        assert_eq!(choose("10.0.0.0/23", 24, &["10.0.0.0/24"]).as_deref(), Some("10.0.1.0/24"));
    }
}
