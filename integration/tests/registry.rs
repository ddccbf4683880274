//! Registries on the host: made before and after a cluster, pushed to, pulled from by pods, ended, started again, deleted.

use std::time::Duration;

use kiln_integration::{Cluster, Fixture, Hub, Steps, TestImage, cluster::http_get, eventually, kiln::LONG};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const CLUSTER: &str = "it-hub";
const NODE: &str = "it-hub-control-plane";
const REGISTRY: &str = "it-registry";
const CACHE: &str = "it-cache";

#[test]
fn nodes_pull_from_registries_of_the_host() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    if steps.step("a registry runs", || create_registry(&fixture))
        && steps.step("a cluster is made", || drop(fixture.create(CLUSTER, &["--wait", "3m"]).succeeded()))
    {
        steps.step("the cluster tells of the registry", || announced(&fixture));
        steps.step("a pod runs what was pushed to localhost", || by_localhost(&fixture));
        steps.step("a pod runs what it names by the registry", || by_name(&fixture));
        steps.step("a cache that comes later is asked first", || by_cache(&fixture));
        steps.step("what is there already is left alone", || again(&fixture));
        steps.step("one that has ended is started again with its images", || restarted(&fixture));
        steps.step("deletion of clusters leaves registries alone, and theirs what clusters have", || {
            forgotten(&fixture);
        });
        steps.step("images can be kept", || kept(&fixture));
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

/// What `registry ls` tells of one.
#[track_caller]
fn listed(fixture: &Fixture, name: &str) -> Option<Value> {
    let list = fixture.kiln().run(&["registry", "ls", "-o", "json"]).succeeded();
    let list: Value = serde_json::from_slice(list.bytes()).expect("it is JSON");
    list.as_array().into_iter().flatten().find(|item| item["name"] == name).cloned()
}

#[track_caller]
fn state(fixture: &Fixture, name: &str) -> String {
    let item = listed(fixture, name).unwrap_or_else(|| panic!("{name} is not listed"));
    item["state"].as_str().expect("a state is text").to_owned()
}

#[track_caller]
fn text(fixture: &Fixture, name: &str, field: &str) -> String {
    let item = listed(fixture, name).unwrap_or_else(|| panic!("{name} is not listed"));
    item[field].as_str().unwrap_or_else(|| panic!("no {field}: {item}")).to_owned()
}

#[track_caller]
fn hub(fixture: &Fixture, name: &str) -> Hub {
    let host = text(fixture, name, "host");
    Hub(host.trim_start_matches("localhost:").parse().expect("a port"))
}

/// The test's program as an image; different ones for different marks.
fn image(fixture: &Fixture, mark: &str) -> TestImage {
    let mut program = fs_err::read(fixture.kiln().binary()).expect("the binary is there");
    program.extend(mark.as_bytes());
    TestImage::new(&program)
}

/// Has a pod run an image that no node can have yet, and returns what it says.
#[track_caller]
fn run(fixture: &Fixture, pod: &str, image: &str) -> String {
    let kiln = fixture.kiln();
    let image = format!("--image={image}");
    let args = ["run", pod, &image, "--restart=Never", "--image-pull-policy=Always", "--", "version"];
    let _ = kiln.kubectl(CLUSTER, &args).succeeded();
    let object = format!("pod/{pod}");
    let waited = kiln
        .kubectl(CLUSTER, &["wait", "--for=jsonpath={.status.phase}=Succeeded", &object, "--timeout=60s"]);
    if waited.code() != 0 {
        panic!("{}\n{}", waited.report(), kiln.kubectl(CLUSTER, &["describe", &object]).report());
    }
    kiln.kubectl(CLUSTER, &["logs", pod]).succeeded().stdout()
}

fn create_registry(fixture: &Fixture) {
    let kiln = fixture.kiln();
    kiln.run(&["registry", "create", "localhost"]).refused(&["localhost", "registry"]);
    kiln.run(&["registry", "create", REGISTRY, "--proxy", "ftp://x"]).refused(&["ftp://x", "scheme"]);
    assert_eq!(listed(fixture, REGISTRY), None);
    // It may have to be built first.
    let created = kiln.start(&["registry", "create", REGISTRY, "--port", "0"]).wait(2 * LONG).succeeded();
    assert!(created.stderr().contains("Push to localhost:"), "{}", created.report());
    assert_eq!(state(fixture, REGISTRY), "running");
    let Hub(port) = hub(fixture, REGISTRY);
    assert_eq!(Hub(port).get("/v2/_catalog")["repositories"], serde_json::json!([]));
    // What `localhost` may mean as well.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        let answer = http_get((std::net::Ipv6Addr::LOCALHOST, port).into());
        assert!(answer.contains("200 OK"), "{answer}");
    }
}

fn announced(fixture: &Fixture) {
    let map = Cluster::new(fixture.kiln(), CLUSTER).json(&[
        "get",
        "configmap",
        "-n",
        "kube-public",
        "local-registry-hosting",
    ]);
    let told = map["data"]["localRegistryHosting.v1"].as_str().unwrap_or_else(|| panic!("{map}"));
    for field in ["host", "node_host", "address"] {
        let value = text(fixture, REGISTRY, field);
        assert!(told.contains(&format!("\"{value}\"")), "no {value}: {told}");
    }
}

fn by_localhost(fixture: &Fixture) {
    let Hub(port) = hub(fixture, REGISTRY);
    Hub(port).push("it/first", "1", &image(fixture, "first"));
    let said = run(fixture, "first", &format!("localhost:{port}/it/first:1"));
    assert!(said.contains("kiln"), "{said}");
}

fn by_name(fixture: &Fixture) {
    hub(fixture, REGISTRY).push("it/second", "1", &image(fixture, "second"));
    let said = run(fixture, "second", &format!("{REGISTRY}:5000/it/second:1"));
    assert!(said.contains("kiln"), "{said}");
}

fn by_cache(fixture: &Fixture) {
    let address = text(fixture, REGISTRY, "address");
    let kiln = fixture.kiln();
    let args = ["registry", "create", CACHE, "--port=0", "--proxy", &format!("http://{address}")];
    let _ = kiln.start(&args).wait(LONG).succeeded();
    let other = ["registry", "create", "it-other", "--port=0", "--proxy", &format!("http://{address}")];
    kiln.run(&other).refused(&[CACHE, "already"]);
    assert_eq!(listed(fixture, "it-other"), None);
    // By the name of what it is a cache of: the node would get there without it, too.
    hub(fixture, REGISTRY).push("it/third", "1", &image(fixture, "third"));
    let said = run(fixture, "third", &format!("{address}/it/third:1"));
    assert!(said.contains("kiln"), "{said}");
    let cached = hub(fixture, CACHE).get("/v2/_catalog");
    assert_eq!(cached["repositories"], serde_json::json!(["it/third"]));
}

fn again(fixture: &Fixture) {
    let kiln = fixture.kiln();
    let pid = process(REGISTRY);
    let created = kiln.run(&["registry", "create", REGISTRY]).succeeded();
    assert!(created.stderr().contains("runs already"), "{}", created.report());
    assert_eq!(process(REGISTRY), pid);
    kiln.run(&["registry", "create", REGISTRY, "--port", "1"]).refused(&[REGISTRY, "port"]);
    kiln.run(&["registry", "create", REGISTRY, "--proxy", "https://quay.io"])
        .refused(&[REGISTRY, "no cache"]);
}

/// The process of a registry, by its cgroup.
#[track_caller]
fn process(name: &str) -> Pid {
    let end = format!("kiln/_registries/{name}");
    let mut found = fs_err::read_dir("/proc").expect("there is /proc").flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        groups.lines().any(|line| line.ends_with(&end)).then(|| Pid::from_raw(pid))
    });
    found.next().unwrap_or_else(|| panic!("no process of {name}"))
}

fn restarted(fixture: &Fixture) {
    let kiln = fixture.kiln();
    let Hub(port) = hub(fixture, REGISTRY);
    kill(process(REGISTRY), Signal::SIGKILL).expect("it runs");
    let is_told = || state(fixture, REGISTRY) != "running";
    eventually(Duration::from_secs(10), Duration::ZERO, is_told, || {
        "a killed registry is told to run".to_owned()
    });
    assert_eq!(state(fixture, REGISTRY), "exited");
    let created = kiln.run(&["registry", "create", REGISTRY]).succeeded();
    assert!(created.stderr().contains("starting it again"), "{}", created.report());
    assert_eq!(hub(fixture, REGISTRY).0, port, "its port is the same");
    assert_eq!(Hub(port).get("/v2/it/first/tags/list")["tags"], serde_json::json!(["1"]));
    Hub(port).push("it/fourth", "1", &image(fixture, "fourth"));
    let said = run(fixture, "fourth", &format!("localhost:{port}/it/fourth:1"));
    assert!(said.contains("kiln"), "{said}");
}

fn forgotten(fixture: &Fixture) {
    let kiln = fixture.kiln();
    let in_node = |args: &[&str]| {
        let mut all = vec!["exec", NODE, "--"];
        all.extend(args);
        kiln.run(&all).succeeded().stdout()
    };
    assert!(in_node(&["cat", "/etc/hosts"]).contains(CACHE));
    let _ = kiln.run(&["registry", "delete", CACHE]).succeeded();
    assert!(!in_node(&["cat", "/etc/hosts"]).contains(CACHE));
    let directories = in_node(&["ls", "/etc/containerd/certs.d"]);
    assert_eq!(directories.lines().count(), 2, "those of the other registry: {directories}");
    let _ = fixture.delete(CLUSTER);
    assert_eq!(state(fixture, REGISTRY), "running");
}

fn kept(fixture: &Fixture) {
    let kiln = fixture.kiln();
    let told = kiln.run(&["registry", "delete", REGISTRY, "--keep-data"]).succeeded();
    assert!(told.stderr().contains("kept"), "{}", told.report());
    assert_eq!(listed(fixture, REGISTRY), None);
    let _ = kiln.run(&["registry", "create", REGISTRY, "--port=0"]).succeeded();
    let tags = hub(fixture, REGISTRY).get("/v2/it/second/tags/list");
    assert_eq!(tags["tags"], serde_json::json!(["1"]));
    let _ = kiln.run(&["registry", "delete", REGISTRY]).succeeded();
    kiln.run(&["registry", "delete", REGISTRY]).refused(&[REGISTRY]);
}
