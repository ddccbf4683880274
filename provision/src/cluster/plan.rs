//! What a cluster will be, decided before anything is made.

use std::{net::Ipv6Addr, path::PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kiln_network::{Endpoint, Network};

use crate::{
    Error, Paths, Result, config,
    image::{Image, Reference, Store},
    patch,
    state::{self, NodeRole},
    template::TemplateKey,
};

/// The port the API server listens on in its node.
pub(super) const API_PORT: u16 = 6443;

/// Where clusters get their networks from, when `KILN_SUBNET_POOL` does not say otherwise.
const DEFAULT_POOL: &str = "172.30.0.0/16";

/// Where those with IPv6 get theirs from, when `KILN_SUBNET_POOL6` does not say otherwise: of the addresses that are
/// for everybody's private use (RFC 4193).
const DEFAULT_POOL6: &str = "fd00:6b69:6c6e::/48";

/// A node before it exists.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    pub(super) name: String,
    pub(super) role: NodeRole,
    /// Whether the cluster begins with this node: the first of the control planes.
    pub(super) first: bool,
    pub(super) image: Image,
    pub(super) kubernetes_version: String,
    /// Unpacked layers, topmost first.
    pub(super) layers: Vec<PathBuf>,
    pub(super) endpoint: Endpoint,
    /// What kubeadm is to read.
    pub(super) kubeadm: String,
    /// What the node would be called in a template, and the template by the first; or why there can be none.
    pub(super) template: std::result::Result<TemplateKey, String>,
    /// Where the user mounts something in the place of what a boot makes.
    pub(super) hidden: Option<PathBuf>,
    /// containerd's configuration, where the image's is to be changed.
    pub(super) containerd: Option<String>,
}

impl NodePlan {
    /// What a node that follows the first is called in a template, if it can be in one.
    pub(super) fn member(&self) -> Option<&TemplateKey> {
        self.template.as_ref().ok().filter(|_| self.hidden.is_none())
    }
}

/// Where containerd's configuration is in a node.
pub(super) const CONTAINERD_CONFIG: &str = "etc/containerd/config.toml";

/// What containerd has to be told on a host where nobody can lower an oom score: runc gives up on a pod that asks for it, as
/// that of each sandbox does. By the version of the configuration.
const RESTRICT_OOM_SCORES: [&str; 2] = [
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = true\n",
    "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n",
];

/// The image's containerd configuration with the cluster's patches applied, and with what this host asks for where an image
/// does not see to it by itself, as Kiln's do; `None` if it can stay as it is. `sys_resource` tells whether oom scores can
/// be lowered.
///
/// # Errors
/// [`Error::NotANodeImage`] when the image has none, or what a patch says.
pub(super) fn patched_containerd(
    config: &config::Cluster,
    image: &Image,
    layers: &[PathBuf],
    sys_resource: bool,
) -> Result<Option<String>> {
    let asked = config.patches_containerd();
    if !asked && sys_resource {
        return Ok(None);
    }
    let base = layers.iter().find_map(|layer| fs_err::read_to_string(layer.join(CONTAINERD_CONFIG)).ok());
    let Some(base) = base else {
        let missing = Error::NotANodeImage { image: image.name.familiar() };
        return if asked { Err(missing) } else { Ok(None) };
    };
    let restricted = !sys_resource && !base.contains("restrict_oom_score_adj");
    if !asked && !restricted {
        return Ok(None);
    }
    let own = RESTRICT_OOM_SCORES.iter().filter(|_| restricted).map(|text| (*text).to_owned());
    // The user's come last: they may say otherwise.
    let base = patch::containerd(&base, &own.collect::<Vec<_>>(), &[])?;
    let patched = patch::containerd(
        &base,
        &config.containerd_config_patches,
        &config.containerd_config_patches_json6902,
    )?;
    Ok(Some(patched))
}

/// The image a node was asked to have, found in the store.
///
/// # Errors
/// [`Error::ImageReference`]-like for a bad name, [`Error::NoSuchImage`] when the store does not have it.
pub(super) fn find_image(store: &Store, name: &str) -> Result<Image> {
    let reference: Reference = name.parse()?;
    store.image(&reference)?.ok_or_else(|| Error::NoSuchImage { image: reference.familiar() })
}

/// The version of Kubernetes an image says it holds, by kind's contract in `/kind/version`.
///
/// # Errors
/// [`Error::NotANodeImage`] when there is no such file in its layers.
pub(super) fn kubernetes_version(image: &Image, layers: &[PathBuf]) -> Result<String> {
    let found = layers.iter().find_map(|layer| fs_err::read_to_string(layer.join("kind/version")).ok());
    match found.map(|text| text.trim().to_owned()) {
        Some(version) if version.starts_with('v') => Ok(version),
        _ => Err(Error::NotANodeImage { image: image.name.familiar() }),
    }
}

/// Chooses a network that overlaps neither the host's routes nor another cluster's nor this one's pods and Services. The
/// caller holds the host's lock and records the choice before it lets go of it.
///
/// There is always IPv4, as with kind: nodes of a cluster of IPv6 pull images from hosts that have nothing else.
///
/// # Errors
/// [`Error::SubnetPool`], [`Error::PoolExhausted`], or what the network says.
pub(super) async fn choose_network(
    paths: &Paths,
    cluster: &str,
    networking: &config::Networking,
) -> Result<Network> {
    let pool = subnet_pool()?;
    let mut taken = kiln_network::occupied_subnets().await?;
    taken.extend(networking.pod_subnet.nets());
    taken.extend(networking.service_subnet.nets());
    for other in state::reservations(paths)? {
        taken.extend(other.network.ipv4.map(IpNet::V4));
        taken.extend(other.network.ipv6.map(IpNet::V6));
    }
    let exhausted = |pool: IpNet| {
        let overlaps = |net: &&IpNet| kiln_network::overlap(pool, **net);
        Error::PoolExhausted { pool, taken: taken.iter().filter(overlaps).copied().collect() }
    };
    let ipv4 = kiln_network::choose_subnet(pool, 24, &taken).ok_or_else(|| exhausted(pool.into()))?;
    let mut ipv6 = None;
    if networking.ip_family.has_ipv6() {
        let pool: Ipv6Net = self::pool("KILN_SUBNET_POOL6", DEFAULT_POOL6)?;
        let chosen = kiln_network::choose_subnet_v6(pool, 64, &taken);
        ipv6 = Some(chosen.ok_or_else(|| exhausted(pool.into()))?);
    }
    Ok(Network {
        cluster: cluster.to_owned(),
        bridge: Network::bridge_name(cluster),
        ipv4: Some(ipv4),
        ipv6,
        mtu: kiln_network::uplink_mtu().await?,
    })
}

/// What the networks of all clusters and registries are in.
///
/// # Errors
/// [`Error::SubnetPool`].
pub(super) fn subnet_pool() -> Result<Ipv4Net> {
    pool("KILN_SUBNET_POOL", DEFAULT_POOL)
}

fn pool<N: std::str::FromStr>(variable: &'static str, default: &str) -> Result<N> {
    let text = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    text.parse().map_err(|_| Error::SubnetPool { variable, pool: text.clone() })
}

/// The address of the node with this place in the cluster, counted from 0. `.1` is the bridge.
///
/// # Errors
/// [`Error::SubnetFull`].
pub(super) fn endpoint(network: &Network, node: &str, index: usize) -> Result<Endpoint> {
    let subnet = network.ipv4.ok_or(Error::SubnetFull { nodes: index })?;
    let ipv4 = subnet.hosts().nth(index + 1).ok_or(Error::SubnetFull { nodes: index })?;
    let octets = ipv4.octets();
    // The same number in both networks. A /64 has room for it.
    let ipv6 = network.ipv6.map(|net| Ipv6Addr::from(u128::from(net.network()) + index as u128 + 2));
    Ok(Endpoint {
        node: node.to_owned(),
        link: Endpoint::link_name(&network.cluster, node),
        // Locally administered, and as stable and unique on the bridge as the address it is made of.
        mac: [0x02, 0x6b, octets[0], octets[1], octets[2], octets[3]],
        ipv4: Some(ipv4),
        ipv6,
    })
}

#[cfg(test)]
pub(super) fn example_network() -> Network {
    Network {
        cluster: "c".to_owned(),
        bridge: "kiln-c".to_owned(),
        ipv4: Some("172.30.4.0/24".parse().unwrap()),
        ipv6: None,
        mtu: 1500,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::image::{ImageSettings, write_image};

    #[test]
    fn nodes_follow_the_bridge_and_do_not_share_addresses() {
        let first = endpoint(&example_network(), "c-control-plane", 0).unwrap();
        let second = endpoint(&example_network(), "c-worker", 1).unwrap();
        assert_eq!(first.ipv4, Some(Ipv4Addr::new(172, 30, 4, 2)));
        assert_eq!(second.ipv4, Some(Ipv4Addr::new(172, 30, 4, 3)));
        assert_ne!(first.mac, second.mac);
        assert_ne!(first.link, second.link);
        assert!(endpoint(&example_network(), "c-worker300", 299).is_err());
    }

    #[test]
    fn containerd_is_told_of_a_host_without_capabilities_unless_it_is_seen_to() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("images")).unwrap();
        let image = write_image(&store, &"a:1".parse().unwrap(), Vec::new(), ImageSettings::default());
        let image = image.unwrap();
        let layers = [directory.path().to_owned()];
        let file = directory.path().join(CONTAINERD_CONFIG);
        let patched = |base: &str, patches: &[&str], sys_resource| {
            fs_err::create_dir_all(file.parent().unwrap()).unwrap();
            fs_err::write(&file, base).unwrap();
            let patches = patches.iter().map(|patch| (*patch).to_owned()).collect();
            let config =
                config::Cluster { containerd_config_patches: patches, ..config::Cluster::single_node("c") };
            patched_containerd(&config, &image, &layers, sys_resource).unwrap()
        };
        let old = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ntolerate_missing_hugepages_controller = true\n";
        assert_eq!(patched(old, &[], true), None);
        let told = patched(old, &[], false).unwrap();
        assert!(told.contains("restrict_oom_score_adj = true") && told.contains("hugepages"), "{told}");
        assert!(!told.contains("cri.v1.runtime"), "{told}");
        let told = patched("version = 3\n", &[], false).unwrap();
        assert!(told.contains("io.containerd.cri.v1.runtime") && !told.contains("grpc.v1.cri"), "{told}");
        // The entrypoint of Kiln's images changes this line itself.
        let own = "version = 3\n[plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = false\n";
        assert_eq!(patched(own, &[], false), None);
        let asked = "[plugins.\"io.containerd.grpc.v1.cri\"]\nrestrict_oom_score_adj = false\n";
        let told = patched(old, &[asked], false).unwrap();
        assert!(told.contains("restrict_oom_score_adj = false"), "{told}");
        fs_err::remove_file(&file).unwrap();
        let without = patched_containerd(&config::Cluster::single_node("c"), &image, &layers, false).unwrap();
        assert_eq!(without, None);
    }
}
