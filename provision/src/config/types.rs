//! What a cluster is to be, after defaults and validation.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A cluster: every default filled in, every rule of the `v1alpha4` format checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's name, `[a-z0-9.-]+`.
    pub name: String,
    /// The nodes in the order of the file; at least one control plane.
    pub nodes: Vec<Node>,
    /// Addresses, ports and families.
    pub networking: Networking,
    /// Kubernetes feature gates for every component.
    pub feature_gates: BTreeMap<String, bool>,
    /// The API server's `--runtime-config`.
    pub runtime_config: BTreeMap<String, String>,
    /// YAML merge patches for every node's kubeadm configuration.
    pub kubeadm_config_patches: Vec<String>,
    /// RFC 6902 patches for every node's kubeadm configuration.
    pub kubeadm_config_patches_json6902: Vec<JsonPatch>,
    /// TOML merge patches for every node's containerd configuration.
    pub containerd_config_patches: Vec<String>,
    /// RFC 6902 patches (JSON or YAML) for every node's containerd configuration.
    pub containerd_config_patches_json6902: Vec<String>,
}

impl Cluster {
    /// The cluster that is made when no configuration is given: one control plane that also runs workloads.
    #[must_use]
    pub fn single_node(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            nodes: vec![Node::new(Role::ControlPlane)],
            networking: Networking::new(IpFamily::Ipv4),
            feature_gates: BTreeMap::new(),
            runtime_config: BTreeMap::new(),
            kubeadm_config_patches: Vec::new(),
            kubeadm_config_patches_json6902: Vec::new(),
            containerd_config_patches: Vec::new(),
            containerd_config_patches_json6902: Vec::new(),
        }
    }

    /// How many control planes there are.
    #[must_use]
    pub fn control_planes(&self) -> usize {
        self.nodes.iter().filter(|node| node.role == Role::ControlPlane).count()
    }

    /// Whether a load balancer stands in front of the control planes: whenever there are several.
    #[must_use]
    pub fn has_load_balancer(&self) -> bool {
        self.control_planes() > 1
    }

    /// Whether any containerd patch is configured.
    #[must_use]
    pub fn patches_containerd(&self) -> bool {
        !self.containerd_config_patches.is_empty() || !self.containerd_config_patches_json6902.is_empty()
    }

    /// Makes relative host paths of mounts absolute, as seen from `directory`.
    pub fn resolve_paths(&mut self, directory: &Path) {
        for mount in self.nodes.iter_mut().flat_map(|node| &mut node.extra_mounts) {
            mount.host_path = directory.join(&mount.host_path);
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What the node does; never [`Role::LoadBalancer`].
    pub role: Role,
    /// The node image; the default image when absent.
    pub image: Option<String>,
    /// Kubernetes labels the kubelet registers the node with.
    pub labels: BTreeMap<String, String>,
    /// Directories and files of the host shown in the node.
    pub extra_mounts: Vec<Mount>,
    /// Ports of the host that lead to the node.
    pub extra_port_mappings: Vec<PortMapping>,
    /// YAML merge patches for this node's kubeadm configuration, applied after the cluster's patches.
    pub kubeadm_config_patches: Vec<String>,
    /// RFC 6902 patches for this node's kubeadm configuration, applied last.
    pub kubeadm_config_patches_json6902: Vec<JsonPatch>,
}

impl Node {
    /// A node with nothing but a role.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            image: None,
            labels: BTreeMap::new(),
            extra_mounts: Vec::new(),
            extra_port_mappings: Vec::new(),
            kubeadm_config_patches: Vec::new(),
            kubeadm_config_patches_json6902: Vec::new(),
        }
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs etcd, the API server, the scheduler and the controllers.
    ControlPlane,
    /// Runs workloads only.
    Worker,
    /// Spreads connections over the API servers. Never written in a configuration: implied by several control
    /// planes.
    #[serde(rename = "external-load-balancer")]
    LoadBalancer,
}

impl Role {
    /// The role as it stands in configurations, node names and listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::LoadBalancer => "external-load-balancer",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Addresses, ports and families.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networking {
    /// The address families of nodes, pods and services.
    pub ip_family: IpFamily,
    /// The host port of the API server; a free one is chosen when absent.
    pub api_server_port: Option<u16>,
    /// The host address the API server is published on. The format does not check it; [`super::preflight`]
    /// does.
    pub api_server_address: String,
    /// Addresses of pods.
    pub pod_subnet: Subnets,
    /// Addresses of services.
    pub service_subnet: Subnets,
    /// Leaves the pod network to the user.
    pub disable_default_cni: bool,
    /// How services are implemented on the nodes.
    pub kube_proxy_mode: KubeProxyMode,
    /// The nodes' DNS search domains: inherited from the host when absent, none when empty.
    pub dns_search: Option<Vec<String>>,
}

impl Networking {
    /// Whether the nodes' main address, which the API server advertises, is that of IPv6: with dual-stack the first
    /// service subnet decides.
    #[must_use]
    pub fn prefers_ipv6(&self) -> bool {
        match self.ip_family {
            IpFamily::Ipv4 => false,
            IpFamily::Ipv6 => true,
            IpFamily::Dual => self.service_subnet.nets().first().is_some_and(|net| net.addr().is_ipv6()),
        }
    }

    /// The defaults for a family.
    #[must_use]
    pub fn new(ip_family: IpFamily) -> Self {
        Self {
            ip_family,
            api_server_port: None,
            api_server_address: ip_family.loopback().to_owned(),
            pod_subnet: Subnets::default_pods(ip_family),
            service_subnet: Subnets::default_services(ip_family),
            disable_default_cni: false,
            kube_proxy_mode: KubeProxyMode::Iptables,
            dns_search: None,
        }
    }
}

/// The address families of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both; which of them comes first is decided by the service subnet.
    Dual,
}

impl IpFamily {
    /// The family as it stands in configurations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        }
    }

    /// Whether nodes need an IPv4 address.
    #[must_use]
    pub fn has_ipv4(self) -> bool {
        self != Self::Ipv6
    }

    /// Whether nodes need an IPv6 address.
    #[must_use]
    pub fn has_ipv6(self) -> bool {
        self != Self::Ipv4
    }

    /// The host address the API server listens on by default.
    pub(super) fn loopback(self) -> &'static str {
        if self == Self::Ipv6 { "::1" } else { "127.0.0.1" }
    }
}

/// How kube-proxy implements services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KubeProxyMode {
    /// With iptables rules.
    Iptables,
    /// With the kernel's virtual server.
    Ipvs,
    /// With nftables rules.
    Nftables,
    /// There is no kube-proxy.
    None,
}

impl KubeProxyMode {
    /// The mode as kube-proxy spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
            Self::None => "none",
        }
    }
}

/// One subnet, or one of each family, written as the user wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnets {
    pub(super) text: String,
    pub(super) nets: Vec<IpNet>,
}

impl Subnets {
    /// The subnets in their order; never empty.
    #[must_use]
    pub fn nets(&self) -> &[IpNet] {
        &self.nets
    }

    /// The subnets separated by commas, as kubeadm takes them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A file or directory of the host shown in a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is on the host.
    pub host_path: PathBuf,
    /// Where it appears in the node.
    pub container_path: PathBuf,
    /// Whether the node may only read it.
    pub read_only: bool,
    /// Whether SELinux labels should be changed; without effect on Kiln's nodes.
    pub selinux_relabel: bool,
    /// How mounts made below it later propagate.
    pub propagation: MountPropagation,
}

/// How mounts made below a shared directory propagate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// Not at all.
    #[default]
    None,
    /// From the host to the node.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A port of the host that leads to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The node's port. 0 when the configuration names none, which [`super::preflight`] refuses.
    pub container_port: u16,
    /// The host's port; a free one is chosen when absent.
    pub host_port: Option<u16>,
    /// The host's address; all addresses of the cluster's main family by default.
    pub listen_address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// An RFC 6902 patch and the object it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonPatch {
    /// API group of the object; part of its `apiVersion`.
    pub group: String,
    /// API version of the object; any when it and the group are empty.
    pub version: String,
    /// Kind of the object.
    pub kind: String,
    /// The operations, as YAML or JSON.
    pub patch: String,
}
