//! What `create` would make and `delete` would remove, found out without making or removing anything.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use kiln_network::{Endpoint, Network};

use super::{
    CreateOptions,
    create::{check, locate_kubeconfig},
    plan,
    query::{NodeStatus, nodes},
    reserve::{NodeImage, Reserved, choose, image_names},
};
use crate::{
    Error, Paths, Reporter, Result, build,
    config::{self, Mount, Protocol},
    image::{Reference, Store},
    kubeconfig,
    state::{self, NodeRole},
};

/// A cluster that would be made.
#[derive(Clone, Debug)]
pub struct PlannedCluster {
    /// Its name.
    pub name: String,
    /// Its network, chosen as it would be chosen now.
    pub network: Network,
    /// The addresses of its pods, separated by commas.
    pub pod_subnet: String,
    /// The addresses of its Services, separated by commas.
    pub service_subnet: String,
    /// The host's address that the API would answer on.
    pub api_address: IpAddr,
    /// The host's port for it; a free one is chosen when absent.
    pub api_port: Option<u16>,
    /// The kubeconfig that would be written.
    pub kubeconfig: PathBuf,
    /// Its nodes in the order of the configuration, the load balancer last.
    pub nodes: Vec<PlannedNode>,
}

/// A node that would be made.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: NodeRole,
    /// The image it would be made from.
    pub image: String,
    /// The version of Kubernetes in it; not known of an image that was never unpacked, and none in a load balancer.
    pub kubernetes_version: Option<String>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The ports of the host that would lead to it.
    pub ports: Vec<config::PortMapping>,
    /// What it would see of the host.
    pub mounts: Vec<Mount>,
}

/// Checks all that [`create`](super::create) checks before it makes anything, and says what it would make.
///
/// # Errors
/// What `create` would refuse.
pub async fn plan_create(
    paths: &Paths,
    options: &CreateOptions,
    reporter: &dyn Reporter,
) -> Result<PlannedCluster> {
    let name = options.name.clone().unwrap_or_else(|| options.config.name.clone());
    state::validate_cluster_name(&name)?;
    check(paths, &name, options, reporter).await?;
    let images = look_up(paths, &image_names(options))?;
    let unpacked = images.iter().all(|found| found.unpacked);
    let mut config = options.config.clone();
    if !unpacked {
        // They apply to a file of the image, which is not to be had yet; their syntax has been checked.
        config.containerd_config_patches.clear();
        config.containerd_config_patches_json6902.clear();
    }
    let from: Vec<NodeImage> = images.iter().map(|found| found.image.clone()).collect();
    let reserved = choose(paths, &name, &config, &from).await?;
    let locations = locate_kubeconfig(options.kubeconfig.as_deref())?;
    let kubeconfig = locations.merge_target().to_owned();
    Ok(describe(&options.config, reserved, &images, kubeconfig))
}

/// An image in the store.
#[derive(Debug)]
struct Found {
    image: NodeImage,
    /// Whether its layers have been unpacked on this host. Otherwise its version is the default one, to check with.
    unpacked: bool,
}

fn look_up(paths: &Paths, names: &[String]) -> Result<Vec<Found>> {
    // Opening a store makes it.
    if !paths.images().join("oci-layout").exists() {
        let reference: Reference = names.first().map_or("", String::as_str).parse()?;
        return Err(Error::NoSuchImage { image: reference.familiar() });
    }
    let store = Store::open(&paths.images())?;
    let found = names.iter().map(|name| {
        let image = plan::find_image(&store, name)?;
        let layers: Vec<PathBuf> =
            image.layers.iter().rev().map(|layer| store.layer_path(&layer.diff_id)).collect();
        let unpacked = layers.iter().all(|layer| layer.exists());
        let kubernetes_version = match unpacked {
            true => plan::kubernetes_version(&image, &layers)?,
            false => build::DEFAULT_KUBERNETES_VERSION.to_owned(),
        };
        Ok(Found { image: NodeImage { image, layers, kubernetes_version }, unpacked })
    });
    found.collect()
}

fn describe(
    config: &config::Cluster,
    reserved: Reserved,
    images: &[Found],
    kubeconfig: PathBuf,
) -> PlannedCluster {
    let Reserved { record, nodes: plans, balancer } = reserved;
    let made = plans.into_iter().zip(&config.nodes).zip(images).map(|((plan, node), found)| {
        let Endpoint { ipv4, ipv6, .. } = plan.endpoint;
        PlannedNode {
            name: plan.name,
            role: plan.role,
            image: plan.image.name.familiar(),
            kubernetes_version: found.unpacked.then_some(plan.kubernetes_version),
            ipv4,
            ipv6,
            ports: node.extra_port_mappings.clone(),
            mounts: node.extra_mounts.clone(),
        }
    });
    let mut nodes: Vec<PlannedNode> = made.collect();
    let networking = &config.networking;
    // The API is published like any other port, by the node that stands in front.
    let api = config::PortMapping {
        container_port: plan::API_PORT,
        host_port: networking.api_server_port,
        listen_address: record.api.ip(),
        protocol: Protocol::Tcp,
    };
    if let Some(balancer) = balancer {
        nodes.push(PlannedNode {
            name: balancer.name,
            role: NodeRole::ExternalLoadBalancer,
            image: String::new(),
            kubernetes_version: None,
            ipv4: balancer.endpoint.ipv4,
            ipv6: balancer.endpoint.ipv6,
            ports: vec![api],
            mounts: Vec::new(),
        });
    } else if let Some(first) = nodes.iter_mut().find(|node| node.role == NodeRole::ControlPlane) {
        first.ports.insert(0, api);
    }
    PlannedCluster {
        name: record.name,
        network: record.network,
        pod_subnet: networking.pod_subnet.as_str().to_owned(),
        service_subnet: networking.service_subnet.as_str().to_owned(),
        api_address: record.api.ip(),
        api_port: networking.api_server_port,
        kubeconfig,
        nodes,
    }
}

/// What would be removed with a cluster.
#[derive(Clone, Debug)]
pub struct Removal {
    /// The cluster's name.
    pub cluster: String,
    /// Its nodes, as far as they have a record.
    pub nodes: Vec<NodeStatus>,
    /// The names of nodes whose making was interrupted.
    pub unfinished: Vec<String>,
    /// Its network, where it is known.
    pub network: Option<Network>,
    /// Where its API answers.
    pub api: Option<SocketAddr>,
    /// The directories of its state.
    pub directories: Vec<PathBuf>,
    /// The kubeconfigs that have entries of it.
    pub kubeconfigs: Vec<PathBuf>,
}

impl Removal {
    /// Whether there is nothing to remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.kubeconfigs.is_empty()
    }
}

/// Says what [`delete`](super::delete) would remove. A cluster that does not exist is no error; it may still have entries
/// in a kubeconfig.
///
/// # Errors
/// [`Error::InvalidName`], [`Error::File`], or what the kubeconfig says.
pub fn plan_delete(paths: &Paths, name: &str, kubeconfig: Option<&Path>) -> Result<Removal> {
    state::validate_cluster_name(name)?;
    let locations = locate_kubeconfig(kubeconfig)?;
    let kubeconfigs = kubeconfig::files_with(&locations, name)?;
    // As `delete` does: what cannot be read is removed by name.
    let record = state::load_cluster(paths, name).ok().flatten();
    let known = nodes(paths, name).unwrap_or_default();
    let unfinished = state::node_names(paths, name)?;
    let unfinished =
        unfinished.into_iter().filter(|name| known.iter().all(|node| node.name != *name)).collect();
    let directories = [paths.cluster(name), paths.cluster_run(name)];
    Ok(Removal {
        cluster: name.to_owned(),
        nodes: known,
        unfinished,
        api: record.as_ref().map(|record| record.api),
        network: record.map(|record| record.network),
        directories: directories.into_iter().filter(|directory| directory.exists()).collect(),
        kubeconfigs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(directory: &tempfile::TempDir) -> Paths {
        Paths::new(directory.path().join("state"), directory.path().join("run"))
    }

    #[test]
    fn looking_for_an_image_makes_no_store() {
        let directory = tempfile::tempdir().unwrap();
        let error = look_up(&paths(&directory), &["kiln/node:v1.34.4".to_owned()]).unwrap_err();
        assert!(matches!(error, Error::NoSuchImage { .. }), "{error:?}");
        assert!(!directory.path().join("state").exists());
    }

    #[test]
    fn a_half_made_cluster_would_be_removed_whole() {
        let directory = tempfile::tempdir().unwrap();
        let paths = paths(&directory);
        let kubeconfig = directory.path().join("config");
        let removal = plan_delete(&paths, "c", Some(&kubeconfig)).unwrap();
        assert!(removal.is_empty(), "{removal:?}");

        fs_err::create_dir_all(paths.node_run("c", "c-worker")).unwrap();
        fs_err::create_dir_all(paths.node("c", "c-control-plane")).unwrap();
        let entries = "clusters:\n- name: kind-c\n  cluster: {}\ncontexts: []\nusers: []\n";
        fs_err::write(&kubeconfig, entries).unwrap();
        let removal = plan_delete(&paths, "c", Some(&kubeconfig)).unwrap();
        assert_eq!(removal.unfinished, ["c-control-plane", "c-worker"]);
        assert_eq!(removal.directories, [paths.cluster("c"), paths.cluster_run("c")]);
        assert_eq!(removal.kubeconfigs, std::slice::from_ref(&kubeconfig));
        assert_eq!(fs_err::read_to_string(&kubeconfig).unwrap(), entries, "nothing was removed");
        assert!(paths.node("c", "c-control-plane").exists());
    }
}
