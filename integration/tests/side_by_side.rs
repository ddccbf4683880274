//! Two clusters that are made at the same time, know nothing of each other, and go at the same time.

use std::{net::IpAddr, path::Path};

use kiln_integration::{Cluster, Fixture, Steps, api, cluster::items, kiln::LONG};
use serde_json::Value;

const CLUSTERS: [&str; 2] = ["it-left", "it-right"];

#[test]
fn clusters_stand_side_by_side() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    if steps.step("two are created at once", || create(&fixture)) {
        steps.step("each has its own network, keys and API", || apart(&fixture));
        steps.step("the image's own manifest makes the network of one", || own_manifest(&fixture));
        steps.step("one cannot reach the other's nodes", || isolated(&fixture));
        steps.step("both are deleted at once", || delete(&fixture));
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

fn kubeconfig(fixture: &Fixture, cluster: &str) -> std::path::PathBuf {
    fixture.directory().join(format!("{cluster}.kubeconfig"))
}

fn create(fixture: &Fixture) {
    let running = CLUSTERS.map(|cluster| {
        let file = kubeconfig(fixture, cluster);
        let file = file.to_str().expect("a path of the test is text");
        let mut args = vec!["create", "cluster", "--name", cluster, "--wait", "5m", "--kubeconfig", file];
        if cluster == CLUSTERS[1] {
            args.extend(["--pod-network", "image"]);
        }
        fixture.kiln().start(&args)
    });
    for running in running {
        let _ = running.wait(LONG).succeeded();
    }
}

fn apart(fixture: &Fixture) {
    let seen = CLUSTERS.map(|cluster| {
        let file = kubeconfig(fixture, cluster);
        assert_eq!(api::get(&file, "/readyz").as_deref(), Ok("ok"), "{cluster}");
        let text = fs_err::read_to_string(&file).expect("create has written it");
        let line = |key: &str| text.lines().find(|line| line.contains(key)).map(str::to_owned);
        let shared = [line("server:"), line("certificate-authority-data:"), line("client-key-data:")];
        assert!(shared.iter().all(Option::is_some), "{cluster}");
        (shared, node_address(fixture, cluster))
    });
    let [(left, left_address), (right, right_address)] = seen;
    assert!(left.iter().zip(&right).all(|(left, right)| left != right), "something is shared: {left:?}");
    assert_ne!(left_address, right_address);
    // The credentials of one are nothing to the other.
    let mixed = fixture.directory().join("mixed.kubeconfig");
    let [left, right] =
        CLUSTERS.map(|cluster| fs_err::read_to_string(kubeconfig(fixture, cluster)).expect("it is there"));
    let server =
        |text: &str| text.lines().find_map(|line| line.trim().strip_prefix("server: ").map(str::to_owned));
    let (left_server, right_server) = (server(&left).expect("a server"), server(&right).expect("a server"));
    fs_err::write(&mixed, left.replace(&left_server, &right_server)).expect("a file of the test");
    assert!(api::get(Path::new(&mixed), "/readyz").is_err(), "a stranger's certificate was accepted");
}

/// Of the image that Kiln builds, that is an agent which writes what the launcher writes otherwise.
fn own_manifest(fixture: &Fixture) {
    let agents = |cluster: &str| {
        let sets = Cluster::new(fixture.kiln(), cluster).json(&["get", "daemonsets", "-n", "kube-system"]);
        items(&sets).filter(|set| set["metadata"]["name"] == "kiln-network").count()
    };
    assert_eq!(CLUSTERS.map(agents), [0, 1]);
    let answer = Cluster::new(fixture.kiln(), CLUSTERS[1]).run_pod(&["hostname", "-i"]);
    assert!(answer.starts_with("10.244.0."), "{answer}");
}

fn isolated(fixture: &Fixture) {
    for (from, to) in [(CLUSTERS[0], CLUSTERS[1]), (CLUSTERS[1], CLUSTERS[0])] {
        let node = format!("{from}-control-plane");
        let connect = |address: &str, port: u16| {
            let script = format!("exec 3<>/dev/tcp/{address}/{port}");
            fixture.kiln().run(&["exec", &node, "--", "timeout", "3", "bash", "-c", &script]).code() == 0
        };
        let own = node_address(fixture, from).to_string();
        assert!(connect(&own, 6443), "{from} reaches its own API");
        let other = node_address(fixture, to).to_string();
        assert!(!connect(&other, 6443), "{from} reaches the node of {to}");
    }
}

fn node_address(fixture: &Fixture, cluster: &str) -> IpAddr {
    let listed = fixture.kiln().run(&["get", "nodes", "--name", cluster, "-o", "json"]).succeeded();
    let nodes: Value = serde_json::from_slice(listed.bytes()).expect("a listing");
    let address = nodes[0]["ipv4"].as_str().expect("it has an address");
    address.parse().expect("an address")
}

fn delete(fixture: &Fixture) {
    let running = CLUSTERS.map(|cluster| {
        let file = kubeconfig(fixture, cluster);
        let file = file.to_str().expect("a path of the test is text");
        fixture.kiln().start(&["delete", "cluster", "--name", cluster, "--kubeconfig", file])
    });
    for running in running {
        let _ = running.wait(LONG).succeeded();
    }
}
