//! Node images of other Kubernetes: what is asked for is told apart, what cannot be built is refused, and what has been
//! built boots.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kiln_integration::{
    Cluster, Fixture, Steps,
    cluster::{API_SERVICE, has_condition, items},
};

const CLUSTER: &str = "it-newer";
/// The newest release that the test builds, when it may take its time.
const NEWER: &str = "v1.37.2";
/// Set to build it if it is not there: several minutes of compiling.
const BUILD: &str = "KILN_TEST_NEWER";
const BUILD_LIMIT: Duration = Duration::from_secs(90 * 60);

#[test]
fn what_no_image_can_be_made_from_is_refused() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let directory = fixture.directory();
    // Another state root: nothing is looked for or left in the host's.
    let root = directory.join("root");
    let refused = |source: &[&str], words: &[&str]| {
        let mut args = vec!["--root", path(&root), "build", "node-image"];
        args.extend(source);
        fixture.kiln().run(&args).refused(words);
    };

    steps.step("a version that there is not", || refused(&["v1.34"], &["\"v1.34\"", "neither an address"]));
    steps.step("a type that there is not", || refused(&["--type", "bazel", "."], &["bazel", "types are"]));
    steps.step("a build of a single commit", || refused(&["--type", "ci", "latest"], &["single commits"]));
    steps.step("a directory that is no tree", || {
        refused(&[path(directory)], &[path(directory), "no source tree of Kubernetes", "clone"]);
    });
    let tree = tree(directory);
    steps.step("a tree that does not tell its version", || {
        refused(&[path(&tree)], &["tells its version", "--kubernetes-version"]);
        refused(&[path(&tree), "--kubernetes-version", "1.x"], &["there is no Kubernetes", "1.x"]);
    });
    steps.step("a file that is no archive", || {
        let file = directory.join("kubernetes-server-linux-amd64.tar.gz");
        fs_err::write(&file, "not one").expect("a file");
        refused(&[path(&file)], &[path(&file), "is not an archive of Kubernetes for servers"]);
        refused(&[path(&file), "--kubernetes-version", "v1.34.4"], &["cannot become v1.34.4"]);
    });
    steps.step("an archive at an address that nobody answers at", || {
        refused(
            &["http://127.0.0.1:1/server.tar.gz"],
            &["failed to download http://127.0.0.1:1/server.tar.gz"],
        );
    });
    steps.step("a base image that is not in the store", || {
        refused(&["--base-image", "base:none"], &["base:none", "not in the store", "images ls --host"]);
    });
    steps.step("nothing is left", || {
        let left: Vec<_> = fs_err::read_dir(root.join("build/tmp")).expect("the cache").collect();
        assert!(left.is_empty(), "{left:?}");
        fixture.assert_nothing_left();
    });
    steps.finish();
}

#[test]
fn a_newer_kubernetes_boots() {
    let Some(mut fixture) = Fixture::open() else { return };
    let image = format!("kiln/node:{NEWER}");
    let listed = fixture.kiln().run(&["images", "ls", "--host"]).succeeded().stdout();
    if !listed.lines().any(|line| line.contains(&format!("{image} "))) {
        if std::env::var_os(BUILD).is_none_or(|value| value != "1") {
            eprintln!("skipped: {image} is not in the store, and {BUILD}=1 is not set");
            return;
        }
        let _ = fixture.kiln().run_with(&["build", "node-image", NEWER], &[], BUILD_LIMIT).succeeded();
        // The image is to stay: the host is looked at anew.
        drop(fixture);
        let Some(reopened) = Fixture::open() else { return };
        fixture = reopened;
    }
    let kiln = fixture.kiln();
    let mut steps = Steps::default();
    let created = steps.step("create, and say what a kubelet is told on old cgroups", || {
        let finished = fixture.create(CLUSTER, &["--image", &image, "--wait", "3m"]).succeeded();
        assert!(finished.stderr().contains("Ready after"), "{}", finished.report());
        let old = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        assert_eq!(finished.stderr().contains("failCgroupV1: false"), old, "{}", finished.report());
    });
    if created {
        let cluster = Cluster::new(kiln, CLUSTER);
        steps.step("all of it has that version", || {
            let nodes = cluster.json(&["get", "nodes"]);
            let node = items(&nodes).next().expect("a node");
            assert!(has_condition(node, "Ready"), "{node}");
            assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], NEWER);
            let versions = cluster.json(&["version"]);
            assert_eq!(versions["clientVersion"]["gitVersion"], NEWER);
            assert_eq!(versions["serverVersion"]["gitVersion"], NEWER);
        });
        steps.step("what kind asks of a node is there", || {
            let node = format!("{CLUSTER}-control-plane");
            let inside = |command: &[&str]| {
                let args: Vec<&str> = ["exec", &node, "--"].iter().chain(command).copied().collect();
                kiln.run(&args).succeeded().stdout()
            };
            assert_eq!(inside(&["cat", "/kind/version"]), NEWER);
            assert!(inside(&["cat", "/kind/manifests/default-cni.yaml"]).contains("kind: DaemonSet"));
            assert!(inside(&["cat", "/kind/manifests/default-storage.yaml"]).contains("kind: StorageClass"));
            assert!(inside(&["crictl", "images"]).contains("kube-apiserver"));
            assert_eq!(inside(&["cat", "/kind/product_name"]).trim(), "kind");
        });
        steps.step("CoreDNS is there, and pods find names", || {
            let wait = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=2m"];
            let _ = kiln.kubectl(CLUSTER, &wait).succeeded();
            assert_eq!(cluster.resolve(None, API_SERVICE), "10.96.0.1");
        });
        steps.step("delete", || drop(fixture.delete(CLUSTER)));
        steps.step("nothing is left", || fixture.assert_nothing_left());
    }
    steps.finish();
}

/// What looks like a source tree and has no programs.
fn tree(directory: &Path) -> PathBuf {
    let tree = directory.join("kubernetes");
    for (file, text) in [
        ("go.mod", "module k8s.io/kubernetes\n\ngo 1.24\n"),
        ("cmd/kubeadm/kubeadm.go", "package main\n"),
        ("cmd/kubelet/kubelet.go", "package main\n"),
        ("staging/src/k8s.io/api/go.mod", "module k8s.io/api\n"),
    ] {
        let path = tree.join(file);
        fs_err::create_dir_all(path.parent().expect("a directory")).expect("the tree");
        fs_err::write(path, text).expect("a file of the tree");
    }
    tree
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
