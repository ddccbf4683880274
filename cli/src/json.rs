//! What listings print with `-o json`: an array of one of these objects, indented, with a newline at the end. `-o yaml` is
//! the same as YAML, with the fields sorted by name.
//!
//! These are interfaces, described in `docs/output.md`: fields are added, never renamed, removed or given another type. A
//! value that is not known, or does not apply, is `null`.

use std::collections::BTreeMap;

use kiln_provision::{
    bench::{Boot, Spread},
    patch,
};
use serde::Serialize;

use crate::{arguments::Format, failure::Failure, shell::Shell};

/// An element of `get clusters -o json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Cluster {
    /// The cluster's name, such as `kind`.
    pub(crate) name: String,
    /// The name of its context in a kubeconfig, such as `kind-kind`.
    pub(crate) context: String,
    /// The names of its nodes.
    pub(crate) nodes: Vec<String>,
    /// `creating`, `ready`, `deleting` or `broken`.
    pub(crate) state: &'static str,
    /// Why it is broken.
    pub(crate) problem: Option<String>,
    /// When its creation began, as RFC 3339 has it.
    pub(crate) created: Option<String>,
    /// The version of Kubernetes, such as `v1.34.4`.
    pub(crate) kubernetes_version: Option<String>,
    /// The image of its first node.
    pub(crate) image: Option<String>,
    /// Where its API answers on this host, such as `https://127.0.0.1:40001`.
    pub(crate) api: Option<String>,
    /// Its bridge on this host.
    pub(crate) bridge: Option<String>,
    /// The IPv4 subnet of its nodes.
    pub(crate) ipv4: Option<String>,
    /// The IPv6 subnet of its nodes.
    pub(crate) ipv6: Option<String>,
}

/// An element of `get nodes -o json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    /// The node's name, such as `kind-control-plane`.
    pub(crate) name: String,
    /// The name of its cluster.
    pub(crate) cluster: String,
    /// `control-plane`, `worker` or `external-load-balancer`.
    pub(crate) role: String,
    /// `created`, `running` or `exited`.
    pub(crate) state: &'static str,
    /// The process on this host that is the node's init, while it runs.
    pub(crate) pid: Option<i32>,
    /// The node's IPv4 address.
    pub(crate) ipv4: Option<String>,
    /// The node's IPv6 address.
    pub(crate) ipv6: Option<String>,
    /// The image it was made from.
    pub(crate) image: String,
    /// How the node's init ended, when it has.
    pub(crate) exit: Option<Exit>,
    /// The ports of the host that lead to it.
    pub(crate) ports: Vec<Port>,
}

/// An element of `pool ls -o json`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Standby {
    /// The name of the cluster that it may become.
    pub(crate) name: String,
    /// Tells those of one name apart.
    pub(crate) number: u32,
    /// `frozen`, `changing` or `broken`.
    pub(crate) state: &'static str,
    /// The version of Kubernetes in it.
    pub(crate) kubernetes_version: Option<String>,
    /// The image it was made from.
    pub(crate) image: Option<String>,
    /// The names of its nodes.
    pub(crate) nodes: Vec<String>,
    /// When it was frozen, as RFC 3339 has it.
    pub(crate) frozen: Option<String>,
    /// How long it took to boot.
    pub(crate) boot_seconds: Option<f64>,
    /// Memory that its processes hold, page cache included.
    pub(crate) memory_bytes: u64,
    /// What would be free on the disk without it.
    pub(crate) disk_bytes: u64,
}

/// An element of `registry ls -o json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Registry {
    /// The registry's name.
    pub(crate) name: String,
    /// `running`, `exited`, `changing` or `broken`.
    pub(crate) state: &'static str,
    /// By which images are pushed from this host and named by pods, such as `localhost:5001`.
    pub(crate) host: Option<String>,
    /// By which pods can name them, too, such as `kiln-registry:5000`.
    pub(crate) node_host: Option<String>,
    /// Where nodes and pods reach it.
    pub(crate) address: Option<String>,
    /// What it is a cache of, as a URL.
    pub(crate) proxy: Option<String>,
    /// The image that it runs.
    pub(crate) image: Option<String>,
    /// When it was made or started again, as RFC 3339 has it.
    pub(crate) created: Option<String>,
    /// How its process ended, when it has.
    pub(crate) exit: Option<Exit>,
}

/// A port of the host that leads to a node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Port {
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// The host's address; `0.0.0.0` or `::` for all of them.
    pub(crate) listen: String,
    /// The host's port.
    pub(crate) host_port: u16,
    /// The node's port.
    pub(crate) container_port: u16,
}

/// What `create cluster --dry-run -o json` prints, in an array of one.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedCluster {
    /// The cluster's name.
    pub(crate) name: String,
    /// The name of its context in the kubeconfig.
    pub(crate) context: String,
    /// The bridge on this host.
    pub(crate) bridge: String,
    /// The IPv4 subnet of the nodes, as it would be chosen now.
    pub(crate) ipv4: Option<String>,
    /// The IPv6 subnet of the nodes, as it would be chosen now.
    pub(crate) ipv6: Option<String>,
    /// The addresses of pods, separated by a comma where there are two.
    pub(crate) pod_subnet: String,
    /// The addresses of Services, separated by a comma where there are two.
    pub(crate) service_subnet: String,
    /// The host's address that the API would answer on.
    pub(crate) api_address: String,
    /// The host's port for it; `null` where a free one would be chosen.
    pub(crate) api_port: Option<u16>,
    /// The kubeconfig that would be written.
    pub(crate) kubeconfig: String,
    /// The nodes.
    pub(crate) nodes: Vec<PlannedNode>,
}

/// A node that would be made.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedNode {
    /// The node's name.
    pub(crate) name: String,
    /// `control-plane`, `worker` or `external-load-balancer`.
    pub(crate) role: String,
    /// The image; `null` for a load balancer, which needs none.
    pub(crate) image: Option<String>,
    /// The version of Kubernetes in it; `null` where the image was never unpacked.
    pub(crate) kubernetes_version: Option<String>,
    /// The IPv4 address.
    pub(crate) ipv4: Option<String>,
    /// The IPv6 address.
    pub(crate) ipv6: Option<String>,
    /// The ports of the host that would lead to it.
    pub(crate) ports: Vec<PlannedPort>,
    /// The paths of the host that it would see.
    pub(crate) mounts: Vec<PlannedMount>,
}

/// A port of the host that would lead to a node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedPort {
    /// `tcp`, `udp` or `sctp`.
    pub(crate) protocol: String,
    /// The host's address; `0.0.0.0` or `::` for all of them.
    pub(crate) listen: String,
    /// The host's port; `null` where a free one would be chosen.
    pub(crate) host_port: Option<u16>,
    /// The node's port.
    pub(crate) container_port: u16,
}

/// A path of the host that a node would see.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedMount {
    /// The path on the host.
    pub(crate) host_path: String,
    /// The path in the node.
    pub(crate) container_path: String,
    /// Whether the node may only read it.
    pub(crate) read_only: bool,
}

/// An element of what `delete cluster --dry-run -o json` prints: something that would be removed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Removal {
    /// The cluster that it belongs to.
    pub(crate) cluster: String,
    /// `kubeconfig`, `node`, `bridge` or `directory`.
    pub(crate) kind: &'static str,
    /// The name or path.
    pub(crate) name: String,
    /// What else there is to say, for people.
    pub(crate) detail: String,
}

/// How a node ended.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Exit {
    /// The exit code, when init left by itself.
    pub(crate) code: Option<i32>,
    /// The number of the signal that killed it, otherwise.
    pub(crate) signal: Option<i32>,
    /// Processes of the node that the kernel killed for want of memory, over the node's whole life.
    pub(crate) oom_kills: u64,
    /// When it ended, in seconds since 1970.
    pub(crate) finished: u64,
}

/// An element of `top -o json`. What a node that does not run would use is `null`.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Usage {
    /// The node's name.
    pub(crate) node: String,
    /// The name of its cluster.
    pub(crate) cluster: String,
    /// `created`, `running` or `exited`.
    pub(crate) state: &'static str,
    /// Processors that it kept busy, on average over the interval.
    pub(crate) cpu_cores: Option<f64>,
    /// Memory that cannot be taken from it at once, as kubelet counts, in bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Memory with all of the page cache that it has filled, in bytes.
    pub(crate) memory_with_cache_bytes: Option<u64>,
    /// Its processes and threads.
    pub(crate) pids: Option<u64>,
    /// Bytes on the disk that are its own, not shared with the image store.
    pub(crate) disk_bytes: u64,
}

/// An element of `df -o json`. What clusters, the store and the build cache take adds up to everything.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Disk {
    /// `cluster`, `node`, `store`, `blobs`, `layer` or `build-cache`.
    pub(crate) kind: &'static str,
    /// The name of the cluster or node, the path of the store, the digest of the layer's archive.
    pub(crate) name: Option<String>,
    /// The cluster of a node.
    pub(crate) cluster: Option<String>,
    /// Bytes that it takes and that nothing else has.
    pub(crate) disk_bytes: u64,
    /// Of a node or cluster: bytes of the store that it uses.
    pub(crate) shared_bytes: Option<u64>,
    /// How many blobs there are.
    pub(crate) count: Option<u64>,
    /// The nodes whose root lies on the layer.
    pub(crate) nodes: Option<Vec<String>>,
}

/// What `trace show -o json` prints, in an array of one.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Trace {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// When its creation began, as RFC 3339 has it.
    pub(crate) began: String,
    /// Spans and marks, by their beginning.
    pub(crate) events: Vec<TraceEvent>,
    /// Processor time of each component until the trace was kept.
    pub(crate) components: Vec<TraceComponent>,
    /// What the end had to wait for, from the beginning on.
    pub(crate) critical_path: Vec<TraceSegment>,
}

/// A span or a mark.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct TraceEvent {
    /// The node; `null` for the whole cluster.
    pub(crate) node: Option<String>,
    /// What it was.
    pub(crate) name: String,
    /// `phase`, `step`, `wait`, `exec`, `kubeadm` or `mark`.
    pub(crate) kind: &'static str,
    /// When it began, in seconds from the beginning.
    pub(crate) start_seconds: f64,
    /// When it ended; as the beginning for a mark.
    pub(crate) end_seconds: f64,
}

/// The processor time of a component.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct TraceComponent {
    /// The node; `null` for Kiln's own process.
    pub(crate) node: Option<String>,
    /// A service, or the workload of pods.
    pub(crate) component: String,
    /// Seconds of one processor.
    pub(crate) cpu_seconds: f64,
}

/// A part of the critical path.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct TraceSegment {
    /// The node; `null` for the whole cluster.
    pub(crate) node: Option<String>,
    /// What was done or waited for, for people.
    pub(crate) what: String,
    /// Whether it was waited for.
    pub(crate) waited: bool,
    /// When it began, in seconds from the beginning.
    pub(crate) start_seconds: f64,
    /// When it ended.
    pub(crate) end_seconds: f64,
}

/// An element of what `bench boot -o json` prints: the boots of one tool.
#[derive(Debug, Default, Serialize)]
pub(crate) struct BenchSeries {
    /// `kiln` or `kind`.
    pub(crate) tool: String,
    /// The image of the nodes.
    pub(crate) image: String,
    /// How many nodes there were.
    pub(crate) nodes: usize,
    /// Every boot.
    pub(crate) runs: Vec<Boot>,
    /// Least, middle and largest value of each figure; `null` for one that could not be had.
    pub(crate) summary: BTreeMap<&'static str, Option<Spread>>,
}

/// An element of `images ls -o json`. With `--host`, `node` is `null`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    /// The node that has the image.
    pub(crate) node: Option<String>,
    /// The image's full name, such as `registry.k8s.io/pause:3.10`.
    pub(crate) name: String,
    /// The digest of its manifest or index, such as `sha256:…`.
    pub(crate) digest: String,
    /// The size of what a registry would send for it, in bytes.
    pub(crate) size: u64,
    /// Bytes out of `size` that other images of the store have in common with it. With `--host` only, as what follows.
    pub(crate) shared_size: Option<u64>,
    /// Bytes on the disk of its unpacked layers, shared ones included.
    pub(crate) unpacked_size: Option<u64>,
    /// The clusters that were made from it.
    pub(crate) clusters: Option<Vec<String>>,
}

/// An element of `images inspect -o json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct InspectedImage {
    /// The image's full name.
    pub(crate) name: String,
    /// The digest of its manifest for this host.
    pub(crate) digest: String,
    /// The size of what a registry would send for it, in bytes.
    pub(crate) size: u64,
    /// The operating system it is for.
    pub(crate) os: String,
    /// The architecture it is for, such as `amd64`.
    pub(crate) architecture: String,
    /// When it was made, as it says itself.
    pub(crate) created: Option<String>,
    /// The program and its fixed arguments.
    pub(crate) entrypoint: Vec<String>,
    /// Default arguments after the entry point's.
    pub(crate) cmd: Vec<String>,
    /// The environment as `NAME=VALUE`.
    pub(crate) env: Vec<String>,
    /// Labels by their names.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it is made of, bottom first.
    pub(crate) layers: Vec<Layer>,
    /// The clusters that were made from it.
    pub(crate) clusters: Vec<String>,
}

/// A layer of an image.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Layer {
    /// The digest of the layer as stored.
    pub(crate) digest: String,
    /// The digest of its uncompressed archive.
    pub(crate) diff_id: String,
    /// What kind of archive it is.
    pub(crate) media_type: String,
    /// Bytes as stored.
    pub(crate) size: u64,
    /// Whether it is unpacked on this host.
    pub(crate) unpacked: bool,
}

/// An element of `images verify -o json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Damage {
    /// `image`, `blob` or `layer`.
    pub(crate) kind: &'static str,
    /// The image's name, or the digest.
    pub(crate) name: String,
    /// What is wrong, for people.
    pub(crate) problem: String,
}

/// An element of `doctor -o json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was checked, unique in the list.
    pub(crate) name: &'static str,
    /// `ok`, `warning` or `problem`.
    pub(crate) status: &'static str,
    /// What was found.
    pub(crate) detail: String,
    /// What can be done about it.
    pub(crate) cure: Option<String>,
}

/// Prints a listing for programs: as YAML if that was asked for, else as JSON.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn print<T: Serialize>(shell: &Shell, format: Format, list: &[T]) -> Result<(), Failure> {
    shell.result(&render(format, list)?)
}

/// What [`print`] prints.
///
/// # Errors
/// When a value has no such form, which none of the types here is without.
pub(crate) fn render<T: Serialize>(format: Format, list: &[T]) -> Result<String, Failure> {
    let failed = |error: serde_json::Error| Failure::from_error(&error);
    if format == Format::Yaml {
        return Ok(patch::emit([&serde_json::to_value(list).map_err(failed)?]));
    }
    let mut text = serde_json::to_string_pretty(list).map_err(failed)?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_are_null() {
        let node = Node {
            name: String::from("kind-worker"),
            cluster: String::from("kind"),
            role: String::from("worker"),
            state: "running",
            pid: Some(7),
            ipv4: Some(String::from("172.30.0.3")),
            ipv6: None,
            image: String::from("kiln/node:v1.34.4"),
            exit: None,
            ports: vec![Port {
                protocol: String::from("tcp"),
                listen: String::from("127.0.0.1"),
                host_port: 8080,
                container_port: 80,
            }],
        };
        let expected = "[\n  {\n    \"name\": \"kind-worker\",\n    \"cluster\": \"kind\",\n    \"role\": \"worker\",\n    \
            \"state\": \"running\",\n    \"pid\": 7,\n    \"ipv4\": \"172.30.0.3\",\n    \"ipv6\": null,\n    \
            \"image\": \"kiln/node:v1.34.4\",\n    \"exit\": null,\n    \"ports\": [\n      {\n        \
            \"protocol\": \"tcp\",\n        \"listen\": \"127.0.0.1\",\n        \"host_port\": 8080,\n        \
            \"container_port\": 80\n      }\n    ]\n  }\n]\n";
        assert_eq!(render(Format::Json, &[node]).expect("plain data"), expected);
    }

    #[test]
    fn yaml_is_text_where_json_is() {
        let words =
            ["y", "yes", "on", "No", "null", "~", "1e3", "0x1f", "1:30", "2026-11-24", "", "a: b", "c\n"];
        let checks = words.map(|word| Check { name: "a", status: "ok", detail: word.to_owned(), cure: None });
        let text = render(Format::Yaml, &checks).expect("plain data");
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("detail: "));
        for (line, word) in lines.zip(words) {
            assert_eq!(line, format!("{word:?}"), "quoted, lest it be read as something else");
        }
        insta::assert_snapshot!(
            render(Format::Yaml, &checks[..1]).expect("plain data"),
            @r#"
        - cure: null
          detail: "y"
          name: a
          status: ok
        "#
        );
    }

    #[test]
    fn every_field_is_documented() {
        let documented = include_str!("../../docs/output.md");
        for value in [
            serde_json::to_value(Cluster::default()),
            serde_json::to_value(Node::default()),
            serde_json::to_value(Port::default()),
            serde_json::to_value(Exit::default()),
            serde_json::to_value(Image::default()),
            serde_json::to_value(InspectedImage::default()),
            serde_json::to_value(Layer::default()),
            serde_json::to_value(Damage::default()),
            serde_json::to_value(Check::default()),
            serde_json::to_value(PlannedCluster::default()),
            serde_json::to_value(PlannedNode::default()),
            serde_json::to_value(PlannedPort::default()),
            serde_json::to_value(PlannedMount::default()),
            serde_json::to_value(Removal::default()),
            serde_json::to_value(Trace::default()),
            serde_json::to_value(TraceEvent::default()),
            serde_json::to_value(TraceComponent::default()),
            serde_json::to_value(TraceSegment::default()),
            serde_json::to_value(BenchSeries::default()),
            serde_json::to_value(Boot::default()),
        ] {
            for field in value.expect("plain data").as_object().expect("an object").keys() {
                assert!(documented.contains(&format!("`{field}`")), "{field}");
            }
        }
    }

    #[test]
    fn an_empty_listing_is_an_array() {
        for format in [Format::Json, Format::Yaml] {
            assert_eq!(render::<Cluster>(format, &[]).expect("plain data"), "[]\n");
        }
    }
}
