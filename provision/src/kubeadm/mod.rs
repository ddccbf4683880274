//! The configuration kubeadm reads on each node, `/kind/kubeadm.conf`.
//!
//! One file serves `init` and `join` and holds a document for each, for the whole cluster, for the kubelet
//! and for kube-proxy: what kind writes, and hence what users' patches were made for.

mod documents;
mod token;
mod version;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr};

pub use token::random_token;
pub use version::{ApiVersion, KubernetesVersion};

use crate::{
    Error, Result,
    config::{Cluster, IpFamily, Role},
    patch,
};

/// The word for Kiln in providers' names, as in the provider id `kind://kiln/CLUSTER/NODE`.
pub const ENGINE: &str = "kiln";

/// What the configuration of a node is made from.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The cluster, named as it is to be.
    pub cluster: &'a Cluster,
    /// The node's name.
    pub name: &'a str,
    /// The node's place in [`Cluster::nodes`].
    pub index: usize,
    /// The node's IPv4 address, unless the cluster has none.
    pub ipv4: Option<Ipv4Addr>,
    /// The node's IPv6 address, unless the cluster has none.
    pub ipv6: Option<Ipv6Addr>,
    /// Where nodes reach the API: host name and port, see [`crate::config::control_plane_endpoint`].
    pub control_plane_endpoint: &'a str,
    /// The bootstrap token, see [`random_token`].
    pub token: &'a str,
    /// The pin of the cluster's CA, `sha256:HEX` over its public key. Without one, joining nodes trust
    /// whoever answers.
    pub ca_cert_hash: Option<&'a str>,
    /// The version of Kubernetes in the node's image, such as `v1.34.4`.
    pub kubernetes_version: &'a str,
    /// The word for the engine in the provider id, [`ENGINE`].
    pub engine: &'a str,
    /// Whether the host has cgroups of version 1, which the kubelet refuses from 1.35 on unless told
    /// otherwise.
    pub cgroup_v1: bool,
}

impl<'a> Input<'a> {
    /// For a node of nobody's: what is rendered says what all clusters of a configuration have in common.
    pub(crate) fn of_nobody(cluster: &'a Cluster, index: usize, kubernetes_version: &'a str) -> Self {
        Self {
            cluster,
            name: "template-control-plane",
            index,
            // Reserved for documentation (RFC 5737, RFC 3849).
            ipv4: Some([192, 0, 2, 1].into()),
            ipv6: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
            control_plane_endpoint: "template-control-plane:6443",
            token: "abcdef.0123456789abcdef",
            ca_cert_hash: None,
            kubernetes_version,
            engine: ENGINE,
            cgroup_v1: false,
        }
    }
}

/// Renders a node's configuration, patches applied: the cluster's first, then the node's.
///
/// # Errors
/// [`Error::KubernetesVersion`] when the version is none, [`Error::NodeAddress`] when the node lacks an
/// address of the cluster's family, [`Error::Patch`] when a patch does not apply.
pub fn render(input: &Input<'_>) -> Result<String> {
    let Input { cluster, index, .. } = *input;
    let node = cluster.nodes.get(index).expect("the index comes from the cluster's own list of nodes");
    let version: KubernetesVersion = input.kubernetes_version.parse()?;
    let addresses = addresses(input)?;
    let mut objects =
        documents::objects(input, &version, &addresses, node.role == Role::ControlPlane, &node.labels);
    patch::patch_objects(
        &mut objects,
        &cluster.kubeadm_config_patches,
        &cluster.kubeadm_config_patches_json6902,
        "",
    )?;
    let place = format!("nodes[{index}].");
    patch::patch_objects(
        &mut objects,
        &node.kubeadm_config_patches,
        &node.kubeadm_config_patches_json6902,
        &place,
    )?;
    documents::remove_placeholders(&mut objects);
    Ok(patch::emit(&objects))
}

/// The document of a kind in a rendered configuration; `None` when there is none, or patches have made it unreadable.
pub(crate) fn document(configuration: &str, kind: &str) -> Option<serde_json::Value> {
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(configuration).ok()?;
    documents.into_iter().find(|document| document["kind"] == kind)
}

/// The node's addresses, the main one first: with dual-stack that of the first service subnet's family, which
/// is also what the API server must advertise.
fn addresses(input: &Input<'_>) -> Result<Vec<String>> {
    let missing = |family| Error::NodeAddress { node: input.name.to_owned(), family };
    let ipv4 = || input.ipv4.map(|address| address.to_string()).ok_or_else(|| missing("IPv4"));
    let ipv6 = || input.ipv6.map(|address| address.to_string()).ok_or_else(|| missing("IPv6"));
    let networking = &input.cluster.networking;
    Ok(match networking.ip_family {
        IpFamily::Ipv4 => vec![ipv4()?],
        IpFamily::Ipv6 => vec![ipv6()?],
        IpFamily::Dual => {
            if networking.prefers_ipv6() {
                vec![ipv6()?, ipv4()?]
            } else {
                vec![ipv4()?, ipv6()?]
            }
        }
    })
}
