//! Three control planes and two workers: the API outlives one of its nodes.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kiln_integration::{
    Cluster, Fixture, Steps, api,
    cluster::{has_condition, items},
};
use serde_json::Value;

const CLUSTER: &str = "it-ha";
const NODES: [&str; 6] = [
    "it-ha-control-plane",
    "it-ha-control-plane2",
    "it-ha-control-plane3",
    "it-ha-worker",
    "it-ha-worker2",
    "it-ha-external-load-balancer",
];
/// How long the API may be away when a control plane dies.
const AWAY: Duration = Duration::from_secs(5);
/// How long it is asked after that, and must answer every time.
const WATCHED: Duration = Duration::from_secs(12);

#[test]
fn the_api_outlives_a_control_plane() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    if steps.step("create waits until all nodes are ready", || create(&fixture)) {
        nodes_are_complete(&fixture, &mut steps);
        let killed = steps.step("a control plane is killed, and the API answers within 5 s", || {
            kill_first(&fixture);
            survives(&fixture);
        });
        if killed {
            rest_goes_on(&fixture, &mut steps);
        }
        steps.step("delete removes all nodes, dead or alive", || {
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
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/high-availability.yaml");
    let config = config.to_str().expect("a source path is text");
    let finished = fixture.create(CLUSTER, &["--config", config, "--wait", "5m"]).succeeded();
    let told = finished.stderr();
    let phases = [
        "Preparing nodes",
        "Configuring the external load balancer",
        "Starting control-plane",
        "Joining more control-plane nodes",
        "Joining worker nodes",
        "Ready after",
    ];
    let places: Vec<_> = phases.iter().map(|phase| told.find(phase)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{}", finished.report());
}

fn nodes_are_complete(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    steps.step("get nodes lists all of them, the load balancer too", || {
        let listed = kiln.run(&["get", "nodes", "--name", CLUSTER]).succeeded();
        let mut names: Vec<_> = listed.stdout().lines().map(str::to_owned).collect();
        names.sort_unstable();
        let mut expected = NODES.to_vec();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(listed.stderr(), "", "all of them run");
    });
    steps.step("five nodes are ready, three with a member of etcd", || {
        let nodes = cluster.json(&["get", "nodes"]);
        assert_eq!(items(&nodes).filter(|node| has_condition(node, "Ready")).count(), 5, "{nodes}");
        // A kubelet tells of the pods that it has started by itself only when its node is registered.
        for state in ["create", "condition=Ready"] {
            let state = format!("--for={state}");
            let mut wait = vec!["wait", "-n", "kube-system", "--timeout=60s", &state];
            let pods = ["", "2", "3"].map(|number| format!("pod/etcd-{CLUSTER}-control-plane{number}"));
            wait.extend(pods.iter().map(String::as_str));
            let _ = kiln.kubectl(CLUSTER, &wait).succeeded();
        }
    });
    steps.step("control planes share the cluster's keys and no others", || {
        let sums = |file: &str| {
            let mut sums: Vec<_> = NODES[..3]
                .iter()
                .map(|node| {
                    let path = format!("/etc/kubernetes/pki/{file}");
                    kiln.run(&["exec", node, "--", "sha256sum", &path]).succeeded().stdout()
                })
                .collect();
            sums.sort();
            sums.dedup();
            sums.len()
        };
        assert_eq!(["ca.key", "sa.key", "etcd/ca.key", "front-proxy-ca.key"].map(sums), [1; 4]);
        assert_eq!(["apiserver.key", "etcd/server.key"].map(sums), [3; 2]);
        let mode = ["exec", NODES[1], "--", "stat", "-c", "%a", "/etc/kubernetes/pki/ca.key"];
        assert_eq!(kiln.run(&mode).succeeded().stdout().trim(), "600");
    });
    steps.step("pods of both workers resolve names", || {
        for node in &NODES[3..5] {
            let answer =
                cluster.run_pod_on(node, &["nslookup", "-type=a", "kubernetes.default.svc.cluster.local"]);
            assert!(answer.contains("10.96.0.1"), "{node}: {answer}");
        }
    });
}

/// The node that the cluster began with: kubectl's and everybody's connections lead to any of the three.
fn kill_first(fixture: &Fixture) {
    let listed = fixture.kiln().run(&["get", "nodes", "--name", CLUSTER, "-o", "json"]).succeeded();
    let nodes: Value = serde_json::from_slice(listed.bytes()).expect("a listing");
    let node = nodes.as_array().into_iter().flatten().find(|node| node["name"] == NODES[0]);
    let pid = node.and_then(|node| node["pid"].as_i64()).expect("it runs").to_string();
    let status = Command::new("kill").args(["-KILL", &pid]).status().expect("kill runs");
    assert!(status.success(), "kill {pid}: {status}");
}

fn survives(fixture: &Fixture) {
    let kubeconfig = fixture.kubeconfig();
    let killed = Instant::now();
    while api::get(&kubeconfig, "/api/v1/nodes").is_err() {
        assert!(killed.elapsed() < AWAY, "no answer {AWAY:?} after the node was killed");
        thread::sleep(Duration::from_millis(50));
    }
    let (mut asked, back) = (0, Instant::now());
    // It may have answered through a node that is alive while others' connections were not cut yet.
    thread::sleep(AWAY.saturating_sub(killed.elapsed()));
    while back.elapsed() < WATCHED {
        let answer = api::get(&kubeconfig, "/api/v1/nodes");
        assert!(answer.is_ok(), "{:.1} s after the kill: {answer:?}", killed.elapsed().as_secs_f32());
        asked += 1;
        thread::sleep(Duration::from_millis(100));
    }
    assert!(asked > 20, "asked only {asked} times");
}

fn rest_goes_on(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    steps.step("get nodes tells what became of it", || {
        let listed = kiln.run(&["get", "nodes", "--name", CLUSTER]).succeeded();
        assert_eq!(listed.stdout().lines().count(), NODES.len());
        assert!(
            listed.stderr().contains("it-ha-control-plane has exited: killed by signal 9"),
            "{}",
            listed.report()
        );
        let wide = kiln.run(&["get", "nodes", "--name", CLUSTER, "-o", "wide"]).succeeded().stdout();
        let line = wide.lines().find(|line| line.starts_with("it-ha-control-plane ")).expect("it is listed");
        assert!(line.contains("has exited: killed by signal 9 (SIGKILL)"), "{line}");
    });
    steps.step("what needs a majority of etcd still works", || {
        let _ = kiln.kubectl(CLUSTER, &["create", "configmap", "after", "--from-literal=a=b"]).succeeded();
        let read = cluster.json(&["get", "configmap", "after"]);
        assert_eq!(read["data"]["a"], "b");
    });
    steps.step("the load balancer is a node of its own", || {
        let address = balancer_address(fixture);
        let answer = api::get(&fixture.kubeconfig(), "/readyz");
        assert_eq!(answer.as_deref(), Ok("ok"));
        assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok(), "{address}");
    });
}

fn balancer_address(fixture: &Fixture) -> SocketAddr {
    let listed = fixture.kiln().run(&["get", "nodes", "--name", CLUSTER, "-o", "json"]).succeeded();
    let nodes: Value = serde_json::from_slice(listed.bytes()).expect("a listing");
    let node = nodes.as_array().into_iter().flatten().find(|node| node["role"] == "external-load-balancer");
    let address = node.and_then(|node| node["ipv4"].as_str()).expect("it has an address");
    SocketAddr::new(address.parse().expect("an address"), 6443)
}
