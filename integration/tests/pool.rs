//! Clusters that are booted ahead, and taken when they are asked for.

use std::{
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use fs_err as fs;
use jiff::Timestamp;
use kiln_integration::{
    Cluster, Fixture, Steps,
    cluster::{API_SERVICE, items},
};
use serde_json::Value;

const NAME: &str = "it-ahead";

/// The longest that kube-controller-manager lets a node be silent before it calls it unreachable is 50 s, and it looks every
/// five: what it makes of a stop it makes of it within this time.
const NOTICED: Duration = Duration::from_secs(12);

/// As long as that, and twice as long as kubelet lets containerd be silent.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_standby_is_a_cluster_within_a_moment() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let fill =
        |count: &str| fixture.kiln().run(&["pool", "fill", "--name", NAME, "--count", count]).succeeded();
    steps.step("two are booted, which nobody sees among the clusters", || {
        let said = fill("2");
        assert!(said.stderr().contains("2 standby clusters"), "{}", said.report());
        assert_eq!(record(&fixture, "standby.json")["reports"], Value::Null, "kubelet was not stopped");
        assert!(fixture.clusters().is_empty());
        assert_eq!(states(&fixture), ["frozen", "frozen"]);
        assert!(!fixture.kubeconfig().exists(), "nobody is told of them");
    });
    steps.step("they use no processor time", || {
        let before = [1, 2].map(processor_time);
        thread::sleep(Duration::from_secs(3));
        assert_eq!([1, 2].map(processor_time), before);
    });
    steps.step("filling again boots nothing", || {
        let said = fill("2");
        assert!(said.stderr().contains("0 of them new"), "{}", said.report());
    });
    steps.step("what is asked to be another is not one of them", || {
        let kiln = fixture.kiln().with_env("KILN_STOP_AFTER", "nodes");
        let config = fixture.directory().join("other.yaml");
        let text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nfeatureGates: {InPlacePodVerticalScaling: true}\n";
        fs::write(&config, text).expect("the fixture's directory is writable");
        let config = config.to_str().expect("a path of ours is text");
        let said = kiln.run(&["create", "cluster", "--name", NAME, "--config", config, "-v1"]).succeeded();
        assert!(said.stderr().contains("is not taken"), "{}", said.report());
        let _ = fixture.delete(NAME);
        assert_eq!(states(&fixture), ["frozen", "frozen"]);
    });
    let filled = Instant::now();
    let mut authorities = Vec::new();
    for left in [1, 0] {
        if left == 0 {
            thread::sleep(LONG.saturating_sub(filled.elapsed()));
        }
        steps.step(&format!("one is taken, {left} left"), || {
            let said = fixture.create(NAME, &["-v1"]).succeeded();
            assert!(said.stderr().contains("Taking a standby cluster"), "{}", said.report());
            assert_eq!(states(&fixture).len(), left);
            assert_eq!(fixture.clusters(), [NAME]);
            authorities.push(fs::read_to_string(fixture.kubeconfig()).expect("it is told of"));
        });
        steps.step("its node stays Ready, and its pods are made and answered", || {
            let cluster = Cluster::new(fixture.kiln(), NAME);
            let since = || ready(&cluster.json(&["get", "nodes"]));
            let before = since();
            assert_eq!(cluster.resolve(None, API_SERVICE), "10.96.0.1");
            thread::sleep(NOTICED);
            assert_eq!(since(), before, "it was not ready in between");
            let events = cluster.json(&["get", "events", "-A"]);
            let lost: Vec<_> = items(&events).filter(|event| event["reason"] == "NodeNotReady").collect();
            assert!(lost.is_empty(), "{lost:?}");
            assert_eq!(restarted(cluster), Vec::<String>::new());
            let _ = fixture
                .kiln()
                .kubectl(
                    NAME,
                    &["rollout", "status", "deployment/coredns", "-n", "kube-system", "--timeout=60s"],
                )
                .succeeded();
        });
        let _ = fixture.delete(NAME);
    }
    steps.step("no two have the same authority", || {
        let of = |text: &String| {
            let line = text.lines().find(|line| line.contains("certificate-authority-data"));
            line.expect("a kubeconfig has one").trim().to_owned()
        };
        assert_eq!(authorities.len(), 2);
        assert_ne!(of(&authorities[0]), of(&authorities[1]));
    });
    steps.step("nothing is left", || fixture.assert_nothing_left());
    steps.finish();
}

#[test]
fn a_standby_that_is_none_any_more_is_replaced() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let config = fixture.directory().join("three.yaml");
    // As in an image whose programs Kiln has not compiled: kubelet and kube-controller-manager do not outlive a stop.
    let unchanged = fixture.directory().join("changed-sources");
    fs::write(&unchanged, "").expect("the fixture's directory is writable");
    let text = format!(
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n- role: worker\n- role: worker\n  \
         extraMounts: [{{hostPath: {}, containerPath: /kind/changed-sources}}]\n",
        unchanged.display()
    );
    fs::write(&config, text).expect("the fixture's directory is writable");
    let config = config.to_str().expect("a path of ours is text");
    let fill = ["pool", "fill", "--name", NAME, "--config", config];
    steps.step("a filling that is killed leaves something to remove", || {
        let running = fixture.kiln().start(&fill);
        assert!(running.wait_for_stderr("Starting control-plane", Duration::from_secs(60)));
        running.kill();
        assert_eq!(states(&fixture), ["broken"]);
        assert!(fixture.clusters().is_empty());
        let said = fixture.kiln().run(&["pool", "drain", "--name", NAME]).succeeded();
        assert!(said.stderr().contains("Removed standby 1"), "{}", said.report());
        fixture.assert_nothing_left();
    });
    steps.step("one of three nodes is booted, and loses one", || {
        let _ = fixture.kiln().run(&fill).succeeded();
        assert_eq!(states(&fixture), ["frozen"]);
        kiln_integration::host::run("kill", &["-9", &node_pid(&fixture, "worker")]);
        // A frozen process is killed at once on cgroup v2, and when it is thawed on v1.
        if states(&fixture) == ["frozen"] {
            let freezer = format!("/sys/fs/cgroup/freezer/kiln/{NAME}_1/{NAME}-worker/freezer.state");
            fs::write(freezer, "THAWED").expect("it is ours");
        }
        until(|| states(&fixture) == ["broken"]);
    });
    steps.step("filling replaces it", || {
        let said = fixture.kiln().run(&fill).succeeded();
        assert!(said.stderr().contains("Removing standby 1"), "{}", said.report());
        assert_eq!(states(&fixture), ["frozen"]);
    });
    steps.step("all its nodes are there at once when it is taken, slow ones too", || {
        // kubelet calls iptables before it lists its containers, and would tell that its node is not ready until it has.
        assert_eq!(
            record(&fixture, "standby.json")["reports"].as_object().map(|reports| reports.len()),
            Some(3)
        );
        let pid = node_pid(&fixture, "worker");
        let slow = format!("/proc/{pid}/root/usr/local/sbin/iptables");
        fs::write(&slow, "#!/bin/sh\nsleep 0.1\nexec /usr/sbin/iptables \"$@\"\n")
            .expect("the node can be written to");
        fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let asked = Timestamp::now();
        let said = fixture.create(NAME, &["--config", config]).succeeded();
        assert!(said.stderr().contains("Taking a standby cluster"), "{}", said.report());
        let cluster = Cluster::new(fixture.kiln(), NAME);
        let before = ready(&cluster.json(&["get", "nodes"]));
        assert_eq!(before.len(), 3);
        for (node, since) in &before {
            assert!(
                since.parse::<Timestamp>().expect("it is a time") < asked,
                "{node} was not Ready since {since}"
            );
        }
        let node = format!("{NAME}-worker2");
        assert_eq!(cluster.resolve(Some(&node), API_SERVICE), "10.96.0.1");
        thread::sleep(NOTICED);
        assert_eq!(ready(&cluster.json(&["get", "nodes"])), before);
        let mut restarted = restarted(cluster);
        restarted.retain(|pod| !pod.starts_with("kube-controller-manager-"));
        assert_eq!(restarted, Vec::<String>::new());
        let _ = fixture.delete(NAME);
    });
    steps.step("what cannot be one is refused", || {
        let config = fixture.directory().join("bare.yaml");
        let text =
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {disableDefaultCNI: true}\n";
        fs::write(&config, text).expect("the fixture's directory is writable");
        let config = config.to_str().expect("a path of ours is text");
        let refused = fixture.kiln().run(&["pool", "fill", "--name", NAME, "--config", config]);
        refused.exited(1).refused(&["there can be no standby", "disableDefaultCNI"]);
    });
    steps.step("nothing is left", || fixture.assert_nothing_left());
    steps.finish();
}

/// What can be done with each standby.
fn states(fixture: &Fixture) -> Vec<String> {
    let listed = fixture.kiln().run(&["pool", "ls", "-o", "json"]).succeeded();
    let list: Value = serde_json::from_slice(listed.bytes()).expect("it is JSON");
    let list = list.as_array().expect("it is a list").iter();
    list.map(|standby| standby["state"].as_str().expect("each has one").to_owned()).collect()
}

/// The init of a node of the first standby.
fn node_pid(fixture: &Fixture, node: &str) -> String {
    let record = record(fixture, &format!("nodes/{NAME}-{node}/node.json"));
    record["process"]["pid"].as_i64().expect("it runs").to_string()
}

/// What is recorded about the first standby.
fn record(fixture: &Fixture, file: &str) -> Value {
    let path = fixture.state_root().join(format!("pool/{NAME}_1/{file}"));
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("it is JSON")
}

/// When each node has become Ready; all are.
fn ready(nodes: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
        assert_eq!(ready["status"], "True", "{node}");
        (text(&node["metadata"]["name"]), text(&ready["lastTransitionTime"]))
    };
    items(nodes).map(of).collect()
}

/// The pods of which a container has been restarted.
fn restarted(cluster: Cluster<'_>) -> Vec<String> {
    let pods = cluster.json(&["get", "pods", "-A"]);
    let again = |pod: &&Value| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        statuses.iter().any(|status| status["restartCount"] != 0)
    };
    items(&pods)
        .filter(again)
        .map(|pod| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// What the processes of a standby have used, as the kernel counts it.
fn processor_time(number: u32) -> String {
    let group = format!("kiln/{NAME}_{number}/{NAME}-control-plane");
    let v1 = format!("/sys/fs/cgroup/cpuacct/{group}/cpuacct.usage");
    let v2 = format!("/sys/fs/cgroup/{group}/cpu.stat");
    let text = fs::read_to_string(v1).or_else(|_| fs::read_to_string(v2)).expect("the kernel counts");
    text.lines().next().expect("it counts something").to_owned()
}

fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..100 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("it never came");
}
