//! The pod network: CNI configuration that is there before kubelet looks for one, and routes between nodes.
//!
//! Kiln writes it instead of running a DaemonSet that would: the node is Ready as soon as kubelet is. Pods get their
//! addresses from the node's pod CIDR (host-local), a veth pair each (ptp), and host ports (portmap).

use std::{net::IpAddr, os::fd::AsFd};

use ipnet::IpNet;
use kiln_network::PodRoute;

use super::{
    api, inside,
    node::{StartedNode, Surroundings},
};
use crate::{
    Error, Result,
    cni::{CNI_CONFIG, cni_config},
};

/// The range that the node with this number is given, counted from 0; none when there are not so many.
/// kube-controller-manager hands out pieces of the pod subnet in order, of /24 (IPv4) or /64 (IPv6) where nothing else is
/// asked for. Checked against what it did once the node is known.
pub(super) fn pod_cidrs(pod_subnets: &[IpNet], number: usize) -> Vec<IpNet> {
    let piece = |subnet: &IpNet| {
        let length = if matches!(subnet, IpNet::V4(_)) { 24 } else { 64 };
        subnet.subnets(length.max(subnet.prefix_len())).ok()?.nth(number)
    };
    pod_subnets.iter().map(piece).collect::<Option<_>>().unwrap_or_default()
}

/// Gives every node the CNI configuration for its pod range as soon as the cluster has chosen one, and then routes to the
/// other nodes' pods.
pub(super) async fn connect_pods(
    client: &kube::Client,
    nodes: &[StartedNode],
    around: &Surroundings,
) -> Result<()> {
    let ranges = nodes.iter().map(|node| async move {
        let given = api::pod_ranges(client, &node.plan.name).await;
        // What was assumed is nearly always right, and there already.
        if around.assumed_ranges(&node.plan).as_ref() != Some(&given) {
            let text = cni_config(&given, around.network.mtu);
            inside::write(&node.process, &node.plan.name, &format!("/{CNI_CONFIG}"), &text)?;
        }
        Ok::<_, Error>(given)
    });
    let ranges = futures_util::future::try_join_all(ranges).await?;
    for node in nodes {
        let routes = routes_from(node, nodes.iter().zip(&ranges));
        kiln_network::route_pods(&node.plan.name, node.netns.as_fd(), &routes).await?;
    }
    Ok(())
}

/// The routes of a node to the pods of all others.
fn routes_from<'a>(
    node: &StartedNode,
    all: impl Iterator<Item = (&'a StartedNode, &'a Vec<IpNet>)>,
) -> Vec<PodRoute> {
    let mut routes = Vec::new();
    for (other, ranges) in all.filter(|(other, _)| other.plan.name != node.plan.name) {
        let (ipv4, ipv6) = (other.plan.endpoint.ipv4, other.plan.endpoint.ipv6);
        routes.extend(ranges.iter().filter_map(|pods| {
            let via = if pods.addr().is_ipv4() { ipv4.map(IpAddr::V4) } else { ipv6.map(IpAddr::V6) };
            Some(PodRoute { pods: *pods, via: via? })
        }));
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_node_gets_the_first_piece() {
        assert_eq!(pod_cidrs(&nets(&["10.244.0.0/16"]), 0), nets(&["10.244.0.0/24"]));
        assert_eq!(pod_cidrs(&nets(&["10.244.7.0/25"]), 0), nets(&["10.244.7.0/25"]));
        assert_eq!(pod_cidrs(&nets(&["fd00:10:244::/56"]), 0), nets(&["fd00:10:244::/64"]));
    }

    #[test]
    fn nodes_get_their_pieces_in_order_while_there_are_any() {
        let both = nets(&["10.244.0.0/22", "fd00:10:244::/56"]);
        assert_eq!(pod_cidrs(&both, 2), nets(&["10.244.2.0/24", "fd00:10:244:2::/64"]));
        assert_eq!(pod_cidrs(&both, 4), []);
        assert_eq!(pod_cidrs(&nets(&["10.244.7.0/25"]), 1), []);
        assert_eq!(pod_cidrs(&nets(&["0.0.0.0/0"]), usize::MAX), []);
    }
}
