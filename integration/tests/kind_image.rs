//! Upstream's node images, unchanged: one to kind's contract is pulled from a real registry, the images in it are unpacked once,
//! by whoever comes first and whatever happens to him, and clusters of it come up.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_integration::{
    Cluster, Fixture, Registry, Steps, Tools,
    cluster::API_SERVICE,
    disk::{linked_files, own_bytes, store_contents},
    eventually,
    kiln::LONG,
    kind_image::{self, ENTRYPOINT_SAYS, UNPACKING},
};

const MAKER: &str = "it-maker";
/// Made at the same time.
const CLUSTERS: [&str; 2] = ["it-kind", "it-kind-2"];
/// Made when they are there.
const LATER: &str = "it-kind-3";
const OWN_IMAGE: &str = "kiln/node:v1.34.4";
/// What of containerd's a node may have for itself: its databases and what its containers write.
const OWN_LIMIT: u64 = 5 << 20;

#[test]
fn images_to_the_contract_of_kind_run_unchanged() {
    let Some(tools) = Tools::open() else { return };
    let Some(fixture) = Fixture::open() else { return };
    let registry = tools.registry(fixture.directory(), &[]);
    let before = Contents::of(&fixture);
    let mut steps = Steps::default();
    let mut image = String::new();
    if steps.step("a node of Kiln's image runs", || kind_image::make_node(&fixture, MAKER, OWN_IMAGE)) {
        steps.step("it has what kind expects of a node image", || carries_all(&fixture));
    }
    if steps.step("an image to the contract is in a registry", || {
        image = kind_image::push(&fixture, &tools, &registry, (MAKER, OWN_IMAGE), None);
    }) {
        steps.step("one whose containerd does not run, and one for other hosts are refused", || {
            refused(&fixture, &tools, &registry, &image);
        });
        steps.step("kill -9 in the middle leaves nothing that runs, and nothing half", || {
            killed(&fixture, &image);
        });
        if steps.step("of two at once, one unpacks", || together(&fixture, &image)) {
            steps.step("the nodes came up as the image has it", || as_the_image_has_it(&fixture));
            steps.step("pods of both answer", || {
                CLUSTERS.iter().for_each(|cluster| answers(&fixture, cluster))
            });
            steps.step("the next unpacks nothing, and begins from a template", || later(&fixture, &image));
            steps.step("what is unpacked counts as the image's", || counted(&fixture, &image));
        }
        steps.step("clusters are deleted, then the images", || {
            for cluster in CLUSTERS.iter().chain([&LATER]) {
                let _ = fixture.delete(cluster);
            }
            kind_image::remove(&fixture, &registry);
            let left = Contents::of(&fixture);
            assert_eq!(left.added_to(&before), Vec::<PathBuf>::new());
        });
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

/// What the image store holds.
struct Contents(BTreeSet<PathBuf>);

impl Contents {
    fn of(fixture: &Fixture) -> Self {
        Self(store_contents(fixture.state_root()).into_keys().collect())
    }

    fn added_to(&self, before: &Self) -> Vec<PathBuf> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Files that kind, its users' scripts or its node images' own parts look for.
const FILES: [&str; 18] = [
    "/etc/containerd/config.toml",
    "/etc/crictl.yaml",
    "/etc/default/kubelet",
    "/etc/systemd/system/containerd.service",
    "/etc/systemd/system/kubelet.service",
    "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
    "/etc/systemd/system/kubelet.service.d/11-kind.conf",
    "/kind/manifests/default-cni.yaml",
    "/kind/manifests/default-storage.yaml",
    "/kind/old-ipv4",
    "/kind/product_name",
    "/kind/product_uuid",
    "/kind/version",
    "/opt/cni/bin/host-local",
    "/opt/cni/bin/loopback",
    "/opt/cni/bin/portmap",
    "/opt/cni/bin/ptp",
    "/usr/local/bin/entrypoint",
];

/// Programs that they run.
const PROGRAMS: &str = "awk bash cat chmod chown conntrack containerd containerd-shim-runc-v2 cp crictl ctr curl ethtool \
    getent grep hostname ip ip6tables iptables iptables-save journalctl jq kubeadm kubectl kubelet mkdir modprobe mount nft \
    pgrep pkill rm runc sed sh sysctl systemctl tar tee timeout umount update-alternatives";

/// Kiln's own image, as a node of it shows, and by what is written in it.
fn carries_all(fixture: &Fixture) {
    let node = format!("{MAKER}-control-plane");
    let inside =
        |script: &str| fixture.kiln().run(&["exec", &node, "--", "bash", "-c", script]).succeeded().stdout();
    let missing = inside(&format!("for file in {}; do [[ -s $file ]] || echo $file; done", FILES.join(" ")));
    assert_eq!(missing, "");
    let missing = inside(&format!("for name in {PROGRAMS}; do type -P $name >/dev/null || echo $name; done"));
    assert_eq!(missing, "");
    assert_eq!(inside("stat -c %a /kind").trim(), "755", "pods with user namespaces go through it");
    assert_eq!(inside("cat /kind/product_name").trim(), "kind");
    assert_eq!(inside("kubelet --version").trim(), format!("Kubernetes {}", inside("cat /kind/version")));
    // What `kind load` asks for, and what kind does when containerd's configuration is patched.
    assert!(inside("containerd config dump").contains("snapshotter = 'overlayfs'"));
    let _ = inside("! pgrep --exact containerd || systemctl is-active containerd");
    let cni = inside("cat /kind/manifests/default-cni.yaml");
    for words in
        ["would you kindly template this file", "would you kindly patch this file", "{{ .PodSubnet }}"]
    {
        assert!(cni.contains(words), "no {words:?}: {cni}");
    }
    let storage = inside("cat /kind/manifests/default-storage.yaml");
    assert!(storage.contains("name: standard") && storage.contains("WaitForFirstConsumer"), "{storage}");

    let inspected = fixture.kiln().run(&["images", "inspect", "-o", "json", OWN_IMAGE]).succeeded();
    let inspected: serde_json::Value = serde_json::from_slice(inspected.bytes()).expect("an image");
    let image = &inspected[0];
    assert_eq!(
        image["entrypoint"],
        serde_json::json!(["/usr/local/bin/entrypoint", "/sbin/init"]),
        "{image}"
    );
    let environment = image["env"].as_array().into_iter().flatten();
    assert!(environment.clone().any(|variable| variable == "container=docker"), "{image}");
}

fn refused(fixture: &Fixture, tools: &Tools, registry: &Registry, image: &str) {
    let create = |image: &str| {
        let finished = fixture.create(CLUSTERS[0], &["--image", image]);
        assert_ne!(finished.code(), 0, "{}", finished.report());
        finished
    };
    let broken = registry.name("kindest/node:broken");
    let program = b"#!/bin/sh\necho cannot begin >&2\nexit 3\n".to_vec();
    let program = ("usr/local/bin/containerd".to_owned(), 0o755, program);
    kind_image::push_with_files(fixture, tools, image, &broken, &[program]);
    create(&broken).refused(&["failed to unpack the images in", &broken, "cannot begin", "containerd"]);

    let foreign = registry.name("kindest/node:foreign");
    drop(tools.crane(&["mutate", "--set-platform", "linux/s390x", image, "--tag", &foreign]).succeeded());
    create(&foreign).refused(&[&foreign, "linux/s390x"]);
    assert!(!run_directory(fixture).exists());
    assert!(fixture.clusters().iter().all(|name| name != CLUSTERS[0]));
}

fn run_directory(fixture: &Fixture) -> PathBuf {
    fixture.scope().run_root.join("unpack")
}

/// The processes of containers that unpack, by their cgroups.
fn unpacking() -> Vec<String> {
    let processes = fs_err::read_dir("/proc").expect("there is /proc").flatten();
    let in_one = |path: &Path| {
        fs_err::read_to_string(path.join("cgroup")).is_ok_and(|groups| groups.contains("/kiln/.unpack/"))
    };
    let found = processes.filter(|process| in_one(&process.path()));
    found.filter_map(|process| fs_err::read_to_string(process.path().join("comm")).ok()).collect()
}

fn killed(fixture: &Fixture, image: &str) {
    let args = ["create", "cluster", "--name", CLUSTERS[0], "--image", image];
    let running = fixture.kiln().start(&args);
    assert!(running.wait_for_stderr(UNPACKING, LONG));
    // Only the kernel's list tells.
    let every = Duration::from_millis(20);
    let begun = || unpacking().iter().any(|name| name.trim() == "containerd");
    eventually(Duration::from_secs(30), every, begun, || "it does not begin".to_owned());
    running.kill();
    let over = || unpacking().is_empty();
    eventually(Duration::from_secs(10), every, over, || {
        format!("it outlives who it works for: {:?}", unpacking())
    });
    // Whoever looks next takes away what there is of it.
    let _ = fixture.kiln().run(&["delete", "cluster", "--name", CLUSTERS[0]]).succeeded();
    assert!(!run_directory(fixture).exists());
    let _ = fixture.kiln().start(&["images", "verify"]).wait(LONG).succeeded();
}

fn together(fixture: &Fixture, image: &str) {
    let running = CLUSTERS.map(|cluster| {
        let file = fixture.directory().join(format!("{cluster}.kubeconfig"));
        let file = file.to_str().expect("a path of the test is text");
        let args = ["create", "cluster", "--name", cluster, "--image", image, "--kubeconfig", file];
        fixture.kiln().start(&[&args[..], &["--wait", "5m"]].concat())
    });
    let finished = running.map(|running| running.wait(2 * LONG).succeeded());
    let who = finished.iter().filter(|finished| finished.stderr().contains(UNPACKING)).count();
    let reports = || finished.iter().map(|finished| finished.report()).collect::<Vec<_>>().join("\n");
    assert_eq!(who, 1, "{}", reports());
    assert!(finished.iter().all(|finished| finished.stderr().contains("Ready after")), "{}", reports());
    assert!(!run_directory(fixture).exists());
}

fn node_directory(fixture: &Fixture, cluster: &str) -> PathBuf {
    fixture.state_root().join("clusters").join(cluster).join("nodes").join(format!("{cluster}-control-plane"))
}

fn as_the_image_has_it(fixture: &Fixture) {
    let node = format!("{}-control-plane", CLUSTERS[0]);
    let inside = |command: &[&str]| {
        let args: Vec<&str> = ["exec", &node, "--"].iter().chain(command).copied().collect();
        fixture.kiln().run(&args).succeeded().stdout()
    };
    let console = fs_err::read_to_string(node_directory(fixture, CLUSTERS[0]).join("console.log"));
    let console = console.expect("a node has one");
    assert!(console.contains(ENTRYPOINT_SAYS), "{console}");
    assert!(inside(&["cat", "/etc/containerd/config.toml"]).contains("/etc/containerd/cri-base.json"));
    let images = inside(&["crictl", "images"]);
    // One from containerd's store and one from an archive.
    for name in ["kube-apiserver", "etcd", "busybox"] {
        assert!(images.contains(name), "no {name}: {images}");
    }
    let journal = inside(&["journalctl", "--unit=containerd", "--output=cat", "--quiet"]);
    assert!(!journal.contains("PullImage"), "{journal}");
}

fn answers(fixture: &Fixture, cluster: &str) {
    let wait = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=2m"];
    let _ = fixture.kiln().kubectl(cluster, &wait).succeeded();
    assert_eq!(Cluster::new(fixture.kiln(), cluster).resolve(None, API_SERVICE), "10.96.0.1");
}

/// What a node has of containerd's directory for itself, in bytes.
fn own(fixture: &Fixture, cluster: &str) -> u64 {
    let shared = linked_files(&fixture.state_root().join("images/layers"));
    own_bytes(&node_directory(fixture, cluster).join("var/lib/containerd"), &shared)
}

fn later(fixture: &Fixture, image: &str) {
    let before = Contents::of(fixture);
    let created = fixture.create(LATER, &["--image", image, "--wait", "5m"]).succeeded();
    assert!(!created.stderr().contains(UNPACKING), "{}", created.report());
    answers(fixture, LATER);
    let log = fs_err::read_to_string(node_directory(fixture, LATER).join("kubeadm.log")).expect("a log");
    assert!(log.contains("comes from a template"), "{log}");
    assert_eq!(Contents::of(fixture).added_to(&before), Vec::<PathBuf>::new());
    for cluster in CLUSTERS.iter().chain([&LATER]) {
        let own = own(fixture, cluster);
        assert!(own < OWN_LIMIT, "{cluster} has {own} bytes of containerd's directory for itself");
    }
}

fn counted(fixture: &Fixture, image: &str) {
    let kiln = fixture.kiln();
    kiln.run(&["images", "rm", image]).refused(&["is used by", CLUSTERS[0]]);
    let listed = kiln.run(&["images", "ls", "--host", "-o", "json"]).succeeded();
    let listed: serde_json::Value = serde_json::from_slice(listed.bytes()).expect("a listing");
    let unpacked = |name: &str| {
        let mut images = listed.as_array().into_iter().flatten();
        let found = images.find(|entry| entry["name"].as_str().is_some_and(|full| full.ends_with(name)));
        found.and_then(|entry| entry["unpacked_size"].as_u64()).unwrap_or_else(|| panic!("{name}: {listed}"))
    };
    // It has all that Kiln's has, and the archives.
    assert!(unpacked(image) > unpacked(OWN_IMAGE), "{listed}");
    let _ = kiln.start(&["images", "verify"]).wait(LONG).succeeded();
}
