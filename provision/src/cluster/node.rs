//! Making one node: its files, its wiring, its container.

use std::{
    collections::BTreeMap,
    fs::Permissions,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use kiln_network::{Endpoint, Network, PodRules};
use kiln_runtime::{Cgroup, ContainerSpec, Mount, Process, Propagation, RootFilesystem};

use super::{
    boot::{self, BootNotice},
    network::pod_cidrs,
    plan::{API_PORT, CONTAINERD_CONFIG, NodePlan},
    start::Start,
};
use crate::{
    Error, Paths, Result,
    cni::{CNI_CONFIG, PTP_PLUGIN, PTP_PLUGIN_TEXT, cni_config},
    config, hold,
    image::materialise,
    pki::{service_of_api, service_of_dns},
    state::{self, NodeRecord, NodeRole},
    trace,
};

/// What every node is started with, whatever its image says.
const SYSCTLS: [(&str, &str); 1] = [("net.ipv4.ip_forward", "1")];

/// As well, in a network with IPv6. Router advertisements are not for nodes: their routes are Kiln's.
const SYSCTLS6: [(&str, &str); 2] =
    [("net.ipv6.conf.all.disable_ipv6", "0"), ("net.ipv6.conf.all.forwarding", "1")];

/// The port of the Service of the API.
const HTTPS: u16 = 443;

/// The port of DNS servers.
const DNS: u16 = 53;

/// The interface of a node that leads out of it.
const UPLINK: &str = "eth0";

/// The admin's credentials, where kubeadm leaves them.
pub(super) const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";

/// A cluster's parts that a node needs to know.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) cluster: String,
    pub(super) network: Network,
    /// `/etc/hosts` of every node.
    pub(super) hosts: String,
    pub(super) networking: config::Networking,
    /// Whether the launcher makes the pod network.
    pub(super) pod_network: bool,
    /// How nodes reach the world through a proxy, as variables for their init.
    pub(super) outbound: Vec<String>,
    /// Where the first node is.
    pub(super) first: Option<Endpoint>,
    /// How the first node comes up.
    pub(super) start: Arc<Start>,
}

/// A node whose init runs.
#[derive(Debug)]
pub(super) struct StartedNode {
    pub(super) plan: NodePlan,
    pub(super) process: Process,
    pub(super) notice: BootNotice,
    /// Keeps the namespace open until the node's rules are in it.
    pub(super) netns: OwnedFd,
}

/// Where a cluster's nodes are in the cgroup hierarchies.
pub(super) fn cgroup(paths: &Paths, cluster: &str, node: &str) -> Cgroup {
    Cgroup { parent: format!("kiln/{}", paths.handle(cluster)), leaf: node.to_owned() }
}

/// Writes everything that is to be in the node before its init runs. Blocks.
///
/// # Errors
/// [`Error::File`] naming what could not be written.
pub(super) fn write_files(paths: &Paths, plan: &NodePlan, around: &Surroundings) -> Result<()> {
    let directory = paths.node(&around.cluster, &plan.name);
    let upper = directory.join("upper");
    fs_err::create_dir_all(&upper).map_err(Error::file("make the node's directory"))?;
    let var = directory.join("var");
    fs_err::create_dir_all(&var).map_err(Error::file("make the node's /var"))?;
    // containerd's blobs and the snapshots of committed layers are only ever read, or unlinked as a whole: those of all
    // nodes are the same files. Everything else in /var belongs to the node.
    materialise(&plan.layers, Path::new("var"), &var, |path| {
        path.starts_with("var/lib/containerd/io.containerd.content.v1.content/blobs")
            || path.starts_with("var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots")
    })?;
    let file = |path: &str, content: &str| -> Result<()> {
        let path = upper.join(path);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).map_err(Error::file("make a directory of the node"))?;
        }
        fs_err::write(path, content).map_err(Error::file("write a file of the node"))
    };
    file("etc/hostname", &format!("{}\n", plan.name))?;
    file("etc/hosts", &around.hosts)?;
    let gateway =
        around.network.gateway_v4().map_or_else(|| std::net::Ipv4Addr::LOCALHOST.into(), Into::into);
    file("etc/resolv.conf", &kiln_network::node_resolv_conf(gateway)?)?;
    if let Some(containerd) = &plan.containerd {
        file(CONTAINERD_CONFIG, containerd)?;
    }
    if around.pod_network && around.network.ipv6.is_some() {
        file(PTP_PLUGIN, PTP_PLUGIN_TEXT)?;
        fs_err::set_permissions(upper.join(PTP_PLUGIN), Permissions::from_mode(0o755))
            .map_err(Error::file("make a program of the node executable"))?;
    }
    around.start.write_files(plan, &upper, &var)?;
    if around.pod_network
        && let Some(ranges) = around.assumed_ranges(plan)
    {
        file(CNI_CONFIG, &cni_config(&ranges, around.network.mtu))?;
    }
    Ok(())
}

impl Surroundings {
    /// The pod ranges that a node will be given, as far as that is known before it is.
    pub(super) fn assumed_ranges(&self, plan: &NodePlan) -> Option<Vec<IpNet>> {
        // Otherwise they are known when the node has joined.
        let first = || plan.first.then(|| pod_cidrs(self.networking.pod_subnet.nets(), 0));
        self.start.ranges(&plan.name).map(<[IpNet]>::to_vec).or_else(first)
    }
}

/// Starts a node whose files are there.
///
/// # Errors
/// [`Error::Network`], [`Error::Runtime`], [`Error::File`].
pub(super) async fn start(
    paths: &Paths,
    plan: NodePlan,
    around: &Surroundings,
    extra: &config::Node,
    steps: &super::blocking::Steps,
) -> Result<StartedNode> {
    let record = NodeRecord {
        schema: state::SCHEMA,
        name: plan.name.clone(),
        role: plan.role,
        image: plan.image.name.familiar(),
        layers: plan.layers.clone(),
        endpoint: plan.endpoint.clone(),
        process: None,
    };
    let run = paths.node_run(&around.cluster, &plan.name);
    fs_err::create_dir_all(&run).map_err(Error::file("make the node's run-time directory"))?;
    let notice = BootNotice::open(&run)?;
    let spec = container_spec(paths, &plan, around, extra, &notice);
    let (process, netns) = launch(paths, around, record, spec, steps).await?;
    Ok(StartedNode { plan, process, notice, netns })
}

/// Wires and launches a container of a cluster. Its record is on disk before its init runs.
///
/// # Errors
/// [`Error::Network`], [`Error::Runtime`], [`Error::File`].
pub(super) async fn launch(
    paths: &Paths,
    around: &Surroundings,
    mut record: NodeRecord,
    spec: ContainerSpec,
    steps: &super::blocking::Steps,
) -> Result<(Process, OwnedFd)> {
    state::save_node(paths, &around.cluster, &record)?;
    let wiring = trace::step(&record.name, "wire");
    let netns = kiln_network::new_netns()?;
    kiln_network::attach(&around.network, &record.endpoint, netns.as_fd()).await?;
    drop(wiring);
    trace::mark(&record.name, "namespace made");
    let inherited = netns.try_clone().map_err(Error::file("keep the node's network namespace"))?;
    let launched = steps.run(move || kiln_runtime::launch(&spec, inherited.as_fd()));
    let process = trace::step(&record.name, "launch").over(launched).await?;
    trace::mark(&record.name, "init started");
    record.process = Some(process.clone());
    state::save_node(paths, &around.cluster, &record)?;
    Ok((process, netns))
}

/// Rules in the node's own namespace: pods leave the cluster under the node's address, and Services that kube-proxy does not
/// know yet refuse instead of hanging (a client's first dial then fails at once and is tried again, where it would wait
/// for its time-out otherwise).
///
/// # Errors
/// [`Error::Network`].
pub(super) async fn pod_rules(node: &StartedNode, around: &Surroundings) -> Result<()> {
    let networking = &around.networking;
    let mut rules = PodRules {
        pod_subnets: Vec::new(),
        service_subnets: Vec::<IpNet>::new(),
        uplink: UPLINK.to_owned(),
        fallback: None,
    };
    // Another CNI decides about addresses by itself.
    if around.pod_network {
        rules.pod_subnets = networking.pod_subnet.nets().to_vec();
    }
    // Without kube-proxy somebody else implements Services, possibly where these rules would be in the way.
    if networking.kube_proxy_mode != config::KubeProxyMode::None {
        rules.service_subnets = networking.service_subnet.nets().to_vec();
        let service = rules.service_subnets.first().map(|subnet| service_of_api(*subnet));
        rules.fallback = service.and_then(|service| {
            let Endpoint { ipv4, ipv6, .. } = around.first.as_ref()?;
            let backend = if service.is_ipv4() { ipv4.map(IpAddr::V4) } else { ipv6.map(IpAddr::V6) }?;
            Some((SocketAddr::new(service, HTTPS), SocketAddr::new(backend, API_PORT)))
        });
    }
    Ok(kiln_network::isolate_services(Some(node.netns.as_fd()), &rules).await?)
}

/// Lets the node's pods wait for the name servers of a cluster that has those of kubeadm, behind its kube-proxy.
///
/// # Errors
/// [`Error::File`], [`Error::Service`].
pub(super) fn hold_queries(paths: &Paths, node: &StartedNode, around: &Surroundings) -> Result<()> {
    let networking = &around.networking;
    let services = networking.service_subnet.nets().first();
    let Some(services) = services.filter(|_| networking.kube_proxy_mode != config::KubeProxyMode::None)
    else {
        return Ok(());
    };
    let netns = node.netns.try_clone().map_err(Error::file("keep the node's network namespace"))?;
    let log = paths.cluster(&around.cluster).join("hold.log");
    hold::start(netns, SocketAddr::new(service_of_dns(*services), DNS), &paths.handle(&around.cluster), &log)
}

fn container_spec(
    paths: &Paths,
    plan: &NodePlan,
    around: &Surroundings,
    extra: &config::Node,
    notice: &BootNotice,
) -> ContainerSpec {
    let directory = paths.node(&around.cluster, &plan.name);
    let settings = plan.image.config.config();
    let list = |values: Option<&Vec<String>>| values.cloned().unwrap_or_default();
    let mut args = list(settings.as_ref().and_then(|settings| settings.entrypoint().as_ref()));
    args.extend(list(settings.as_ref().and_then(|settings| settings.cmd().as_ref())));
    let mut env = list(settings.as_ref().and_then(|settings| settings.env().as_ref()));
    env.push(format!("NOTIFY_SOCKET={}", boot::INSIDE));
    env.extend(around.outbound.iter().cloned());
    if plan.role == NodeRole::ControlPlane {
        env.push(format!("KUBECONFIG={ADMIN_CONF}"));
    }
    if let Some(search) = &around.networking.dns_search {
        env.push(format!("KIND_DNS_SEARCH={}", search.join(" ")));
    }
    let bind = |source: &Path, destination: &Path, read_only, propagation| Mount {
        source: source.to_owned(),
        destination: destination.to_owned(),
        read_only,
        propagation,
    };
    // /var cannot be part of the overlay: containerd's own overlays inside need a file system that is not one.
    let mut mounts = vec![
        bind(&directory.join("var"), Path::new("/var"), false, Propagation::None),
        bind(notice.path(), Path::new(boot::INSIDE), false, Propagation::None),
    ];
    let modules = Path::new("/lib/modules");
    if modules.is_dir() {
        mounts.push(bind(modules, modules, true, Propagation::None));
    }
    for mount in &extra.extra_mounts {
        let propagation = match mount.propagation {
            config::MountPropagation::None => Propagation::None,
            config::MountPropagation::HostToContainer => Propagation::HostToContainer,
            config::MountPropagation::Bidirectional => Propagation::Bidirectional,
        };
        mounts.push(bind(&mount.host_path, &mount.container_path, mount.read_only, propagation));
    }
    ContainerSpec {
        id: plan.name.clone(),
        directory: paths.node_run(&around.cluster, &plan.name),
        console: directory.join("console.log"),
        exit: directory.join("exit.json"),
        root: RootFilesystem {
            lowers: plan.layers.clone(),
            upper: directory.join("upper"),
            work: directory.join("work"),
        },
        hostname: plan.name.clone(),
        args,
        env,
        mounts,
        cgroup: cgroup(paths, &around.cluster, &plan.name),
        sysctls: sysctls(&around.network),
    }
}

/// The settings of a node's network namespace.
pub(super) fn sysctls(network: &Network) -> BTreeMap<String, String> {
    let ipv6 = SYSCTLS6.iter().filter(|_| network.ipv6.is_some());
    SYSCTLS.iter().chain(ipv6).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// `/etc/hosts` of a cluster's nodes: all of them by name, with their addresses of the cluster's families.
pub(super) fn hosts_file<'a>(family: config::IpFamily, nodes: impl Iterator<Item = &'a Endpoint>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for endpoint in nodes {
        let ipv4 = endpoint.ipv4.filter(|_| family.has_ipv4()).map(|ip| ip.to_string());
        let ipv6 = endpoint.ipv6.filter(|_| family.has_ipv6()).map(|ip| ip.to_string());
        for address in ipv4.into_iter().chain(ipv6) {
            text.push_str(&format!("{address}\t{}\n", endpoint.node));
        }
    }
    text
}
