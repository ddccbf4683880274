//! Names of clusters and nodes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::types::{Cluster, Role};

/// The name of a cluster that was given none: kind's, so that scripts written for it find their cluster.
pub const DEFAULT_NAME: &str = "kind";

/// The port API servers and the load balancer listen on inside the cluster's network.
pub(super) const API_PORT: u16 = 6443;

/// A node by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNode {
    /// The node's name, which is its host name and its name in Kubernetes.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its place in [`Cluster::nodes`]; none for the load balancer.
    pub index: Option<usize>,
}

/// The names of a cluster's nodes in the order of its configuration, the load balancer (if there is one)
/// last.
///
/// The first node of a role is `CLUSTER-ROLE`, the second `CLUSTER-ROLE2`.
#[must_use]
pub fn node_names(cluster: &Cluster) -> Vec<NamedNode> {
    let mut counts: HashMap<Role, usize> = HashMap::new();
    let mut named = |role, index| {
        let count = counts.entry(role).or_default();
        *count += 1;
        let number = if *count > 1 { count.to_string() } else { String::new() };
        NamedNode { name: format!("{}-{role}{number}", cluster.name), role, index }
    };
    let mut names: Vec<_> =
        cluster.nodes.iter().enumerate().map(|(index, node)| named(node.role, Some(index))).collect();
    if cluster.has_load_balancer() {
        names.push(named(Role::LoadBalancer, None));
    }
    names
}

/// Where nodes reach the API: the load balancer, or the only control plane, by name and port.
#[must_use]
pub fn control_plane_endpoint(cluster: &Cluster) -> String {
    let role = if cluster.has_load_balancer() { Role::LoadBalancer } else { Role::ControlPlane };
    format!("{}-{role}:{API_PORT}", cluster.name)
}

/// Whether a cluster may be called so by kind's rule; what a directory needs of a name is not looked at.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Node;

    #[test]
    fn nodes_are_numbered_by_role_and_the_balancer_comes_last() {
        use Role::{ControlPlane, Worker};
        let mut cluster = Cluster::single_node("dev");
        cluster.nodes = [Worker, ControlPlane, Worker, ControlPlane].map(Node::new).to_vec();
        let names: Vec<_> = node_names(&cluster).into_iter().map(|node| (node.name, node.index)).collect();
        let expected = [
            ("dev-worker", Some(0)),
            ("dev-control-plane", Some(1)),
            ("dev-worker2", Some(2)),
            ("dev-control-plane2", Some(3)),
            ("dev-external-load-balancer", None),
        ];
        assert_eq!(names, expected.map(|(name, index)| (name.to_owned(), index)));
        assert_eq!(control_plane_endpoint(&cluster), "dev-external-load-balancer:6443");
    }

    #[test]
    fn one_control_plane_needs_no_balancer() {
        let cluster = Cluster::single_node("dev");
        assert_eq!(node_names(&cluster).len(), 1);
        assert_eq!(control_plane_endpoint(&cluster), "dev-control-plane:6443");
    }

    #[test]
    fn names_are_lower_case() {
        for good in ["kind", "a.b-c1", "-", "1"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "Bad", "a_b", "a b", "ä", "a/b"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }
}
