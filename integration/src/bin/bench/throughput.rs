//! How much TCP carries between pods of different workers, and from the host to a NodePort, beside a plain veth pair.

use std::net::{IpAddr, SocketAddr};

use kiln_integration::{Cluster, Finished, Kiln, cluster::BUSYBOX, kiln::SHORT};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Result,
    plain::Plain,
    report,
    site::{CLUSTER, Site},
    transfer::{self, FILE, PORT, SIZE},
};

const SERVER: &str = "server";
const SERVER_NODE: &str = "it-bench-worker";
const CLIENT: &str = "client";
const CLIENT_NODE: &str = "it-bench-worker2";

/// The seconds that every transfer took, by its way.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Throughput {
    /// From a pod to a pod of another worker; received by wget.
    pub(crate) pod_seconds: Vec<f64>,
    /// From the plain pair's other end to the host; received by wget.
    pub(crate) plain_wget_seconds: Vec<f64>,
    /// From a pod through a port of its node to the host; received by the benchmark.
    pub(crate) node_port_seconds: Vec<f64>,
    /// From the plain pair's other end to the host; received by the benchmark.
    pub(crate) plain_seconds: Vec<f64>,
}

impl Throughput {
    /// Creates a cluster with two workers, has everything transferred so many times and deletes the cluster.
    pub(crate) fn measure(site: &Site, times: u16) -> Result<Self> {
        site.with_workers(|| in_cluster(site, times))
    }
}

fn in_cluster(site: &Site, times: u16) -> Result<Throughput> {
    let kiln = site.kiln();
    let pods = serde_json::to_vec(&pods())?;
    succeeded(&kiln.kubectl_with(CLUSTER, &["apply", "-f", "-"], &pods, SHORT))?;
    kubectl(kiln, &["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;

    let cluster = Cluster::new(kiln, CLUSTER);
    let pod = SocketAddr::new(pod_address(cluster)?, PORT);
    let node_port = SocketAddr::new(cluster.node_address(SERVER_NODE), node_port(cluster)?);
    let busybox = kubectl(kiln, &["exec", SERVER, "--", "cat", "/bin/busybox"])?;
    let plain = Plain::open(&busybox, site.directory())?;
    transfer::wait_for(node_port)?;

    // The first round is not counted: it fills the page cache. The ways take turns, so that a busy moment of the host is
    // not all one's.
    let mut throughput = Throughput::default();
    for number in 0..=times {
        let url = transfer::url(pod);
        let fetched =
            kiln.kubectl(CLUSTER, &["exec", CLIENT, "--", "time", "-p", "wget", "-qO", "/dev/null", &url]);
        succeeded(&fetched)?;
        let by_wget = (transfer::seconds_of_time(fetched.stderr())?, plain.fetch()?);
        let by_us = (transfer::receive(node_port)?, transfer::receive(plain.address())?);
        if number > 0 {
            throughput.pod_seconds.push(by_wget.0);
            throughput.plain_wget_seconds.push(by_wget.1);
            throughput.node_port_seconds.push(by_us.0);
            throughput.plain_seconds.push(by_us.1);
            report::tell(&format!(
                "transfer {number} of {times}: pod {:.2} s, plain {:.2}; NodePort {:.2}, plain {:.2}",
                by_wget.0, by_wget.1, by_us.0, by_us.1
            ));
        }
    }
    Ok(throughput)
}

/// A server on one worker with a port of all nodes that leads to it, and a pod on the other that can ask.
fn pods() -> Value {
    let serve = format!("truncate -s {SIZE} /pages/{FILE} && exec httpd -f -p {PORT} -h /pages");
    let pod = |name: &str, node: &str, container: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [container],
                "volumes": [{ "name": "pages", "emptyDir": {} }],
            },
        })
    };
    let server = json!({
        "name": SERVER,
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", serve],
        "readinessProbe": { "tcpSocket": { "port": PORT }, "periodSeconds": 1 },
        "volumeMounts": [{ "name": "pages", "mountPath": "/pages" }],
    });
    let client = json!({
        "name": CLIENT,
        "image": BUSYBOX,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "86400"],
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": SERVER },
        "spec": { "type": "NodePort", "selector": { "app": SERVER }, "ports": [{ "port": PORT }] },
    });
    let items = [pod(SERVER, SERVER_NODE, server), pod(CLIENT, CLIENT_NODE, client), service];
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn pod_address(cluster: Cluster<'_>) -> Result<IpAddr> {
    let pod = cluster.json(&["get", "pod", SERVER]);
    let address = pod["status"]["podIP"].as_str().and_then(|address| address.parse().ok());
    address.ok_or_else(|| format!("the server has no address: {pod}").into())
}

fn node_port(cluster: Cluster<'_>) -> Result<u16> {
    let service = cluster.json(&["get", "service", SERVER]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| port.try_into().ok());
    port.ok_or_else(|| format!("the Service has no port of the nodes: {service}").into())
}

fn kubectl(kiln: &Kiln, args: &[&str]) -> Result<Vec<u8>> {
    let finished = kiln.kubectl(CLUSTER, args);
    succeeded(&finished)?;
    Ok(finished.bytes().to_vec())
}

fn succeeded(finished: &Finished) -> Result<()> {
    if finished.code() == 0 { Ok(()) } else { Err(finished.report().into()) }
}
