//! Leaving a template: what a cluster that kubeadm has set up gives to the next of its kind.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use super::{
    api, inside,
    node::StartedNode,
    start::{ETCD_MANIFEST, KUBELET_CONFIG, Leaves, STATIC_PODS, Start, arguments, origin_of},
    template_etcd,
};
use crate::{
    Error, Paths, Reporter, Result, config,
    pki::KUBELET_CONF,
    state::NodeRole,
    template::{self, Cause, Member, Origin, Seed, Template},
    trace,
};

/// Files that kubeadm writes into a control plane.
const CONTROL_PLANE_FILES: [&str; 7] = [
    ETCD_MANIFEST,
    STATIC_PODS[0],
    STATIC_PODS[1],
    STATIC_PODS[2],
    KUBELET_CONFIG,
    "/var/lib/kubelet/kubeadm-flags.env",
    INSTANCE_CONFIG,
];

/// Files that kubeadm, or kubelet at its first start, writes into a worker.
const WORKER_FILES: [&str; 4] =
    [KUBELET_CONF, KUBELET_CONFIG, "/var/lib/kubelet/kubeadm-flags.env", INSTANCE_CONFIG];

/// The one file of them that not every version writes.
const INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";

/// What makes an API server store objects in another way than a template is read and written in.
const STORED_OTHERWISE: [&str; 5] = [
    "--encryption-provider-config=",
    "--etcd-prefix=",
    "--etcd-servers-overrides=",
    "--storage-backend=",
    "--storage-media-type=",
];

/// The port of etcd on its node.
const ETCD_PORT: u16 = 2379;

/// Keeps what the cluster has become for the next of its kind, or what a template did not know of its nodes yet. That it
/// cannot be is no failure of this one.
pub(super) async fn leave(
    paths: &Paths,
    nodes: &[StartedNode],
    start: &Start,
    networking: &config::Networking,
    client: &kube::Client,
    reporter: &dyn Reporter,
) {
    let left = match start {
        Start::Kubeadm { leaves: Some(leaves), .. } => {
            reporter.step("keeping a template for the next cluster");
            trace::step("", "keep a template").over(whole(paths, nodes, leaves, networking, client)).await
        }
        Start::Template(from) => {
            let known = |node: &&StartedNode| from.beginning.followers.contains_key(&node.plan.name);
            let unknown = nodes.iter().filter(|node| !known(node));
            let members = async {
                let members = followers(unknown, &from.origin, networking, client).await?;
                if members.is_empty() { Ok(()) } else { template::extend(paths, &from.key, members) }
            };
            trace::step("", "add nodes to the template").over(members).await
        }
        Start::Kubeadm { .. } => return,
    };
    match left {
        Ok(()) => reporter.message(1, "the next cluster of this image and configuration has a template"),
        Err(error) => reporter.message(1, &format!("the cluster leaves no template: {error}")),
    }
}

/// Reads a template of a cluster that kubeadm has set up, and saves it.
async fn whole(
    paths: &Paths,
    nodes: &[StartedNode],
    leaves: &Leaves,
    networking: &config::Networking,
    client: &kube::Client,
) -> Result<(), Cause> {
    let template = read(nodes, leaves, networking, client).await?;
    Ok(template::save(paths, &leaves.key, template)?)
}

async fn read(
    nodes: &[StartedNode],
    leaves: &Leaves,
    networking: &config::Networking,
    client: &kube::Client,
) -> Result<Template, Cause> {
    api::add_ons_bound(client).await;
    let first = nodes.iter().find(|node| node.plan.first).ok_or("there is no first node")?;
    let (process, name) = (&first.process, &first.plan.name);
    let pki = |file: &str| inside::read(process, name, &format!("/etc/kubernetes/pki/{file}"));
    let files = files(first, &CONTROL_PLANE_FILES)?;
    if let Some(missing) = template_etcd::missing(&arguments(&files[0].1)) {
        return Err(format!("etcd is started without {missing}").into());
    }
    if let Some(argument) = stored_otherwise(&arguments(&files[1].1)) {
        return Err(format!("its API server has {argument}").into());
    }
    let address: IpAddr = leaves.origin.addresses.first().ok_or("the node has no address")?.parse()?;
    let object = api::node(client, name).await?;
    let seed = Seed {
        first: Member::new(leaves.key.clone(), leaves.origin.clone(), files, &object),
        followers: followers(nodes.iter(), &leaves.origin, networking, client).await?,
        etcd: SocketAddr::new(address, ETCD_PORT),
        credentials: [
            pki("etcd/ca.crt")?,
            pki("apiserver-etcd-client.crt")?,
            pki("apiserver-etcd-client.key")?,
        ],
    };
    template::read(seed).await
}

/// The argument that makes an API server store objects in another way, if there is one.
fn stored_otherwise(arguments: &[String]) -> Option<&str> {
    let otherwise = |argument: &&String| STORED_OTHERWISE.iter().any(|other| argument.starts_with(other));
    arguments.iter().find(otherwise).map(String::as_str)
}

/// The nodes that have followed the first and can be in a template, one of each kind.
async fn followers(
    nodes: impl Iterator<Item = &StartedNode>,
    cluster: &Origin,
    networking: &config::Networking,
    client: &kube::Client,
) -> Result<Vec<Member>, Cause> {
    let mut members: Vec<Member> = Vec::new();
    for node in nodes.filter(|node| !node.plan.first) {
        let Some(key) = node.plan.member() else { continue };
        if members.iter().any(|known| known.key == *key) {
            continue;
        }
        let origin = origin_of(&node.plan, cluster, networking);
        let object = api::node(client, &node.plan.name).await?;
        let files = match node.plan.role {
            NodeRole::ControlPlane => joined(node)?,
            _ => files(node, &WORKER_FILES)?,
        };
        members.push(Member::new(key.clone(), origin, files, &object));
    }
    Ok(members)
}

/// The files of a control plane that has joined others. Its etcd was told of all members that there were; another cluster's has
/// others.
fn joined(node: &StartedNode) -> Result<Vec<(String, String)>, Cause> {
    let mut found = files(node, &CONTROL_PLANE_FILES)?;
    let manifest = &mut found[0].1;
    *manifest = template_etcd::alone(manifest, &node.plan.name)
        .ok_or("the manifest of a joined etcd is not understood")?;
    // The first node gets this one of Kiln.
    found.extend(files(node, &[KUBELET_CONF])?);
    Ok(found)
}

/// Files of a node, by their paths.
fn files(node: &StartedNode, paths: &[&str]) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for path in paths {
        match inside::read(&node.process, &node.plan.name, path) {
            Ok(text) => files.push(((*path).to_owned(), text)),
            Err(Error::NodeFile { source, .. })
                if source.kind() == io::ErrorKind::NotFound && *path == INSTANCE_CONFIG => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}
