//! Routes between the nodes of a cluster, for their pods.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::BorrowedFd,
};

use ipnet::IpNet;
use rtnetlink::RouteMessageBuilder;

use crate::{Error, Result, link, netns};

/// A range of pods, and the address of the node that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// The pods.
    pub pods: IpNet,
    /// The node, on the cluster's bridge and of the same address family.
    pub via: IpAddr,
}

/// Makes a node reach pods through the nodes that have them. A route to the same pods that leads elsewhere is replaced.
///
/// # Errors
/// [`Error::AddRoute`] naming the node and the gateway that the kernel refused, or what entering the namespace says.
pub async fn route_pods(node: &str, netns: BorrowedFd<'_>, routes: &[PodRoute]) -> Result<()> {
    let handle = netns::route_handle(Some(netns)).await?;
    for route in routes {
        let message = match (route.pods, route.via) {
            (IpNet::V4(pods), IpAddr::V4(via)) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(pods.network(), pods.prefix_len())
                .gateway(via)
                .build(),
            (IpNet::V6(pods), IpAddr::V6(via)) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(pods.network(), pods.prefix_len())
                .gateway(via)
                .build(),
            (_, gateway) => {
                let source = std::io::ErrorKind::InvalidInput.into();
                return Err(Error::AddRoute { gateway, node: node.to_owned(), source });
            }
        };
        handle.route().add(message).replace().execute().await.map_err(|error| Error::AddRoute {
            gateway: route.via,
            node: node.to_owned(),
            source: link::cause(error),
        })?;
    }
    Ok(())
}
