//! A control plane and two workers: pods of different nodes reach each other, under their own addresses, and images are loaded
//! into all of them at once.

use std::{os::unix::fs::MetadataExt, time::Duration};

use kiln_integration::{
    Cluster, Fixture, Steps,
    cluster::{BUSYBOX, has_condition, items},
    disk, fixture, loading,
};
use serde_json::json;

const CLUSTER: &str = "it-many";
const NODES: [&str; 3] = ["it-many-control-plane", "it-many-worker", "it-many-worker2"];

#[test]
fn workers_join_and_their_pods_reach_each_other() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    if steps.step("create waits until all nodes are ready", || create(&fixture)) {
        nodes_are_as_configured(&fixture, &mut steps);
        pods_reach_each_other(&fixture, &mut steps);
        steps.step("a node that gets another pod range is reached there", || range_changes(&fixture));
        loading::into_nodes(&fixture, CLUSTER, NODES, &mut steps);
        shared_files_survive(&fixture, &mut steps);
        steps.step("delete removes all nodes", || {
            let finished = fixture.delete(CLUSTER);
            for node in NODES {
                assert!(finished.stderr().contains(node), "{}", finished.report());
            }
        });
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

fn create(fixture: &Fixture) {
    let config = fixture::data("workers.yaml");
    let config = config.to_str().expect("a source path is text");
    let finished = fixture.create(CLUSTER, &["--config", config, "--wait", "5m"]).succeeded();
    assert!(finished.stderr().contains("Joining worker nodes"), "{}", finished.report());
    assert!(finished.stderr().contains("Ready after"), "{}", finished.report());
}

fn nodes_are_as_configured(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    steps.step("get nodes lists all of them", || {
        let listed = kiln.run(&["get", "nodes", "--name", CLUSTER]).succeeded().stdout();
        assert_eq!(listed.lines().collect::<Vec<_>>(), NODES);
    });
    steps.step("all are ready, and keep their roles and labels", || {
        let nodes = cluster.json(&["get", "nodes"]);
        assert_eq!(items(&nodes).filter(|node| has_condition(node, "Ready")).count(), 3, "{nodes}");
        let control_plane = cluster.json(&["get", "node", NODES[0]]);
        let taints = control_plane["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let tainted = taints.iter().any(|taint| taint["key"] == "node-role.kubernetes.io/control-plane");
        assert!(tainted, "with workers, a control plane is left alone: {control_plane}");
        let labelled = cluster.json(&["get", "nodes", "-l", "tier=back"]);
        let names: Vec<_> = items(&labelled).map(|node| node["metadata"]["name"].clone()).collect();
        assert_eq!(names, [json!(NODES[2])]);
    });
    steps.step("each node has a pod range of its own", || {
        let nodes = cluster.json(&["get", "nodes"]);
        let mut ranges: Vec<_> = items(&nodes).map(|node| node["spec"]["podCIDR"].to_string()).collect();
        ranges.sort();
        ranges.dedup();
        assert_eq!(ranges.len(), 3, "{ranges:?}");
    });
    steps.step("any node can be entered", || {
        for node in NODES {
            let name = kiln.run(&["exec", node, "--", "hostname"]).succeeded().stdout();
            assert_eq!(name.trim(), node);
        }
    });
}

fn pods_reach_each_other(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    steps.step("a pod of one worker answers another's, and sees its address", || {
        let image = format!("--image={BUSYBOX}");
        let on_first = on(NODES[1]);
        let mut args = vec!["run", "server", &image, "--image-pull-policy=IfNotPresent", &on_first];
        args.extend(["--port=8080", "--expose", "--", "httpd", "-f", "-vv", "-p", "8080", "-h", "/etc"]);
        let _ = kiln.kubectl(CLUSTER, &args).succeeded();
        let ready = ["wait", "--for=condition=Ready", "pod/server", "--timeout=60s"];
        let _ = kiln.kubectl(CLUSTER, &ready).succeeded();
        let server = cluster.json(&["get", "pod", "server"]);
        let address = server["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned();

        let script = format!("hostname -i; timeout 10 wget -qO- http://{address}:8080/passwd");
        let told = cluster.run_pod_on(NODES[2], &["sh", "-c", &script]);
        let own = told.lines().next().expect("the pod tells its address").trim().to_owned();
        assert!(told.contains("root:x:0:0"), "{told}");
        assert_ne!(own, address);
        let log = kiln.kubectl(CLUSTER, &["logs", "server"]).succeeded().stdout();
        assert!(log.contains(&own), "the server saw another address than {own}:\n{log}");
    });
    steps.step("a Service answers from the other worker", || {
        let answer = cluster.fetch(Some(NODES[2]), "http://server:8080/passwd");
        assert!(answer.contains("root:x:0:0"), "{answer}");
    });
}

/// A node that registers anew is given the next free range; the agents bring it into the other nodes' routes.
fn range_changes(fixture: &Fixture) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    let node = NODES[2];
    let range = || cluster.json(&["get", "node", node])["spec"]["podCIDR"].as_str().map(str::to_owned);
    let agents = ["rollout", "status", "-n", "kube-system", "daemonset/kiln-network", "--timeout=60s"];
    let _ = kiln.kubectl(CLUSTER, &agents).succeeded();
    let before = range().expect("it has a range");
    let has_range = |node: &str| {
        let given = ["wait", "--for=jsonpath={.spec.podCIDR}", &format!("node/{node}"), "--timeout=60s"];
        let _ = kiln.kubectl(CLUSTER, &given).succeeded();
    };
    let _ = kiln.kubectl(CLUSTER, &["delete", "node", node]).succeeded();
    // The controller hands out the next range that is free, which may be the one that has just become so: somebody else takes it.
    let taker = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "taker" } }).to_string();
    let created =
        kiln.kubectl_with(CLUSTER, &["create", "-f", "-"], taker.as_bytes(), Duration::from_secs(60));
    let _ = created.succeeded();
    has_range("taker");
    let _ = kiln.run(&["exec", node, "--", "systemctl", "restart", "kubelet"]).succeeded();
    let created = ["wait", "--for=create", &format!("node/{node}"), "--timeout=60s"];
    let _ = kiln.kubectl(CLUSTER, &created).succeeded();
    has_range(node);
    let _ = kiln.kubectl(CLUSTER, &["delete", "node", "taker"]).succeeded();
    let after = range().expect("it has a range");
    assert_ne!(before, after);
    let _ = kiln.kubectl(CLUSTER, &agents).succeeded();
    let ready = ["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=60s"];
    let _ = kiln.kubectl(CLUSTER, &ready).succeeded();

    let server = cluster.json(&["get", "pod", "server"]);
    let server = server["status"]["podIP"].as_str().expect("it runs on another node").to_owned();
    let script = format!("hostname -i; timeout 10 wget -qO- http://{server}:8080/passwd");
    // The agent writes the range when it learns of it, which the node's readiness does not wait for.
    let told = (0..10)
        .map(|_| cluster.run_pod_on(node, &["sh", "-c", &script]))
        .find(|told| in_range(told.lines().next().unwrap_or_default(), &after))
        .expect("a pod gets an address of the new range");
    assert!(told.contains("root:x:0:0"), "{told}");
}

/// Nodes have the files of their preloaded images in common, with each other and with the store.
fn shared_files_survive(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    let (state_root, _) = fixture::roots();
    let df = || -> serde_json::Value {
        let told = kiln.run(&["df", "-o", "json"]).succeeded();
        serde_json::from_slice(told.bytes()).expect("it is JSON")
    };
    let bytes = |df: &serde_json::Value, kind: &str, name: &str, field: &str| {
        let found = items_of(df).find(|item| item["kind"] == kind && item["name"] == name);
        found.and_then(|item| item[field].as_u64()).unwrap_or_else(|| panic!("no {field} of {name}: {df}"))
    };
    steps.step("df counts what nodes share once", || {
        let used = df();
        let own: Vec<_> = NODES.map(|node| bytes(&used, "node", node, "disk_bytes")).to_vec();
        let shared: Vec<_> = NODES.map(|node| bytes(&used, "node", node, "shared_bytes")).to_vec();
        assert!(own.iter().all(|own| (1 << 20..200 << 20).contains(own)), "{used}");
        let whole = bytes(&used, "cluster", CLUSTER, "disk_bytes");
        assert!(whole >= own.iter().sum::<u64>(), "{used}");
        let together = bytes(&used, "cluster", CLUSTER, "shared_bytes");
        assert!(shared.iter().all(|shared| *shared > 100 << 20) && together < 2 * shared[0], "{used}");
        let store = items_of(&used).find(|item| item["kind"] == "store").expect("there is a store");
        assert!(store["disk_bytes"].as_u64() >= Some(together), "{used}");
        let table = kiln.run(&["df"]).succeeded().stdout();
        assert!(NODES.iter().all(|node| table.contains(node)) && table.contains("image store"), "{table}");
    });
    steps.step("images removed from one node stay in the store and in the others", || {
        let [node, other] = [NODES[1], NODES[2]];
        let images = |node: &str| {
            kiln.run(&["exec", node, "--", "ctr", "-n", "k8s.io", "images", "ls", "-q"]).succeeded().stdout()
        };
        let snapshots = |node: &str| {
            let script =
                "find /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots -type f | wc -l";
            let told = kiln.run(&["exec", node, "--", "sh", "-c", script]).succeeded().stdout();
            told.trim().parse::<u64>().expect("a number")
        };
        let (listed, files, kept) = (images(other), snapshots(node), disk::shared_files(&state_root));
        assert!(files > 0 && !kept.is_empty(), "the nodes share nothing: {files} files, {kept:?}");
        // The pods of before use some of them.
        let _ = kiln.kubectl(CLUSTER, &["delete", "pod", "--all", "--now"]).succeeded();
        // Also those of the pods that run: containerd keeps what those need. CRI may be faster to remove the ids.
        let script = "ctr -n k8s.io images ls -q | xargs ctr -n k8s.io images rm --sync || true";
        let _ = kiln.run(&["exec", node, "--", "sh", "-c", script]).succeeded();
        // Once more by hand: what nothing refers to is gone when this returns.
        let collect = ["exec", node, "--", "ctr", "-n", "k8s.io", "content", "prune", "references"];
        let _ = kiln.run(&collect).succeeded();
        assert!(snapshots(node) < files, "nothing was collected");
        for (path, (inode, length, modified)) in &kept {
            let file =
                fs_err::metadata(path).unwrap_or_else(|error| panic!("the store has lost it: {error}"));
            assert_eq!(
                (file.ino(), file.len(), file.modified().ok()),
                (*inode, *length, *modified),
                "{path:?}"
            );
        }
        assert_eq!(images(other), listed);
        let told = cluster.run_pod_on(other, &["sh", "-c", "echo still here"]);
        assert!(told.contains("still here"), "{told}");
    });
}

fn items_of(list: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    list.as_array().into_iter().flatten()
}

/// Whether an address is in a range of /24.
fn in_range(address: &str, range: &str) -> bool {
    let network = |text: &str| text.rsplit_once('.').map(|(network, _)| network.to_owned());
    network(address.trim()) == network(range)
}

/// kubectl's option for a pod of a certain node.
fn on(node: &str) -> String {
    format!("--overrides={}", json!({ "spec": { "nodeName": node } }))
}
