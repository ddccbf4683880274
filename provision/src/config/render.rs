//! What each node would be configured with, without making anything.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use serde::Serialize;

use super::{Cluster, Role, control_plane_endpoint, node_names};
use crate::{Error, Result, kubeadm, patch};

/// The network that addresses are shown from: the first of the default pool, and a made-up one for IPv6.
const IPV4_NETWORK: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 0);
const IPV6_NETWORK: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x6b69, 0x6c6e, 0, 0, 0, 0, 0);

/// Stands where a real cluster has a random token, so that two renderings of a configuration are the same.
const EXAMPLE_TOKEN: &str = "abcdef.0123456789abcdef";

/// What a configuration makes of every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rendered {
    /// The nodes in the order of the configuration, the load balancer last.
    pub nodes: Vec<RenderedNode>,
}

/// What a configuration makes of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RenderedNode {
    /// The node's name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its IPv4 address, an example of the right shape.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, an example of the right shape.
    pub ipv6: Option<Ipv6Addr>,
    /// Its `/kind/kubeadm.conf`; the load balancer has none.
    #[serde(skip)]
    pub kubeadm: Option<String>,
    /// Its patched containerd configuration, where there are patches and a base to apply them to.
    #[serde(skip)]
    pub containerd: Option<String>,
}

/// Renders a configuration for a Kubernetes version such as `v1.34.4`. Containerd's patches are applied to
/// `base_containerd`, the node image's `config.toml`; without it they have only been parsed.
///
/// # Errors
/// When the version is none, or a patch does not apply.
pub fn render(config: &Cluster, kubernetes_version: &str, base_containerd: Option<&str>) -> Result<Rendered> {
    let endpoint = control_plane_endpoint(config);
    let containerd = match base_containerd {
        Some(base) if config.patches_containerd() => Some(patch::containerd(
            base,
            &config.containerd_config_patches,
            &config.containerd_config_patches_json6902,
        )?),
        _ => None,
    };
    let family = config.networking.ip_family;
    let mut nodes = Vec::new();
    for (index, named) in node_names(config).into_iter().enumerate() {
        // .1 is the bridge's.
        let host = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(2);
        let ipv4 =
            family.has_ipv4().then(|| Ipv4Addr::from_bits(IPV4_NETWORK.to_bits().saturating_add(host)));
        let ipv6 = family.has_ipv6().then(|| Ipv6Addr::from_bits(IPV6_NETWORK.to_bits() + u128::from(host)));
        let (mut kubeadm, mut patched) = (None, None);
        if let Some(index) = named.index {
            kubeadm = Some(kubeadm::render(&kubeadm::Input {
                cluster: config,
                name: &named.name,
                index,
                ipv4,
                ipv6,
                control_plane_endpoint: &endpoint,
                token: EXAMPLE_TOKEN,
                ca_cert_hash: None,
                kubernetes_version,
                engine: kubeadm::ENGINE,
                cgroup_v1: false,
            })?);
            patched.clone_from(&containerd);
        }
        nodes.push(RenderedNode {
            name: named.name,
            role: named.role,
            ipv4,
            ipv6,
            kubeadm,
            containerd: patched,
        });
    }
    Ok(Rendered { nodes })
}

impl Rendered {
    /// Writes `nodes.json` and, per node, `NODE/kubeadm.yaml` and `NODE/containerd.toml`, below a directory.
    ///
    /// # Errors
    /// [`Error::File`] when a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let failed = |source| Error::File { what: "write the rendered configuration", source };
        fs_err::create_dir_all(directory).map_err(failed)?;
        let json = serde_json::to_vec_pretty(&self.nodes).map_err(|error| failed(error.into()))?;
        fs_err::write(directory.join("nodes.json"), json).map_err(failed)?;
        for node in &self.nodes {
            let files = [("kubeadm.yaml", &node.kubeadm), ("containerd.toml", &node.containerd)];
            for (name, text) in files {
                let Some(text) = text else { continue };
                let directory = directory.join(&node.name);
                fs_err::create_dir_all(&directory).map_err(failed)?;
                fs_err::write(directory.join(name), text).map_err(failed)?;
            }
        }
        Ok(())
    }
}
