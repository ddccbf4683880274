use std::{collections::BTreeSet, os::unix::fs::symlink, path::PathBuf};

use fs_err as fs;
use kiln_runtime::Process;

use super::*;
use crate::state::{ClusterRecord, NodeRecord, NodeRole, Phase, SCHEMA};

const TOKEN: &str = "abcdef.0123456789abcdef";

/// A state root with one cluster that does not run.
struct State {
    directory: tempfile::TempDir,
    paths: Paths,
}

impl State {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let state = Self { directory, paths };
        let record = ClusterRecord {
            schema: SCHEMA,
            name: "c".to_owned(),
            created: "2026-11-24T13:00:00Z".parse().unwrap(),
            image: "kiln/node:v1.34.4".to_owned(),
            kubernetes_version: "v1.34.4".to_owned(),
            network: kiln_network::Network {
                cluster: "c".to_owned(),
                bridge: "kiln-c".to_owned(),
                ipv4: Some("172.30.0.0/24".parse().unwrap()),
                ipv6: None,
                mtu: 1500,
            },
            ports: Vec::new(),
            api: "127.0.0.1:40001".parse().unwrap(),
            phase: Phase::Ready,
            config: serde_json::json!({"patches": [format!("token: {TOKEN}")]}),
        };
        state::save_cluster(&state.paths, &record).unwrap();
        state.write("clusters/c/admin.conf", "client-key-data: secret");
        state
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.paths.state().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A node whose process was of another boot.
    fn node(&self, name: &str, role: NodeRole) {
        let layer = self.paths.state().join("images/layers/aa/fs");
        self.write("images/layers/aa/fs/kind/version", "v1.34.4\n");
        let boot = "00000000-0000-0000-0000-000000000000".to_owned();
        let record = NodeRecord {
            role,
            layers: vec![layer],
            process: Some(Process { pid: 1, start_time: 1, monitor: 1, monitor_start_time: 1, boot }),
            ..NodeRecord::example(name)
        };
        state::save_node(&self.paths, "c", &record).unwrap();
        let write =
            |path: &str, content: &str| self.write(&format!("clusters/c/nodes/{name}/{path}"), content);
        write("console.log", "booted\n");
        write("console.log.1", "booting\n");
        write("kubeadm.log", &format!("kubeadm join --token {TOKEN}\n"));
        write("upper/kind/kubeadm.conf", &format!("token: {TOKEN}\nkind: InitConfiguration\n"));
        write("upper/etc/kubernetes/admin.conf", "secret");
        write("upper/etc/kubernetes/pki/ca.key", "secret");
        write("var/lib/kubelet/pki/kubelet.key", "secret");
        write("var/log/pods/ns_pod_1/app/0.log", "out F hello\n");
        write("var/log/journal/id/system.journal", "binary");
        write("var/log/inspect.json", "not Kiln's");
        let log = self.paths.node("c", name).join("var/log");
        fs::create_dir(log.join("containers")).unwrap();
        symlink("/var/log/pods/ns_pod_1/app/0.log", log.join("containers/pod_ns_app-1.log")).unwrap();
        symlink("/upper/etc/kubernetes/admin.conf", log.join("stolen")).unwrap();
    }

    async fn export(&self) -> (Result<()>, PathBuf) {
        let directory = self.directory.path().join("exported");
        (export(&self.paths, "c", &directory, "kiln v1 linux/amd64").await, directory)
    }
}

fn files(directory: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

#[tokio::test]
async fn of_nodes_that_have_ended_everything_on_the_disk_is_written_but_no_secret() {
    let state = State::new();
    state.node("c-control-plane", NodeRole::ControlPlane);
    state.node("c-external-load-balancer", NodeRole::ExternalLoadBalancer);
    let (exported, directory) = state.export().await;
    exported.unwrap();
    let expected = [
        "c-control-plane/containers/pod_ns_app-1.log",
        "c-control-plane/inspect.json",
        "c-control-plane/journal/id/system.journal",
        "c-control-plane/kubeadm.conf",
        "c-control-plane/kubeadm.log",
        "c-control-plane/kubernetes-version.txt",
        "c-control-plane/pods/ns_pod_1/app/0.log",
        "c-control-plane/serial.log",
        "c-external-load-balancer/serial.log",
        "cluster.json",
        "host.txt",
        "kiln-version.txt",
        "kind-version.txt",
    ];
    assert_eq!(files(&directory), expected.map(str::to_owned).into());
    let read = |path: &str| fs::read_to_string(directory.join(path)).unwrap();
    for file in expected {
        let text = read(file);
        assert!(!text.contains("0123456789abcdef") && !text.contains("secret"), "{file}: {text}");
    }
    assert_eq!(read("kind-version.txt"), "kiln v1 linux/amd64\n");
    assert_eq!(read("c-control-plane/serial.log"), "booting\nbooted\n");
    assert_eq!(read("c-control-plane/kubernetes-version.txt"), "v1.34.4\n");
    assert_eq!(read("c-control-plane/kubeadm.log"), "kubeadm join --token abcdef.****************\n");
    assert_eq!(read("c-control-plane/containers/pod_ns_app-1.log"), "out F hello\n");
    let inspected: serde_json::Value = serde_json::from_str(&read("c-control-plane/inspect.json")).unwrap();
    assert_eq!(inspected[0]["name"], "c-control-plane");
    assert_eq!(inspected[0]["state"], "exited");
    assert_eq!(inspected[0]["record"]["endpoint"]["link"], "kn0a1b2c3d");
}

#[tokio::test]
async fn a_node_that_fails_keeps_nothing_else_from_being_written() {
    let state = State::new();
    state.node("c-control-plane", NodeRole::ControlPlane);
    state.node("c-worker", NodeRole::Worker);
    state.write("clusters/c/nodes/c-worker/node.json", "{");
    let (exported, directory) = state.export().await;
    let error = exported.unwrap_err();
    let Error::ExportLogs { cluster, errors } = &error else { panic!("{error:?}") };
    assert_eq!((cluster.as_str(), errors.len()), ("c", 1));
    assert!(error.to_string().contains("its record of node c-worker"), "{error}");
    for file in ["c-control-plane/inspect.json", "c-worker/serial.log", "c-worker/pods/ns_pod_1/app/0.log"] {
        assert!(directory.join(file).is_file(), "{file}");
    }
}

#[tokio::test]
async fn there_is_nothing_to_export_of_an_unknown_cluster() {
    let state = State::new();
    let directory = state.directory.path().join("exported");
    let error = export(&state.paths, "none", &directory, "").await.unwrap_err();
    assert!(matches!(&error, Error::NoSuchCluster { known, .. } if *known == ["c"]), "{error:?}");
    assert!(!directory.exists());
    assert!(export(&state.paths, "../c", &directory, "").await.is_err());
}
