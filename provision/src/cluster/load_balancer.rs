//! The load balancer in front of several control planes: a node with nothing in it but this program.
//!
//! It knows all control planes from the start, by their addresses, and finds out itself which of them answer.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use kiln_network::Endpoint;
use kiln_runtime::{ContainerSpec, Mount, Process, Propagation, RootFilesystem};
use tokio::net::TcpStream;

use super::{
    blocking::Steps,
    bootstrap::last_lines,
    node::{self, Surroundings},
    plan::API_PORT,
};
use crate::{
    Error, Paths, Result,
    balancer::BalancerConfig,
    service::BALANCE,
    state::{self, NodeRecord, NodeRole},
};

/// A load balancer before it exists.
#[derive(Clone, Debug)]
pub(super) struct BalancerPlan {
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
}

/// Where this program is in the node.
const PROGRAM: &str = "/kiln";

/// What it reads there.
const CONFIG: &str = "etc/kiln/balancer.json";

/// Connections at a time. Each takes two descriptors, of which CI sandboxes grant some thousands.
const CONNECTIONS: usize = 4096;

/// How long connections may go on when it is told to end.
const DRAIN_SECONDS: u64 = 10;

/// How long it may take to listen. It has nothing to do before that.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the load balancer, and returns when it listens.
///
/// # Errors
/// [`Error::Balancer`] when it does not listen, or what making its node says.
pub(super) async fn start(
    paths: &Paths,
    around: &Surroundings,
    plan: &BalancerPlan,
    control_planes: &[Endpoint],
    steps: &Steps,
) -> Result<()> {
    let directory = paths.node(&around.cluster, &plan.name);
    let config = config(around, control_planes);
    write_files(&directory, &config)?;
    let record = NodeRecord {
        schema: state::SCHEMA,
        name: plan.name.clone(),
        role: NodeRole::ExternalLoadBalancer,
        image: format!("kiln {}", env!("CARGO_PKG_VERSION")),
        layers: vec![directory.join("lower")],
        endpoint: plan.endpoint.clone(),
        process: None,
    };
    let spec = container_spec(paths, around, plan)?;
    let (process, _netns) = node::launch(paths, around, record, spec, steps).await?;
    let address = plan.endpoint.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED);
    if listens(&process, SocketAddr::from((address, API_PORT))).await {
        return Ok(());
    }
    let console = fs_err::read_to_string(directory.join("console.log")).unwrap_or_default();
    Err(Error::Balancer { node: plan.name.clone(), console: last_lines(&console, 10) })
}

fn config(around: &Surroundings, control_planes: &[Endpoint]) -> BalancerConfig {
    let family = around.networking.ip_family;
    let mut listen = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, API_PORT))];
    if family.has_ipv6() {
        listen.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, API_PORT)));
    }
    // The API servers listen on all of their nodes' addresses; one each is enough.
    let address = |endpoint: &Endpoint| {
        let (ipv4, ipv6) = (endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6));
        if around.networking.prefers_ipv6() { ipv6.or(ipv4) } else { ipv4.or(ipv6) }
    };
    let backends =
        control_planes.iter().filter_map(address).map(|ip| SocketAddr::new(ip, API_PORT)).collect();
    BalancerConfig { listen, backends, connections: CONNECTIONS, drain_seconds: DRAIN_SECONDS }
}

fn write_files(directory: &Path, config: &BalancerConfig) -> Result<()> {
    let file = directory.join("upper").join(CONFIG);
    let parent = file.parent().unwrap_or(directory);
    for made in [&directory.join("lower"), parent] {
        fs_err::create_dir_all(made).map_err(Error::file("make the load balancer's directory"))?;
    }
    let text = serde_json::to_vec_pretty(config)
        .map_err(|error| Error::file("encode a configuration")(error.into()))?;
    fs_err::write(file, text).map_err(Error::file("write the load balancer's configuration"))
}

fn container_spec(paths: &Paths, around: &Surroundings, plan: &BalancerPlan) -> Result<ContainerSpec> {
    let directory = paths.node(&around.cluster, &plan.name);
    let program = std::env::current_exe().map_err(Error::file("find this program"))?;
    Ok(ContainerSpec {
        id: plan.name.clone(),
        directory: paths.node_run(&around.cluster, &plan.name),
        console: directory.join("console.log"),
        exit: directory.join("exit.json"),
        root: RootFilesystem {
            lowers: vec![directory.join("lower")],
            upper: directory.join("upper"),
            work: directory.join("work"),
        },
        hostname: plan.name.clone(),
        args: vec![PROGRAM.to_owned(), BALANCE.to_owned(), format!("/{CONFIG}")],
        env: Vec::new(),
        mounts: vec![Mount {
            source: program,
            destination: PROGRAM.into(),
            read_only: true,
            propagation: Propagation::None,
        }],
        cgroup: node::cgroup(paths, &around.cluster, &plan.name),
        sysctls: node::sysctls(&around.network),
    })
}

/// Waits until a container listens at the address, or has ended, or the time is up.
pub(super) async fn listens(process: &Process, address: SocketAddr) -> bool {
    let deadline = Instant::now() + TIMEOUT;
    while process.is_alive() && Instant::now() < deadline {
        if TcpStream::connect(address).await.is_ok() {
            return true;
        }
        // A socket in another namespace does not tell when it is there.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[cfg(test)]
mod tests {
    use kiln_network::Network;

    use super::*;
    use crate::config::{IpFamily, Networking};

    fn backends(family: IpFamily) -> Vec<String> {
        let around = Surroundings {
            first: None,
            start: std::sync::Arc::new(crate::cluster::start::Start::Kubeadm { keys: None, leaves: None }),
            cluster: "c".to_owned(),
            network: Network {
                cluster: "c".to_owned(),
                bridge: Network::bridge_name("c"),
                ipv4: Some("172.30.0.0/24".parse().unwrap()),
                ipv6: Some("fd00::/64".parse().unwrap()),
                mtu: 1500,
            },
            hosts: String::new(),
            networking: Networking::new(family),
            pod_network: true,
            outbound: Vec::new(),
        };
        let endpoint = Endpoint {
            node: "c-control-plane".to_owned(),
            link: "kn0".to_owned(),
            mac: [2; 6],
            ipv4: Some(Ipv4Addr::new(172, 30, 0, 2)),
            ipv6: Some("fd00::2".parse().unwrap()),
        };
        config(&around, &[endpoint]).backends.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn backends_are_addressed_in_the_clusters_family() {
        assert_eq!(backends(IpFamily::Ipv4), ["172.30.0.2:6443"]);
        assert_eq!(backends(IpFamily::Dual), ["172.30.0.2:6443"]);
        assert_eq!(backends(IpFamily::Ipv6), ["[fd00::2]:6443"]);
    }
}
