//! What listings print with `-o json`: an array of one of these objects, indented, with a newline at the end.
//!
//! These are interfaces: fields are added, never renamed, removed or given another type. A value that is not known,
//! or does not apply, is `null`.

use serde::Serialize;

use crate::{failure::Failure, shell::Shell};

/// An element of `get clusters -o json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cluster {
    /// The cluster's name, such as `kind`.
    pub(crate) name: String,
    /// The name of its context in a kubeconfig, such as `kind-kind`.
    pub(crate) context: String,
    /// The names of its nodes.
    pub(crate) nodes: Vec<String>,
}

/// An element of `get nodes -o json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
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

/// A port of the host that leads to a node.
#[derive(Debug, PartialEq, Eq, Serialize)]
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

/// How a node ended.
#[derive(Debug, PartialEq, Eq, Serialize)]
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

/// An element of `images ls -o json`. With `--host`, `node` is `null`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    /// The node that has the image.
    pub(crate) node: Option<String>,
    /// The image's full name, such as `registry.k8s.io/pause:3.10`.
    pub(crate) name: String,
    /// The digest of its manifest or index, such as `sha256:…`.
    pub(crate) digest: String,
    /// The size of what a registry would send for it, in bytes.
    pub(crate) size: u64,
}

/// An element of `doctor -o json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
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

/// Prints a listing.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn print<T: Serialize>(shell: &Shell, list: &[T]) -> Result<(), Failure> {
    shell.result(&render(list)?)
}

fn render<T: Serialize>(list: &[T]) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(list).map_err(|error| Failure::from_error(&error))?;
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
        assert_eq!(render(&[node]).expect("plain data"), expected);
    }

    #[test]
    fn an_empty_listing_is_an_array() {
        assert_eq!(render::<Cluster>(&[]).expect("plain data"), "[]\n");
    }
}
