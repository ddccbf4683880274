//! A running cluster, by its kubectl and by plain connections.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::Kiln;

/// The image that every node brings along.
pub const BUSYBOX: &str = "docker.io/library/busybox:stable";

/// The name of the Service that every cluster has.
pub const API_SERVICE: &str = "kubernetes.default.svc.cluster.local";

/// A cluster by name.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    kiln: &'a Kiln,
    name: &'a str,
}

impl<'a> Cluster<'a> {
    /// The cluster of this name, there or not.
    #[must_use]
    pub fn new(kiln: &'a Kiln, name: &'a str) -> Self {
        Self { kiln, name }
    }

    /// Runs a command in a pod to its end, removes the pod and returns what it wrote.
    ///
    /// Not by `kubectl run -i --rm`: when the command ends before kubectl has attached, its output is lost.
    #[track_caller]
    pub fn run_pod(self, command: &[&str]) -> String {
        self.run_pod_with("{}", command)
    }

    /// As [`Cluster::run_pod`], on a certain node.
    #[track_caller]
    pub fn run_pod_on(self, node: &str, command: &[&str]) -> String {
        self.run_pod_with(&format!(r#"{{"spec":{{"nodeName":"{node}"}}}}"#), command)
    }

    /// What a pod is answered at an address, on a certain node or anywhere. It asks again for half a minute: a new Service is
    /// known to the name servers, and to every node's rules, only after a while.
    #[track_caller]
    pub fn fetch(self, node: Option<&str>, url: &str) -> String {
        let script = format!("until timeout 5 wget -qO- {url}; do sleep 0.2; done");
        let command = ["timeout", "30", "sh", "-c", &script];
        match node {
            Some(node) => self.run_pod_on(node, &command),
            None => self.run_pod(&command),
        }
    }

    /// The first address of a name, as a pod learns it on a certain node or anywhere. It asks again for half a minute: a
    /// node's rules may know the name servers later than the API does.
    #[track_caller]
    pub fn resolve(self, node: Option<&str>, name: &str) -> String {
        let script = format!("until nslookup -type=a {name}; do sleep 0.2; done");
        let command = ["timeout", "30", "sh", "-c", &script];
        let answer = match node {
            Some(node) => self.run_pod_on(node, &command),
            None => self.run_pod(&command),
        };
        // The first lines are about the server.
        let lines = answer.lines().skip_while(|line| !line.starts_with("Name:"));
        let mut addresses = lines.filter_map(|line| line.strip_prefix("Address: "));
        addresses.next().unwrap_or_else(|| panic!("no address: {answer}")).to_owned()
    }

    #[track_caller]
    fn run_pod_with(self, overrides: &str, command: &[&str]) -> String {
        const POD: &str = "probe";
        let image = format!("--image={BUSYBOX}");
        let overrides = format!("--overrides={overrides}");
        let mut args =
            vec!["run", POD, "--restart=Never", &image, "--image-pull-policy=IfNotPresent", &overrides, "--"];
        args.extend(command);
        let kubectl = |args: &[&str]| self.kiln.kubectl(self.name, args);
        let _ = kubectl(&args).succeeded();
        let pod = format!("pod/{POD}");
        let ended =
            ["wait", "--for=jsonpath={.status.containerStatuses[0].state.terminated}", &pod, "--timeout=60s"];
        let waited = kubectl(&ended);
        let output = kubectl(&["logs", POD]);
        let pod = self.json(&["get", "pod", POD]);
        let _ = kubectl(&["delete", "pod", POD, "--grace-period=0", "--force"]).succeeded();
        let code = &pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"];
        assert!(*code == 0, "exit code {code}\n{}\n{}", waited.report(), output.report());
        output.succeeded().stdout()
    }

    /// What kubectl prints with `-o json`.
    #[track_caller]
    pub fn json(self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let finished = self.kiln.kubectl(self.name, &all).succeeded();
        serde_json::from_slice(finished.bytes())
            .unwrap_or_else(|error| panic!("{error}:\n{}", finished.report()))
    }

    /// The address that a node has registered with.
    #[track_caller]
    pub fn node_address(self, node: &str) -> IpAddr {
        let node = self.json(&["get", "node", node]);
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let internal = addresses.filter(|address| address["type"] == "InternalIP");
        let mut parsed = internal.filter_map(|address| address["address"].as_str()?.parse().ok());
        parsed.next().unwrap_or_else(|| panic!("no InternalIP: {node}"))
    }
}

/// The objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// Whether a condition of an object's status is true.
#[must_use]
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// What an HTTP server answers, head and all.
///
/// # Panics
/// When it does not.
#[track_caller]
#[must_use]
pub fn http_get(address: SocketAddr) -> String {
    let patience = Duration::from_secs(10);
    let deadline = Instant::now() + patience;
    let mut stream = loop {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => break stream,
            // kube-proxy brings changed endpoints into its rules at most once a second, and tells nobody.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("no connection to {address}: {error}"),
        }
    };
    stream.set_read_timeout(Some(patience)).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap_or_else(|error| panic!("{address}: {error}"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{address}: {error}"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_found() {
        let pod = serde_json::json!({ "status": { "conditions": [
            { "type": "Ready", "status": "False" }, { "type": "Initialized", "status": "True" },
        ] } });
        assert!(has_condition(&pod, "Initialized"));
        assert!(!has_condition(&pod, "Ready"));
        assert!(!has_condition(&Value::Null, "Ready"));
    }
}
