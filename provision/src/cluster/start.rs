//! How the first node of a cluster comes up, decided before it is made.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    CreateOptions, PodNetwork, network::pod_cidrs, node::StartedNode, plan::NodePlan, template_etcd,
    template_etcd::EtcdMember,
};
use crate::{
    Error, Paths, Reporter, Result, config,
    kubeadm::{KubernetesVersion, document},
    pki::{self, FollowerKeys, Identity, Keys, Kubelet},
    state::NodeRole,
    template::{self, Beginning, CONTROL_PLANE_TAINT, Follower, Newcomer, Origin, Template, TemplateKey},
};

/// How the control plane of a cluster is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// From what an earlier cluster of the same image and configuration has left; by kubeadm if there is none.
    #[default]
    Auto,
    /// By kubeadm in every node, and no template is left. Its keys are those of every cluster.
    Kubeadm,
    /// As by default, and not at all when this image and configuration cannot have a template.
    Template,
}

impl Bootstrap {
    /// Its name on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kubeadm => "kubeadm",
            Self::Template => "template",
        }
    }
}

/// How the first node comes up.
#[derive(Debug)]
pub(super) enum Start {
    /// By `kubeadm init`.
    Kubeadm {
        /// Keys that it finds, and does not make.
        keys: Option<Box<Keys>>,
        /// The template that the cluster is to leave.
        leaves: Option<Box<Leaves>>,
    },
    /// From a template.
    Template(Box<FromTemplate>),
}

/// What a cluster needs to leave a template.
#[derive(Debug)]
pub(super) struct Leaves {
    pub(super) key: TemplateKey,
    pub(super) origin: Origin,
}

/// What a node needs that comes up from a template.
#[derive(Debug)]
pub(super) struct FromTemplate {
    pub(super) key: TemplateKey,
    pub(super) origin: Origin,
    pub(super) keys: Keys,
    pub(super) beginning: Beginning,
    /// etcd's program, as a path in the node, by the names of the control planes.
    etcd: BTreeMap<String, PathBuf>,
    /// The manifest of etcd, which the node must not have before etcd's data is there.
    etcd_manifest: String,
}

/// What a node needs that follows the first, and comes up from a template as well.
#[derive(Clone, Copy)]
pub(super) struct FromFollower<'a> {
    /// Files that kubeadm would write, by their paths.
    pub(super) files: &'a [(String, String)],
    pub(super) keys: &'a FollowerKeys,
}

impl<'a> FromFollower<'a> {
    /// One of the files that kubeadm would write.
    pub(super) fn file(&self, path: &str) -> Option<&'a str> {
        self.files.iter().find(|(found, _)| found == path).map(|(_, text)| text.as_str())
    }

    /// The manifest of its etcd, which only control planes have.
    pub(super) fn etcd_manifest(&self) -> Option<&'a str> {
        self.file(ETCD_MANIFEST)
    }

    /// The credentials of its kubelet.
    pub(super) fn kubelet(&self) -> &'a Kubelet {
        &self.keys.kubelet
    }

    /// Whether a file must wait until the cluster is ready for what it starts: kubelet in a worker, and in a control plane,
    /// whose kubelet is to start etcd, the static pods.
    pub(super) fn waits(&self, path: &str) -> bool {
        if self.etcd_manifest().is_some() { path.starts_with(MANIFESTS) } else { path == KUBELET_CONFIG }
    }
}

/// The first minor version whose kubeadm knows the group of administrators that keys are made for.
const ADMINS_SINCE: u32 = 29;

/// Where kubelet finds its static pods.
pub(super) const MANIFESTS: &str = "/etc/kubernetes/manifests/";

/// The manifest of etcd in a node.
pub(super) const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// The manifests of a control plane's other static pods, that of the API server first.
pub(super) const STATIC_PODS: [&str; 3] = [
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    CONTROLLERS,
    "/etc/kubernetes/manifests/kube-scheduler.yaml",
];

/// kubelet's configuration, without which its unit does not start it.
pub(super) const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// Where the node image keeps the unpacked images of the control plane.
const SNAPSHOTS: &str = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Decides how the first node comes up.
///
/// # Errors
/// [`Error::NoTemplate`] when a template was asked for and there can be none.
pub(super) fn decide(
    paths: &Paths,
    options: &CreateOptions,
    cluster: &str,
    nodes: &[NodePlan],
    reporter: &dyn Reporter,
) -> Result<Start> {
    let plain = Start::Kubeadm { keys: None, leaves: None };
    let Some(first) = nodes.iter().find(|plan| plan.first) else { return Ok(plain) };
    let without = |reason: &str| {
        if options.bootstrap == Bootstrap::Kubeadm {
            return Ok(());
        }
        reporter.message(1, &format!("the cluster comes up by kubeadm, without a template: {reason}"));
        if options.bootstrap == Bootstrap::Template {
            return Err(Error::NoTemplate { reason: reason.to_owned() });
        }
        Ok(())
    };
    let version: KubernetesVersion = first.kubernetes_version.parse()?;
    let hidden = nodes.iter().filter(|plan| plan.role == NodeRole::ControlPlane);
    if let Some(hidden) = hidden.filter_map(|plan| plan.hidden.as_deref()).next() {
        without(&format!("an extra mount is in the place of what it makes, {}", hidden.display()))?;
        return Ok(plain);
    }
    let identity = Identity::read(&first.kubeadm, &first.name).filter(|_| version.at_least(ADMINS_SINCE));
    let Some(identity) = identity else {
        without("its keys are not the usual ones")?;
        return Ok(plain);
    };
    // Either all of them can be in a template or none: they are one etcd.
    let control_planes: Option<Vec<_>> =
        others(nodes, NodeRole::ControlPlane).map(|plan| Identity::read(&plan.kubeadm, &plan.name)).collect();
    let control_planes = control_planes.unwrap_or_default();
    let workers = others(nodes, NodeRole::Worker).map(|plan| plan.name.as_str());
    let keys = pki::generate(&identity, &control_planes, workers)?;
    let bare = |keys| Start::Kubeadm { keys: Some(Box::new(keys)), leaves: None };
    if options.bootstrap == Bootstrap::Kubeadm {
        return Ok(bare(keys));
    }
    let networking = &options.config.networking;
    if options.pod_network == PodNetwork::Image && !networking.disable_default_cni {
        without("the image's own pod network is part of what kubeadm and kind's steps make")?;
        return Ok(bare(keys));
    }
    let key = match &first.template {
        Ok(key) => key.clone(),
        Err(reason) => {
            without(reason)?;
            return Ok(bare(keys));
        }
    };
    let control_planes = nodes.iter().filter(|plan| plan.role == NodeRole::ControlPlane);
    let etcd: BTreeMap<_, _> =
        control_planes.filter_map(|plan| Some((plan.name.clone(), etcd_program(&plan.layers)?))).collect();
    if !etcd.contains_key(&first.name) {
        without("the image does not have etcd unpacked")?;
        return Ok(bare(keys));
    }
    let origin = origin(cluster, first, networking, &options.config, &keys);
    let token = token(&first.kubeadm).unwrap_or_default();
    let begun = template::find(paths, &key, reporter).and_then(|template| {
        let subnets = networking.pod_subnet.nets();
        let handed_out = hands_out_usual_ranges(&template, networking.pod_subnet.as_str());
        let ranges_of = |number| if handed_out { pod_cidrs(subnets, number) } else { Vec::new() };
        let is_known = |plan: &NodePlan| {
            keys.followers.contains_key(&plan.name) && plan.member().is_some_and(|key| template.knows(key))
        };
        let control_planes_known =
            others(nodes, NodeRole::ControlPlane).all(|plan| is_known(plan) && etcd.contains_key(&plan.name));
        let followers = (1..)
            .zip(nodes.iter().filter(|plan| !plan.first))
            .filter(|(_, plan)| is_known(plan) && (plan.role == NodeRole::Worker || control_planes_known));
        let follower = |(number, plan): (usize, &NodePlan)| Follower {
            key: plan.member().cloned(),
            origin: origin_of(plan, &origin, networking),
            ranges: ranges_of(number),
            taints: taints(plan),
        };
        let newcomer = Newcomer {
            origin: &origin,
            keys: &keys,
            token: &token,
            ranges: ranges_of(0),
            taints: taints(first).filter(|_| nodes.len() > 1),
            followers: followers.map(follower).collect(),
        };
        let mut beginning = template.beginning(&newcomer).ok()?;
        let etcd = beginning.files.iter().position(|(path, _)| path == ETCD_MANIFEST)?;
        let (_, manifest) = beginning.files.remove(etcd);
        // In the order of their names, which is that of the nodes but for the tenth.
        let joined = beginning.followers.values_mut().flatten();
        let joined = joined.filter(|(path, _)| path == ETCD_MANIFEST).map(|(_, text)| text);
        template_etcd::introduce(&manifest, joined)?;
        Some((beginning, manifest))
    });
    let Some((beginning, etcd_manifest)) = begun else {
        reporter.message(1, "the cluster comes up by kubeadm, and leaves a template for the next");
        let leaves = Some(Box::new(Leaves { key, origin }));
        return Ok(Start::Kubeadm { keys: Some(Box::new(keys)), leaves });
    };
    Ok(Start::Template(Box::new(FromTemplate { key, origin, keys, beginning, etcd, etcd_manifest })))
}

/// The nodes of a role that follow the first.
fn others(nodes: &[NodePlan], role: NodeRole) -> impl Iterator<Item = &NodePlan> {
    nodes.iter().filter(move |plan| !plan.first && plan.role == role)
}

/// The manifest of what gives nodes their pod ranges.
const CONTROLLERS: &str = "/etc/kubernetes/manifests/kube-controller-manager.yaml";

/// Whether kube-controller-manager hands out pieces of this subnet, and of the size that it does unless it is told
/// otherwise: a patch may have.
fn hands_out_usual_ranges(template: &Template, pod_subnet: &str) -> bool {
    let arguments = template.file(CONTROLLERS).map(arguments).unwrap_or_default();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    has("--allocate-node-cidrs=true")
        && has(&format!("--cluster-cidr={pod_subnet}"))
        && !arguments.iter().any(|argument| argument.starts_with("--node-cidr-mask-size"))
}

/// The arguments of the program in a static pod's manifest.
pub(super) fn arguments(manifest: &str) -> Vec<String> {
    let pod: Value = serde_saphyr::from_str(manifest).unwrap_or_default();
    let command = pod["spec"]["containers"][0]["command"].as_array().cloned().unwrap_or_default();
    command.iter().filter_map(|argument| argument.as_str().map(str::to_owned)).collect()
}

/// The taints that a control plane gets: kubeadm's own unless its configuration has others. `None` for other nodes.
fn taints(plan: &NodePlan) -> Option<Vec<Value>> {
    let kind = if plan.first { "InitConfiguration" } else { "JoinConfiguration" };
    (plan.role == NodeRole::ControlPlane).then(|| configured_taints(&plan.kubeadm, kind))
}

fn configured_taints(kubeadm: &str, kind: &str) -> Vec<Value> {
    let configuration = document(kubeadm, kind).unwrap_or_default();
    let configured = configuration["nodeRegistration"]["taints"].as_array().cloned();
    configured.unwrap_or_else(|| vec![json!({"key": CONTROL_PLANE_TAINT, "effect": "NoSchedule"})])
}

/// The names of a cluster, with those of another of its nodes.
pub(super) fn origin_of(plan: &NodePlan, cluster: &Origin, networking: &config::Networking) -> Origin {
    Origin { node: plan.name.clone(), addresses: addresses(plan, networking), ..cluster.clone() }
}

/// A node's addresses of the cluster's families.
fn addresses(plan: &NodePlan, networking: &config::Networking) -> Vec<String> {
    let family = networking.ip_family;
    let ipv4 = plan.endpoint.ipv4.filter(|_| family.has_ipv4()).map(|ip| ip.to_string());
    let ipv6 = plan.endpoint.ipv6.filter(|_| family.has_ipv6()).map(|ip| ip.to_string());
    ipv4.into_iter().chain(ipv6).collect()
}

fn origin(
    cluster: &str,
    first: &NodePlan,
    networking: &config::Networking,
    config: &config::Cluster,
    keys: &Keys,
) -> Origin {
    let named = config::Cluster { name: cluster.to_owned(), ..config.clone() };
    Origin {
        cluster: cluster.to_owned(),
        node: first.name.clone(),
        addresses: addresses(first, networking),
        endpoint: config::control_plane_endpoint(&named),
        ca: keys.ca.clone(),
        front_proxy_ca: keys.front_proxy_ca.clone(),
    }
}

/// The bootstrap token in a kubeadm configuration.
fn token(kubeadm: &str) -> Option<String> {
    let init = document(kubeadm, "InitConfiguration")?;
    init["bootstrapTokens"][0]["token"].as_str().map(str::to_owned)
}

/// The program of etcd's image, as a path in the node. It is linked statically.
fn etcd_program(layers: &[PathBuf]) -> Option<PathBuf> {
    layers
        .iter()
        .find_map(|layer| {
            let entries = fs_err::read_dir(layer.join(SNAPSHOTS)).ok()?;
            let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
            let inside = names.map(|name| Path::new(SNAPSHOTS).join(name).join("fs/usr/local/bin/etcd"));
            inside.into_iter().find(|path| layer.join(path).is_file())
        })
        .map(|path| Path::new("/").join(path))
}

impl Start {
    /// Keys that `kubeadm join` finds in a control plane, and does not make. A worker has none.
    pub(super) fn keys_to_join(&self, plan: &NodePlan) -> &[(String, String)] {
        let keys = match self {
            Self::Kubeadm { keys: Some(keys), .. } => keys,
            Self::Template(from) => &from.keys,
            Self::Kubeadm { keys: None, .. } => return &[],
        };
        let found = keys.followers.get(&plan.name).filter(|_| plan.role == NodeRole::ControlPlane);
        found.map_or(&[], |found| &found.files)
    }

    /// What a node that follows the first comes up from, if it is not to join by kubeadm.
    pub(super) fn follower(&self, node: &str) -> Option<FromFollower<'_>> {
        let Self::Template(from) = self else { return None };
        let files = from.beginning.followers.get(node)?;
        Some(FromFollower { files, keys: from.keys.followers.get(node)? })
    }

    /// The members of the etcd that a template fills, the first node's first; none without a template.
    pub(super) fn etcd_members<'a>(&'a self, nodes: &'a [StartedNode]) -> Vec<EtcdMember<'a>> {
        let Self::Template(from) = self else { return Vec::new() };
        let manifest = |node: &StartedNode| {
            if node.plan.first {
                return Some(from.etcd_manifest.as_str());
            }
            self.follower(&node.plan.name)?.etcd_manifest()
        };
        let member = |node| {
            Some(EtcdMember { node, program: from.etcd.get(&node.plan.name)?, manifest: manifest(node)? })
        };
        let mut members: Vec<_> = nodes.iter().filter_map(member).collect();
        members.sort_by(|one, other| {
            let key = |member: &EtcdMember<'_>| (!member.node.plan.first, member.node.plan.name.clone());
            key(one).cmp(&key(other))
        });
        members
    }

    /// The pod ranges that a node has from the beginning.
    pub(super) fn ranges(&self, node: &str) -> Option<&[IpNet]> {
        let Self::Template(from) = self else { return None };
        from.beginning.ranges.get(node).map(Vec::as_slice)
    }

    /// Throws the template away, whatever has failed: the next cluster will not meet it.
    pub(super) fn discard(&self, paths: &Paths) {
        if let Self::Template(from) = self {
            template::discard(paths, &from.key);
        }
    }

    /// Whether everything that is installed into a new cluster is there from its beginning.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Template(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_program() {
        let manifest = "spec:\n  containers:\n  - command:\n    - etcd\n    - --name=n\n    - --data-dir=/var/lib/etcd\n";
        assert_eq!(arguments(manifest), ["etcd", "--name=n", "--data-dir=/var/lib/etcd"]);
        assert!(arguments("kind: [").is_empty());
    }

    #[test]
    fn taints_are_kubeadms_unless_configured() {
        let usual = configured_taints("kind: InitConfiguration\nnodeRegistration: {}\n", "InitConfiguration");
        assert_eq!(usual, [json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"})]);
        let none = "kind: JoinConfiguration\nnodeRegistration: {taints: []}\n";
        assert!(configured_taints(none, "JoinConfiguration").is_empty());
    }
}
