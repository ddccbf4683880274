//! The fields of `v1alpha4`: their types, defaults and rules, in one pass over the document.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use super::{
    document::{self, Node as Yaml, Position},
    name::{self, DEFAULT_NAME},
    port,
    problem::Problem,
    reader::Reader,
    subnet::BadSubnet,
    types::{
        Cluster, IpFamily, JsonPatch, KubeProxyMode, Mount, MountPropagation, Networking, Node, PortMapping,
        Protocol, Role, Subnets,
    },
};
use crate::patch;

/// A cluster's network has as many addresses, besides the host's.
const MOST_NODES: usize = 253;

const API_VERSION: &str = "kind.x-k8s.io/v1alpha4";
const KIND: &str = "Cluster";

pub(super) const CLUSTER_FIELDS: &[&str] = &[
    "kind",
    "apiVersion",
    "name",
    "nodes",
    "networking",
    "featureGates",
    "runtimeConfig",
    "kubeadmConfigPatches",
    "kubeadmConfigPatchesJSON6902",
    "containerdConfigPatches",
    "containerdConfigPatchesJSON6902",
];
pub(super) const NODE_FIELDS: &[&str] = &[
    "role",
    "image",
    "labels",
    "extraMounts",
    "extraPortMappings",
    "kubeadmConfigPatches",
    "kubeadmConfigPatchesJSON6902",
];
pub(super) const NETWORKING_FIELDS: &[&str] = &[
    "ipFamily",
    "apiServerPort",
    "apiServerAddress",
    "podSubnet",
    "serviceSubnet",
    "disableDefaultCNI",
    "kubeProxyMode",
    "dnsSearch",
];
pub(super) const MOUNT_FIELDS: &[&str] =
    &["containerPath", "hostPath", "readOnly", "selinuxRelabel", "propagation"];
pub(super) const PORT_FIELDS: &[&str] = &["containerPort", "hostPort", "listenAddress", "protocol"];
pub(super) const PATCH_FIELDS: &[&str] = &["group", "version", "kind", "patch"];

/// Reads a configuration; `name` replaces the one in the file.
pub(super) fn cluster(text: &str, name: Option<&str>) -> Result<Cluster, Vec<Problem>> {
    let start = Position { line: 1, column: 1 };
    let root = match document::parse(text) {
        Ok(root) => root,
        Err(error) => return Err(vec![Problem { at: Some(error.at), message: error.message, hint: None }]),
    };
    let Some(root) = root else {
        return Err(vec![Problem { at: None, message: "it is empty".to_owned(), hint: Some(type_hint()) }]);
    };
    let mut reader = Reader::default();
    if let Err(problem) = check_type(&root, root.at.max(start)) {
        return Err(vec![problem]);
    }
    let cluster = read_cluster(&mut reader, &root, name);
    let problems = reader.into_problems();
    if problems.is_empty() { Ok(cluster) } else { Err(problems) }
}

/// Checks `apiVersion` and `kind` before anything else: what the other fields mean depends on them.
fn check_type(root: &Yaml, start: Position) -> Result<(), Problem> {
    // Any other field belongs to a type that is not known yet, so its complaints are dropped with this
    // reader.
    let mut reader = Reader::default();
    let fields = reader.fields(root, "", CLUSTER_FIELDS);
    if reader.is_exhausted() {
        let message = "aliases blow the configuration up beyond any use".to_owned();
        return Err(Problem { at: Some(start), message, hint: None });
    }
    let mut text = |field: &str| {
        let node = fields.get(field)?;
        Some((node.at, reader.text(node, field)?))
    };
    let problem = |at: Position, message: String| Problem { at: Some(at), message, hint: Some(type_hint()) };
    match text("apiVersion") {
        Some((_, version)) if version == API_VERSION => {}
        Some((at, version)) => return Err(problem(at, format!("unknown apiVersion `{version}`"))),
        None => return Err(problem(start, "there is no apiVersion".to_owned())),
    }
    match text("kind") {
        Some((_, kind)) if kind == KIND => Ok(()),
        Some((at, kind)) => Err(problem(at, format!("unknown kind `{kind}` for apiVersion {API_VERSION}"))),
        None => Err(problem(start, "there is no kind".to_owned())),
    }
}

fn type_hint() -> String {
    format!("a configuration begins with `kind: {KIND}` and `apiVersion: {API_VERSION}`")
}

fn read_cluster(reader: &mut Reader, root: &Yaml, given_name: Option<&str>) -> Cluster {
    let fields = reader.fields(root, "", CLUSTER_FIELDS);
    let mut cluster = Cluster::single_node(given_name.unwrap_or(DEFAULT_NAME));
    let mut name_at = root.at;
    if let Some(node) = fields.get("name")
        && let Some(name) = reader.text(node, "name")
        && given_name.is_none()
        && !name.is_empty()
    {
        (cluster.name, name_at) = (name, node.at);
    }
    if !name::is_valid_name(&cluster.name) {
        let message = format!("`{}` is not a cluster name: those match `^[a-z0-9.-]+$`", cluster.name);
        reader.problem(name_at, message);
    }
    // First the network: the default address of port mappings depends on its family.
    if let Some(node) = fields.get("networking") {
        cluster.networking = read_networking(reader, node);
    }
    if let Some(node) = fields.get("nodes") {
        let family = cluster.networking.ip_family;
        let nodes =
            reader.list(node, "nodes", |reader, node, what| Some(read_node(reader, node, what, family)));
        if let Some(nodes) = nodes.filter(|nodes| !nodes.is_empty()) {
            if nodes.iter().all(|node| node.role == Role::Worker) {
                reader.problem(node.at, "there must be at least one control-plane node");
            }
            if nodes.len() > MOST_NODES {
                let message = format!("a cluster has at most {MOST_NODES} nodes, not {}", nodes.len());
                reader.problem(node.at, message);
            }
            cluster.nodes = nodes;
        }
    }
    if let Some(node) = fields.get("featureGates") {
        cluster.feature_gates = reader.map(node, "featureGates", Reader::boolean);
    }
    if let Some(node) = fields.get("runtimeConfig") {
        cluster.runtime_config = reader.map(node, "runtimeConfig", Reader::text);
    }
    if let Some(node) = fields.get("kubeadmConfigPatches") {
        cluster.kubeadm_config_patches =
            read_patches(reader, node, "kubeadmConfigPatches", patch::check_merge);
    }
    if let Some(node) = fields.get("kubeadmConfigPatchesJSON6902") {
        cluster.kubeadm_config_patches_json6902 =
            read_json_patches(reader, node, "kubeadmConfigPatchesJSON6902");
    }
    if let Some(node) = fields.get("containerdConfigPatches") {
        cluster.containerd_config_patches =
            read_patches(reader, node, "containerdConfigPatches", patch::check_toml);
    }
    if let Some(node) = fields.get("containerdConfigPatchesJSON6902") {
        cluster.containerd_config_patches_json6902 =
            read_patches(reader, node, "containerdConfigPatchesJSON6902", patch::check_operations);
    }
    cluster
}

fn read_networking(reader: &mut Reader, node: &Yaml) -> Networking {
    let fields = reader.fields(node, "networking", NETWORKING_FIELDS);
    let mut text = |field: &str| {
        let node = fields.get(field)?;
        let text = reader.text(node, &format!("networking.{field}"))?;
        (!text.is_empty()).then_some((node.at, text))
    };
    let family = text("ipFamily");
    let mode = text("kubeProxyMode");
    let address = text("apiServerAddress");
    let pods = text("podSubnet");
    let services = text("serviceSubnet");

    let families = [("ipv4", IpFamily::Ipv4), ("ipv6", IpFamily::Ipv6), ("dual", IpFamily::Dual)];
    let family = choose(reader, family, "networking.ipFamily", &families);
    // Without a family nothing can be said about subnets beyond their syntax.
    let fits =
        |subnets: &Subnets| family.map_or(Ok(()), |family| subnets.check(family.unwrap_or(IpFamily::Ipv4)));
    let mut networking = Networking::new(family.flatten().unwrap_or(IpFamily::Ipv4));
    for (written, field, subnets) in [
        (pods, "podSubnet", &mut networking.pod_subnet),
        (services, "serviceSubnet", &mut networking.service_subnet),
    ] {
        let Some((at, text)) = written else { continue };
        match Subnets::parse(&text).and_then(|parsed| fits(&parsed).map(|()| parsed)) {
            Ok(parsed) => *subnets = parsed,
            Err(error) => subnet_problem(reader, at, field, &error),
        }
    }
    let modes = [
        ("iptables", KubeProxyMode::Iptables),
        ("ipvs", KubeProxyMode::Ipvs),
        ("nftables", KubeProxyMode::Nftables),
        ("none", KubeProxyMode::None),
    ];
    if let Some(Some(mode)) = choose(reader, mode, "networking.kubeProxyMode", &modes) {
        networking.kube_proxy_mode = mode;
    }
    if let Some((_, address)) = address {
        networking.api_server_address = address;
    }
    if let Some(node) = fields.get("apiServerPort") {
        networking.api_server_port =
            read_port(reader, node, "networking.apiServerPort").filter(|port| *port != 0);
    }
    if let Some(node) = fields.get("disableDefaultCNI") {
        networking.disable_default_cni =
            reader.boolean(node, "networking.disableDefaultCNI").unwrap_or_default();
    }
    if let Some(node) = fields.get("dnsSearch") {
        networking.dns_search =
            reader.list(node, "networking.dnsSearch", |reader, node, what| reader.text(node, what));
    }
    networking
}

fn subnet_problem(reader: &mut Reader, at: Position, field: &str, error: &BadSubnet) {
    reader.problem(at, format!("networking.{field}: {error}"));
}

fn read_node(reader: &mut Reader, node: &Yaml, what: &str, family: IpFamily) -> Node {
    let fields = reader.fields(node, what, NODE_FIELDS);
    let mut result = Node::new(Role::ControlPlane);
    if let Some(node) = fields.get("role") {
        let what = format!("{what}.role");
        let text = reader.text(node, &what).filter(|text| !text.is_empty()).map(|text| (node.at, text));
        let roles = [("control-plane", Role::ControlPlane), ("worker", Role::Worker)];
        if let Some(Some(role)) = choose(reader, text, &what, &roles) {
            result.role = role;
        }
    }
    if let Some(node) = fields.get("image") {
        result.image = reader.text(node, &format!("{what}.image")).filter(|image| !image.is_empty());
    }
    if let Some(node) = fields.get("labels") {
        result.labels = reader.map(node, &format!("{what}.labels"), Reader::text);
    }
    if let Some(node) = fields.get("extraMounts") {
        let mounts = reader.list(node, &format!("{what}.extraMounts"), |reader, node, what| {
            Some(read_mount(reader, node, what))
        });
        result.extra_mounts = mounts.unwrap_or_default();
    }
    if let Some(node) = fields.get("extraPortMappings") {
        let mappings = reader.list(node, &format!("{what}.extraPortMappings"), |reader, node, what| {
            read_port_mapping(reader, node, what, family).map(|mapping| (node.at, mapping))
        });
        let mappings = mappings.unwrap_or_default();
        port::check_distinct(reader, &mappings);
        result.extra_port_mappings = mappings.into_iter().map(|(_, mapping)| mapping).collect();
    }
    if let Some(node) = fields.get("kubeadmConfigPatches") {
        let what = format!("{what}.kubeadmConfigPatches");
        result.kubeadm_config_patches = read_patches(reader, node, &what, patch::check_merge);
    }
    if let Some(node) = fields.get("kubeadmConfigPatchesJSON6902") {
        let what = format!("{what}.kubeadmConfigPatchesJSON6902");
        result.kubeadm_config_patches_json6902 = read_json_patches(reader, node, &what);
    }
    result
}

fn read_mount(reader: &mut Reader, node: &Yaml, what: &str) -> Mount {
    let fields = reader.fields(node, what, MOUNT_FIELDS);
    let mut text = |field: &str| {
        let node = fields.get(field)?;
        Some((node.at, reader.text(node, &format!("{what}.{field}"))?))
    };
    let path =
        |text: Option<(Position, String)>| text.map(|(_, text)| PathBuf::from(text)).unwrap_or_default();
    let host_path = path(text("hostPath"));
    let container_path = path(text("containerPath"));
    let propagation = text("propagation").filter(|(_, text)| !text.is_empty());
    let mut flag = |field: &str| {
        let node = fields.get(field)?;
        reader.boolean(node, &format!("{what}.{field}"))
    };
    let read_only = flag("readOnly").unwrap_or_default();
    let selinux_relabel = flag("selinuxRelabel").unwrap_or_default();
    let kinds = [
        ("None", MountPropagation::None),
        ("HostToContainer", MountPropagation::HostToContainer),
        ("Bidirectional", MountPropagation::Bidirectional),
    ];
    let propagation =
        choose(reader, propagation, &format!("{what}.propagation"), &kinds).flatten().unwrap_or_default();
    Mount { host_path, container_path, read_only, selinux_relabel, propagation }
}

fn read_port_mapping(reader: &mut Reader, node: &Yaml, what: &str, family: IpFamily) -> Option<PortMapping> {
    let fields = reader.fields(node, what, PORT_FIELDS);
    let mut port = |field: &str| {
        fields.get(field).map_or(Some(0), |node| read_port(reader, node, &format!("{what}.{field}")))
    };
    let (container_port, host_port) = (port("containerPort"), port("hostPort"));
    let mut text = |field: &str| {
        let node = fields.get(field)?;
        let text = reader.text(node, &format!("{what}.{field}"))?;
        (!text.is_empty()).then_some((node.at, text))
    };
    let address = text("listenAddress");
    let protocol = text("protocol").map(|(at, text)| (at, text.to_uppercase()));
    let protocols = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
    let protocol =
        choose(reader, protocol, &format!("{what}.protocol"), &protocols).map(Option::unwrap_or_default);
    let any =
        if family == IpFamily::Ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let listen_address = match address {
        None => Some(any),
        Some((at, text)) => text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()).or_else(|| {
            reader.problem(at, format!("{what}.listenAddress must be an address, not `{text}`"));
            None
        }),
    };
    Some(PortMapping {
        container_port: container_port?,
        host_port: host_port.map(|port| (port != 0).then_some(port))?,
        listen_address: listen_address?,
        protocol: protocol?,
    })
}

/// Reads a port. -1, which lets kind's container engine choose, is read as 0, which lets kind (and Kiln)
/// choose.
fn read_port(reader: &mut Reader, node: &Yaml, what: &str) -> Option<u16> {
    let Some(number) = reader.integer(node, what) else { return node.is_null().then_some(0) };
    if number == -1 {
        return Some(0);
    }
    let port = u16::try_from(number).ok();
    if port.is_none() {
        reader.problem(node.at, format!("{what} must be a port between 1 and 65535, not {number}"));
    }
    port
}

fn read_patches(
    reader: &mut Reader,
    node: &Yaml,
    what: &str,
    check: impl Fn(&str) -> Result<(), patch::Invalid>,
) -> Vec<String> {
    let patches = reader.list(node, what, |reader, node, what| {
        let text = reader.text(node, what)?;
        if let Err(error) = check(&text) {
            reader.problem(node.at, format!("{what}: {error}"));
        }
        Some(text)
    });
    patches.unwrap_or_default()
}

fn read_json_patches(reader: &mut Reader, node: &Yaml, what: &str) -> Vec<JsonPatch> {
    let patches = reader.list(node, what, |reader, node, what| {
        let fields = reader.fields(node, what, PATCH_FIELDS);
        let mut text = |field: &str| {
            let node = fields.get(field)?;
            Some((node.at, reader.text(node, &format!("{what}.{field}"))?))
        };
        let [group, version, kind] =
            ["group", "version", "kind"].map(|field| text(field).map_or(String::new(), |(_, text)| text));
        let (at, patch) = text("patch").unwrap_or((node.at, String::new()));
        if let Err(error) = patch::check_operations(&patch) {
            reader.problem(at, format!("{what}.patch: {error}"));
        }
        Some(JsonPatch { group, version, kind, patch })
    });
    patches.unwrap_or_default()
}

/// The choice a word stands for: `Some(None)` when there is no word, `None` (and a problem) when it is none
/// of them.
fn choose<T: Copy>(
    reader: &mut Reader,
    word: Option<(Position, String)>,
    what: &str,
    choices: &[(&str, T)],
) -> Option<Option<T>> {
    let Some((at, word)) = word else { return Some(None) };
    let choice = choices.iter().find(|(name, _)| *name == word).map(|(_, choice)| *choice);
    if choice.is_none() {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        reader.unknown_word(at, format!("{what} cannot be `{word}`"), &word, &names);
    }
    choice.map(Some)
}
