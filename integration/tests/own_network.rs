//! A cluster that leaves the pod network to its user, who installs flannel, and that has no kube-proxy.

use std::{path::Path, process::Command, time::Duration};

use kiln_integration::{
    Cluster, Fixture, Steps, TestImage,
    cluster::{BUSYBOX, items},
    fixture,
    host::text,
    kiln::LONG,
};
use serde_json::json;

const CLUSTER: &str = "it-own";
const CONTROL_PLANE: &str = "it-own-control-plane";
const WORKER: &str = "it-own-worker";
const IMAGE: &str = "docker.io/kiln-test/flannel:v1";
const CONFIG: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n\
                      networking: {disableDefaultCNI: true, kubeProxyMode: none}\n\
                      nodes: [{role: control-plane}, {role: worker}]\n";

#[test]
fn a_pod_network_of_the_users_own_takes_over() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    // Built first: that it cannot be is not the cluster's fault.
    let program = fixture.directory().join("flannel");
    if !steps.step("flannel is built", || build(&program)) {
        return steps.finish();
    }
    if steps.step("create leaves the pod network alone", || create(&fixture)) {
        let installed = steps.step("flannel is loaded and installed", || install(&fixture, &program));
        if installed {
            pods(&fixture, &mut steps);
        }
        steps.step("delete removes both nodes", || drop(fixture.delete(CLUSTER)));
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

fn data() -> std::path::PathBuf {
    fixture::data("flannel")
}

fn build(program: &Path) {
    let mut command = Command::new("go");
    command.current_dir(data()).args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(program).arg(".");
    let output = command.env("CGO_ENABLED", "0").output().expect("go runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn create(fixture: &Fixture) {
    let kiln = fixture.kiln();
    let file = fixture.directory().join("own.yaml");
    fs_err::write(&file, CONFIG).expect("a file of the test");
    let finished = fixture.create(CLUSTER, &["--config", text(&file)]).succeeded();
    assert!(!finished.stderr().contains("Installing CNI"), "{}", finished.report());
    let sets = Cluster::new(kiln, CLUSTER).json(&["get", "daemonsets", "-A"]);
    assert_eq!(items(&sets).count(), 0, "neither kube-proxy nor an agent: {sets}");
    for node in [CONTROL_PLANE, WORKER] {
        let listed = kiln.run(&["exec", node, "--", "ls", "/etc/cni/net.d"]).stdout();
        assert_eq!(listed, "", "{node}");
    }
}

fn install(fixture: &Fixture, program: &Path) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    let archive = TestImage::new(&fs_err::read(program).expect("it was built")).docker_archive(IMAGE);
    let _ = kiln.run_with(&["load", "image-archive", "--name", CLUSTER, "-"], &archive, LONG).succeeded();
    let manifest = fs_err::read_to_string(data().join("manifest.yaml")).expect("a manifest of the test");
    let manifest = manifest.replace("@CONTROL_PLANE@", &cluster.node_address(CONTROL_PLANE).to_string());
    let apply = ["apply", "-f", "-"];
    let _ = kiln.kubectl_with(CLUSTER, &apply, manifest.as_bytes(), Duration::from_secs(60)).succeeded();
    let ready = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"];
    let _ = kiln.kubectl(CLUSTER, &ready).succeeded();
}

fn pods(fixture: &Fixture, steps: &mut Steps) {
    let kiln = fixture.kiln();
    let cluster = Cluster::new(kiln, CLUSTER);
    steps.step("pods of different nodes reach each other through flannel", || {
        let image = format!("--image={BUSYBOX}");
        let on = format!("--overrides={}", json!({ "spec": { "nodeName": WORKER } }));
        let args = ["run", "server", &image, "--image-pull-policy=IfNotPresent", &on, "--"];
        let command = ["httpd", "-f", "-vv", "-p", "8080", "-h", "/etc"];
        let _ = kiln.kubectl(CLUSTER, &[&args[..], &command].concat()).succeeded();
        let ready = ["wait", "--for=condition=Ready", "pod/server", "--timeout=60s"];
        let _ = kiln.kubectl(CLUSTER, &ready).succeeded();
        let server = cluster.json(&["get", "pod", "server"]);
        let address = server["status"]["podIP"].as_str().expect("a ready pod has an address").to_owned();
        let script = format!("hostname -i; timeout 10 wget -qO- http://{address}:8080/passwd");
        let told = cluster.run_pod_on(CONTROL_PLANE, &["sh", "-c", &script]);
        assert!(told.contains("root:x:0:0"), "{told}");
        let own = told.lines().next().expect("the pod tells its address").trim().to_owned();
        let log = kiln.kubectl(CLUSTER, &["logs", "server"]).succeeded().stdout();
        assert!(log.contains(&own), "the server saw another address than {own}:\n{log}");
    });
    steps.step("their packets went through its tunnel", || {
        let link = ["exec", WORKER, "--", "ip", "-s", "-json", "link", "show", "flannel.1"];
        let told = kiln.run(&link).succeeded();
        let links: serde_json::Value = serde_json::from_slice(told.bytes()).expect("ip prints JSON");
        let received = links[0]["stats64"]["rx"]["packets"].as_u64();
        assert!(received.is_some_and(|packets| packets > 0), "{links}");
    });
}
