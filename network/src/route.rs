//! Routes between the nodes of a cluster, for their pods.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::BorrowedFd,
};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
};

use crate::{Error, Result, link, netns, subnet};

/// Tells who set a route. Numbers above `RTPROT_STATIC` are for whoever takes them (rtnetlink(7)); by this one the
/// routes to pods are known as Kiln's, whether it was the launcher who set them or the agent in the cluster.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x6b);

/// A range of pods, and the address of the node that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// The pods.
    pub pods: IpNet,
    /// The node, on the cluster's bridge and of the same address family.
    pub via: IpAddr,
}

/// What [`sync_pod_routes`] did.
#[derive(Debug, Default)]
pub struct RouteChanges {
    /// Routes that were missing or led elsewhere.
    pub set: Vec<PodRoute>,
    /// Routes to pods that are no longer there.
    pub removed: Vec<PodRoute>,
    /// What the kernel refused. All other routes are as they should be.
    pub errors: Vec<Error>,
}

impl PodRoute {
    fn message(&self) -> io::Result<RouteMessage> {
        match (self.pods, self.via) {
            (IpNet::V4(pods), IpAddr::V4(via)) => Ok(RouteMessageBuilder::<Ipv4Addr>::new()
                .protocol(PROTOCOL)
                .destination_prefix(pods.network(), pods.prefix_len())
                .gateway(via)
                .build()),
            (IpNet::V6(pods), IpAddr::V6(via)) => Ok(RouteMessageBuilder::<Ipv6Addr>::new()
                .protocol(PROTOCOL)
                .destination_prefix(pods.network(), pods.prefix_len())
                .gateway(via)
                .build()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// None for a route that is not Kiln's.
    fn of(message: &RouteMessage) -> Option<Self> {
        let ours = message.header.protocol == PROTOCOL
            && subnet::table(message) == u32::from(RouteHeader::RT_TABLE_MAIN);
        let via = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(via)) => Some(IpAddr::V4(*via)),
            RouteAttribute::Gateway(RouteAddress::Inet6(via)) => Some(IpAddr::V6(*via)),
            _ => None,
        });
        let pods = subnet::destination(message).filter(|_| ours)?;
        Some(Self { pods, via: via? })
    }

    fn failed(&self, what: &'static str, node: &str, source: io::Error) -> Error {
        Error::PodRoute { what, node: node.to_owned(), pods: self.pods, gateway: self.via, source }
    }
}

/// Makes a node reach pods through the nodes that have them. A route to the same pods that leads elsewhere is replaced.
///
/// # Errors
/// [`Error::PodRoute`] naming the node and the route that the kernel refused, or what entering the namespace says.
pub async fn route_pods(node: &str, netns: BorrowedFd<'_>, routes: &[PodRoute]) -> Result<()> {
    let handle = netns::route_handle(Some(netns)).await?;
    for route in routes {
        set(&handle, node, route).await?;
    }
    Ok(())
}

/// Makes a node's routes to pods those that are wanted: sets what is missing, replaces what leads elsewhere and removes
/// the others that [`route_pods`] or this function have set. Routes of anybody else stay. The node is the namespace, or
/// the caller's own without one.
///
/// # Errors
/// When the kernel does not list the routes. What it refuses of single ones is part of the result.
pub async fn sync_pod_routes(
    node: &str,
    netns: Option<BorrowedFd<'_>>,
    wanted: &[PodRoute],
) -> Result<RouteChanges> {
    let handle = netns::route_handle(netns).await?;
    let present: Vec<_> = subnet::routes(&handle).await?.iter().filter_map(PodRoute::of).collect();
    let wanted: Vec<_> = wanted.iter().map(|route| PodRoute { pods: route.pods.trunc(), ..*route }).collect();
    let mut changes = RouteChanges::default();
    for route in wanted.iter().filter(|route| !present.contains(route)) {
        match set(&handle, node, route).await {
            Ok(()) => changes.set.push(*route),
            Err(error) => changes.errors.push(error),
        }
    }
    for route in present.iter().filter(|route| !wanted.contains(route)) {
        match remove(&handle, node, route).await {
            Ok(true) => changes.removed.push(*route),
            // It gave way to another one to the same pods.
            Ok(false) => {}
            Err(error) => changes.errors.push(error),
        }
    }
    Ok(changes)
}

async fn set(handle: &Handle, node: &str, route: &PodRoute) -> Result<()> {
    let failed = |source| route.failed("set", node, source);
    let message = route.message().map_err(failed)?;
    let result = handle.route().add(message).replace().execute().await;
    result.map_err(|error| failed(link::cause(error)))
}

/// Returns whether it was still there.
async fn remove(handle: &Handle, node: &str, route: &PodRoute) -> Result<bool> {
    let failed = |source| route.failed("remove", node, source);
    let message = route.message().map_err(failed)?;
    match handle.route().del(message).execute().await.map_err(link::cause) {
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(false),
        result => result.map(|()| true).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(pods: &str, via: &str) -> PodRoute {
        PodRoute { pods: pods.parse().unwrap(), via: via.parse().unwrap() }
    }

    #[test]
    fn a_route_is_known_by_its_message() {
        for route in [route("10.244.1.0/24", "172.30.0.3"), route("fd00:10:244:1::/64", "fd00:77::3")] {
            let mut message = route.message().unwrap();
            assert_eq!(PodRoute::of(&message), Some(route));
            message.header.protocol = RouteProtocol::Static;
            assert_eq!(PodRoute::of(&message), None);
        }
    }

    #[test]
    fn pods_and_node_are_of_one_family() {
        let error = route("10.244.1.0/24", "fd00:77::3").message().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
