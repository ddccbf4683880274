//! The nodes of the cluster, as far as pods' addresses go.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kiln_network::PodRoute;
use kube::runtime::watcher::Event;

/// What the API has told of the nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    known: BTreeMap<String, Known>,
    /// A list of all that is not complete yet.
    listing: BTreeMap<String, Known>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    pods: Vec<IpNet>,
    addresses: Vec<IpAddr>,
}

impl Nodes {
    /// Takes in what a watch tells. Returns whether that changes what is known: parts of a list do not before it is
    /// complete, lest the nodes that come last are taken for gone.
    pub(super) fn update(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                false
            }
            Event::InitApply(node) => {
                self.listing.extend(read(&node));
                false
            }
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listing);
                true
            }
            Event::Apply(node) => {
                self.known.extend(read(&node));
                true
            }
            Event::Delete(node) => node.metadata.name.is_some_and(|name| self.known.remove(&name).is_some()),
        }
    }

    /// The ranges that the pods of a node get their addresses from; empty as long as it has none.
    pub(super) fn pods_of(&self, node: &str) -> &[IpNet] {
        self.known.get(node).map_or(&[], |known| &known.pods)
    }

    /// The routes of a node to the pods of all others. A range whose node has no address of its family has none.
    pub(super) fn routes_from(&self, node: &str) -> Vec<PodRoute> {
        let others = self.known.iter().filter(|(name, _)| *name != node);
        let routes = others.flat_map(|(_, other)| {
            other.pods.iter().filter_map(|pods| {
                let same_family = |address: &&IpAddr| address.is_ipv4() == pods.addr().is_ipv4();
                other.addresses.iter().find(same_family).map(|via| PodRoute { pods: *pods, via: *via })
            })
        });
        routes.collect()
    }
}

fn read(node: &Node) -> Option<(String, Known)> {
    let ranges = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    let known = Known {
        pods: ranges
            .iter()
            .filter_map(|range| range.parse().ok())
            .map(|range: IpNet| range.trunc())
            .collect(),
        addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
    };
    node.metadata.name.clone().map(|name| (name, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, pods: &[&str], addresses: &[&str]) -> Node {
        let mut listed = vec![serde_json::json!({ "type": "Hostname", "address": name })];
        listed.extend(addresses.iter().map(|ip| serde_json::json!({ "type": "InternalIP", "address": ip })));
        let node = serde_json::json!({
            "metadata": { "name": name }, "spec": { "podCIDRs": pods }, "status": { "addresses": listed },
        });
        serde_json::from_value(node).unwrap()
    }

    fn routes(nodes: &Nodes) -> Vec<String> {
        nodes.routes_from("a").iter().map(|route| format!("{} {}", route.pods, route.via)).collect()
    }

    fn listed(nodes: &mut Nodes, listed: impl IntoIterator<Item = Node>) {
        assert!(!nodes.update(Event::Init));
        for node in listed {
            assert!(!nodes.update(Event::InitApply(node)));
        }
        assert!(nodes.update(Event::InitDone));
    }

    #[test]
    fn routes_lead_to_the_other_nodes_in_each_family() {
        let mut nodes = Nodes::default();
        let (a, b) = (["10.244.0.0/24", "fd00:1::/64"], ["10.244.1.0/24", "fd00:1:0:1::/64"]);
        listed(&mut nodes, [node("a", &a, &["10.0.0.2"]), node("b", &b, &["10.0.0.3", "fd00::3"])]);
        assert_eq!(routes(&nodes), ["10.244.1.0/24 10.0.0.3", "fd00:1:0:1::/64 fd00::3"]);
        assert_eq!(nodes.pods_of("a").len(), 2);
        // One without an address of that family, or without any.
        assert!(nodes.update(Event::Apply(node("b", &b, &["10.0.0.3"]))));
        assert_eq!(routes(&nodes), ["10.244.1.0/24 10.0.0.3"]);
        assert!(nodes.update(Event::Apply(node("b", &b, &[]))));
        assert_eq!(routes(&nodes), [""; 0]);
    }

    #[test]
    fn nodes_come_change_and_go() {
        let mut nodes = Nodes::default();
        listed(&mut nodes, [node("a", &[], &["10.0.0.2"])]);
        assert_eq!(nodes.pods_of("a"), []);
        nodes.update(Event::Apply(node("b", &["10.244.1.0/24"], &["10.0.0.3"])));
        assert_eq!(routes(&nodes), ["10.244.1.0/24 10.0.0.3"]);
        nodes.update(Event::Apply(node("b", &["10.244.7.0/24"], &["10.0.0.3"])));
        assert_eq!(routes(&nodes), ["10.244.7.0/24 10.0.0.3"]);
        assert!(nodes.update(Event::Delete(node("b", &[], &[]))));
        assert_eq!(routes(&nodes), [""; 0]);
        assert!(!nodes.update(Event::Delete(node("b", &[], &[]))));
    }

    #[test]
    fn a_node_is_not_gone_while_all_are_listed_again() {
        let mut nodes = Nodes::default();
        let all =
            || [node("b", &["10.244.1.0/24"], &["10.0.0.3"]), node("c", &["10.244.2.0/24"], &["10.0.0.4"])];
        listed(&mut nodes, all());
        nodes.update(Event::Init);
        let [b, _] = all();
        nodes.update(Event::InitApply(b));
        assert_eq!(routes(&nodes).len(), 2);
        nodes.update(Event::InitDone);
        assert_eq!(routes(&nodes), ["10.244.1.0/24 10.0.0.3"]);
    }
}
