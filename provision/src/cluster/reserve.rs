//! What a cluster takes before it is made: images, a network, addresses and ports.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use oci_spec::image::Arch;

use super::{
    CreateOptions,
    blocking::Steps,
    images::find_or_pull,
    load_balancer::BalancerPlan,
    mounted,
    plan::{self, NodePlan},
    ports,
    unpacked::with_images_unpacked,
};
use crate::{
    Error, Paths, Reporter, Result, build, config, host,
    image::{Image, Store},
    kubeadm,
    state::{self, ClusterRecord, NodeRole, Phase},
    template::TemplateKey,
};

/// What a cluster will consist of.
#[derive(Debug)]
pub(super) struct Reserved {
    /// As it was written down.
    pub(super) record: ClusterRecord,
    /// The nodes, in the order of the configuration.
    pub(super) nodes: Vec<NodePlan>,
    /// What stands in front of several control planes.
    pub(super) balancer: Option<BalancerPlan>,
}

/// An image of a node, ready to be started from.
#[derive(Clone, Debug)]
pub(super) struct NodeImage {
    pub(super) image: Image,
    /// Unpacked, topmost first.
    pub(super) layers: Vec<PathBuf>,
    pub(super) kubernetes_version: String,
}

/// The image of each node, in the order of the configuration.
pub(super) fn image_names(options: &CreateOptions) -> Vec<String> {
    let default = || build::default_image().familiar();
    let of =
        |node: &config::Node| options.image.clone().or_else(|| node.image.clone()).unwrap_or_else(default);
    options.config.nodes.iter().map(of).collect()
}

/// Finds each image in the store, unpacked with the images inside it; what is not there is pulled.
pub(super) async fn ensure_images(
    paths: &Paths,
    store: &Store,
    names: &[String],
    steps: &Steps,
    reporter: &dyn Reporter,
) -> Result<Vec<NodeImage>> {
    let mut images = Vec::new();
    for name in names {
        reporter.step(&format!("looking for {name}"));
        let image = find_or_pull(paths, store, name, reporter).await?;
        if *image.config.architecture() != Arch::default() {
            let platform = format!("{}/{}", image.config.os(), image.config.architecture());
            return Err(Error::ForeignImage { image: image.name.familiar(), platform });
        }
        reporter.step("looking for layers, unpacking new ones");
        let (unpacking, copy) = (store.clone(), image.clone());
        let layers = steps.run(move || unpacking.unpack(&copy)).await?;
        let kubernetes_version = plan::kubernetes_version(&image, &layers)?;
        let layers = with_images_unpacked(paths, store, &image, layers, steps, reporter).await?;
        images.push(NodeImage { image, layers, kubernetes_version });
    }
    Ok(images)
}

/// What a node is called in templates, or why it can be in none.
fn template_key(
    image: &Image,
    input: &kubeadm::Input<'_>,
    mounts: &[config::Mount],
    kubeadm: &str,
) -> Result<std::result::Result<TemplateKey, String>> {
    let patches = match mounted::patches(mounts, kubeadm) {
        Ok(patches) => patches,
        Err(error) => return Ok(Err(format!("kubeadm's patches cannot be looked at: {error}"))),
    };
    let key = TemplateKey::new(&image.manifest, input, patches)?;
    Ok(key.ok_or_else(|| "a patch names the cluster's nodes or addresses".to_owned()))
}

/// Chooses what clusters must not share. Nothing is made or written down; whoever goes on to do so holds the host's lock.
pub(super) async fn choose(
    paths: &Paths,
    name: &str,
    config: &config::Cluster,
    images: &[NodeImage],
) -> Result<Reserved> {
    let network = plan::choose_network(paths, &paths.handle(name), &config.networking).await?;
    let api = ports::api_address(paths, &config.networking)?;
    let named = config::Cluster { name: name.to_owned(), ..config.clone() };
    let endpoint_of_api = config::control_plane_endpoint(&named);
    let token = kubeadm::random_token()?;
    let cgroup_v1 = has_cgroup_v1()?;
    let sys_resource = host::detect()?.sys_resource;
    let names = config::node_names(&named);
    let mut plans: Vec<NodePlan> = Vec::new();
    for (index, ((node, from), asked)) in names.iter().zip(images).zip(&config.nodes).enumerate() {
        let endpoint = plan::endpoint(&network, &node.name, index)?;
        // Patches that do not apply are found here, before anything is made.
        let input = kubeadm::Input {
            cluster: &named,
            name: &node.name,
            index,
            ipv4: endpoint.ipv4,
            ipv6: endpoint.ipv6,
            control_plane_endpoint: &endpoint_of_api,
            token: &token,
            ca_cert_hash: None,
            kubernetes_version: &from.kubernetes_version,
            engine: kubeadm::ENGINE,
            cgroup_v1,
        };
        let kubeadm = kubeadm::render(&input)?;
        let role = match node.role {
            config::Role::ControlPlane => NodeRole::ControlPlane,
            config::Role::Worker => NodeRole::Worker,
            config::Role::LoadBalancer => NodeRole::ExternalLoadBalancer,
        };
        let first =
            role == NodeRole::ControlPlane && plans.iter().all(|plan| plan.role != NodeRole::ControlPlane);
        plans.push(NodePlan {
            template: template_key(&from.image, &input, &asked.extra_mounts, &kubeadm)?,
            kubeadm,
            hidden: mounted::in_the_way(&asked.extra_mounts).map(Path::to_owned),
            containerd: plan::patched_containerd(config, &from.image, &from.layers, sys_resource)?,
            name: node.name.clone(),
            role,
            first,
            image: from.image.clone(),
            kubernetes_version: from.kubernetes_version.clone(),
            layers: from.layers.clone(),
            endpoint,
        });
    }
    let balancer = match names.last().filter(|node| node.role == config::Role::LoadBalancer) {
        Some(node) => Some(BalancerPlan {
            name: node.name.clone(),
            endpoint: plan::endpoint(&network, &node.name, plans.len())?,
        }),
        None => None,
    };
    let first = plans.iter().find(|plan| plan.first).map(|plan| &plan.endpoint);
    let front = balancer.as_ref().map(|balancer| &balancer.endpoint).or(first);
    let mut ports: Vec<_> =
        front.and_then(|endpoint| ports::api_mapping(api, endpoint)).into_iter().collect();
    for (node, plan) in config.nodes.iter().zip(&plans) {
        ports.extend(ports::extra_mappings(paths, &ports, node, &plan.endpoint)?);
    }
    let record = ClusterRecord {
        schema: state::SCHEMA,
        name: name.to_owned(),
        created: Timestamp::now(),
        image: plans.first().map(|plan| plan.image.name.familiar()).unwrap_or_default(),
        kubernetes_version: plans.first().map(|plan| plan.kubernetes_version.clone()).unwrap_or_default(),
        network,
        ports,
        api,
        phase: Phase::Creating,
        config: serde_json::to_value(config).unwrap_or_default(),
    };
    Ok(Reserved { record, nodes: plans, balancer })
}

/// Chooses what clusters must not share, and writes it down before another may choose.
pub(super) async fn reserve(
    paths: &Paths,
    name: &str,
    config: &config::Cluster,
    images: &[NodeImage],
    reporter: &dyn Reporter,
) -> Result<Reserved> {
    let _host = state::host_lock(paths, reporter).await?;
    let reserved = choose(paths, name, config, images).await?;
    if has_cgroup_v1()?
        && let Some(version) = refusing_cgroup_v1(images.iter().map(|image| &image.kubernetes_version[..]))
    {
        let text = format!(
            "This host has cgroups of version 1: kubelet {version} is told to run on them (failCgroupV1: false)"
        );
        reporter.message(0, &text);
    }
    host::remember(paths)?;
    // It will hold the administrator's credentials and the nodes' files, set-uid programs among them.
    let private = |error| Error::file("make the cluster's directory")(error);
    fs_err::create_dir_all(paths.cluster(name)).map_err(private)?;
    fs_err::set_permissions(paths.cluster(name), Permissions::from_mode(0o700)).map_err(private)?;
    state::save_cluster(paths, &reserved.record)?;
    // While the lock is held: the next to choose sees the route.
    kiln_network::create_bridge(&reserved.record.network).await?;
    Ok(reserved)
}

fn has_cgroup_v1() -> Result<bool> {
    Ok(host::detect()?.cgroup != host::CgroupMode::V2)
}

/// The first of the versions whose kubelet does not run on cgroups of version 1 by itself.
fn refusing_cgroup_v1<'a>(mut versions: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let refuses =
        |version: &&str| version.parse().is_ok_and(|it: kubeadm::KubernetesVersion| it.refuses_cgroup_v1());
    versions.find(refuses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_kubelets_refuse_old_cgroups() {
        assert_eq!(refusing_cgroup_v1(["v1.34.4", "v1.37.2", "v1.36.0"].into_iter()), Some("v1.37.2"));
        assert_eq!(refusing_cgroup_v1(["v1.34.4", "v1.22.17"].into_iter()), None);
    }
}
