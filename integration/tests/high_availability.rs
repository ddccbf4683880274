//! Three control planes and two workers, by kubeadm and from the template that it leaves: they are the same, and the API outlives
//! one of its nodes.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kiln_integration::{
    Cluster, Fixture, Steps, api,
    cluster::{API_SERVICE, has_condition, items},
    template,
};
use serde_json::{Value, json};

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
    let nodes = ["control-plane", "control-plane", "control-plane", "worker", "worker"];
    let config = template::unique_configuration(&fixture, &json!(nodes.map(|role| json!({ "role": role }))));
    let mut by_kubeadm = None;
    if steps.step("kubeadm brings up the first of its kind, which leaves a template", || {
        let said = create(&fixture, &config, "auto");
        assert!(said.contains("has a template"), "{said}");
    }) {
        nodes_are_complete(&fixture, &mut steps);
        steps.step("its control planes can be looked into", || by_kubeadm = Some(control_planes(&fixture)));
        steps.step("delete removes all nodes", || delete(&fixture));
    }
    let from_template = by_kubeadm.as_ref().is_some_and(|_| {
        steps.step("the next one comes from the template, all of its control planes", || {
            let said = create(&fixture, &config, "template");
            assert!(!said.contains("[preflight]"), "kubeadm join ran:\n{said}");
        })
    });
    if from_template {
        nodes_are_complete(&fixture, &mut steps);
        steps.step("its control planes are what kubeadm makes", || {
            for (one, other) in by_kubeadm.iter().flatten().zip(control_planes(&fixture)) {
                let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
                let (one, other) = (lines(one), lines(&other));
                let differing: Vec<_> = one.symmetric_difference(&other).collect();
                assert!(differing.is_empty(), "{differing:#?}");
            }
        });
        steps.step("etcd of the first was given the lead, so that no write was lost with those that filled it", || {
            const SCRIPT: &str = r"grep -hE 'raft.node: ([0-9a-f]+) elected leader \1 ' /var/log/pods/kube-system_etcd-*/etcd/*.log";
            let _ = fixture.kiln().run(&["exec", NODES[0], "--", "sh", "-c", SCRIPT]).succeeded();
        });
        let killed = steps.step("a control plane is killed, and the API answers within 5 s", || {
            kill_first(&fixture);
            survives(&fixture);
        });
        if killed {
            rest_goes_on(&fixture, &mut steps);
        }
        steps.step("delete removes all nodes, dead or alive", || delete(&fixture));
    }
    steps.step("nothing is left", || fixture.assert_nothing_left());
    template::forget(&fixture, &[NODES[1]]);
    steps.finish();
}

fn create(fixture: &Fixture, config: &str, how: &str) -> String {
    let args = ["--config", config, "--bootstrap", how, "--wait", "5m", "-v", "1"];
    let told = fixture.create(CLUSTER, &args).succeeded().stderr().to_owned();
    let phases = [
        "Preparing nodes",
        "Configuring the external load balancer",
        "Starting control-plane",
        "Joining more control-plane nodes",
        "Joining worker nodes",
        "Ready after",
    ];
    let places: Vec<_> = phases.iter().map(|phase| told.find(phase)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{told}");
    told
}

fn delete(fixture: &Fixture) {
    let finished = fixture.delete(CLUSTER);
    for node in NODES {
        assert!(finished.stderr().contains(node), "{}", finished.report());
    }
}

/// What makes the control planes: names of files, static pods, where components ask, and the nodes' labels and taints. Addresses
/// and keys are left out, and the members that each etcd was told of first, which with kubeadm is a matter of luck.
fn control_planes(fixture: &Fixture) -> [String; 3] {
    const SCRIPT: &str = "cd /etc/kubernetes && find . | sort && stat -c '%n %a' pki/* pki/etcd/* *.conf && \
                          grep -v -e '--initial-cluster=' manifests/etcd.yaml && cat manifests/kube-*.yaml && \
                          grep -H server: *.conf && cat /var/lib/kubelet/kubeadm-flags.env /var/lib/kubelet/config.yaml";
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    let addresses: Vec<_> =
        NODES[..5].iter().map(|node| (cluster.node_address(node).to_string(), node)).collect();
    [NODES[0], NODES[1], NODES[2]].map(|node| {
        let files = kiln.run(&["exec", node, "--", "sh", "-c", SCRIPT]).succeeded().stdout();
        let object = cluster.json(&["get", "node", node]);
        let labels = &object["metadata"]["labels"];
        let seen = format!("{files}\n{labels:#}\n{:#}", object["spec"]["taints"]);
        addresses.iter().fold(seen, |seen, (address, node)| seen.replace(address, node))
    })
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
            assert_eq!(cluster.resolve(Some(node), API_SERVICE), "10.96.0.1", "{node}");
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
