//! Bad input: one clear error each that names the object, and nothing left behind.

use std::{net::TcpListener, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use kiln_integration::{
    Finished, Fixture, Running, Steps,
    host::{Mounted, run, text},
    kiln::LONG,
};

/// The user and group `nobody` and `nogroup` of Debian.
const NOBODY: &str = "65534";

/// What is wrong, in which file, and what the error says of it.
const CONFIGURATIONS: [(&str, &str, &str, &[&str]); 8] = [
    ("no control plane", "workers.yaml", "nodes: [{role: worker}]\n", &["control-plane"]),
    (
        "a mode of kube-proxy that the kernel lacks",
        "ipvs.yaml",
        "networking: {kubeProxyMode: ipvs}\n",
        &["kubeProxyMode ipvs", "ip_vs"],
    ),
    (
        "one port of the host for two nodes",
        "ports.yaml",
        "nodes:\n- role: control-plane\n  extraPortMappings: [{containerPort: 80, hostPort: 8099}]\n- role: worker\n  \
         extraPortMappings: [{containerPort: 81, hostPort: 8099}]\n",
        &["it-config-worker", "it-config-control-plane", "8099"],
    ),
    (
        "a mount without a source",
        "mount.yaml",
        "nodes:\n- role: control-plane\n  extraMounts: [{hostPath: /no/such/path, containerPath: /mnt}]\n",
        &["/no/such/path"],
    ),
    (
        "pods without room",
        "small.yaml",
        "nodes: [{role: control-plane}, {role: worker}]\nnetworking: {podSubnet: 10.244.0.0/24}\n",
        &["podSubnet", "10.244.0.0/24"],
    ),
    ("pods of another family", "family.yaml", "networking: {podSubnet: \"fd00:9::/56\"}\n", &["IPv4"]),
    (
        "pods in the host's network",
        "overlap.yaml",
        "networking: {podSubnet: 127.0.0.0/16}\n",
        &["podSubnet 127.0.0.0/16 overlaps"],
    ),
    (
        "pods among the Services",
        "services.yaml",
        "networking: {podSubnet: 10.96.0.0/12}\n",
        &["podSubnet 10.96.0.0/12 overlaps serviceSubnet 10.96.0.0/16"],
    ),
];

#[test]
fn bad_input_is_refused_and_leaves_nothing() {
    let Some(fixture) = Fixture::open() else { return };
    let mut steps = Steps::default();
    let mut refused = |name: &str, run: &dyn Fn()| {
        steps.step(name, || {
            run();
            let leaks = fixture.leaks();
            assert!(leaks.is_empty(), "left behind:\n- {}", leaks.join("\n- "));
        });
    };

    refused("a name that is none", &|| fixture.create("It_Bad", &[]).refused(&["It_Bad", "name"]));
    refused("a name that leads elsewhere", &|| fixture.create("../it-bad", &[]).refused(&["../it-bad"]));
    refused("an image that is not here", &|| {
        // Nothing listens there, so a pull fails at once.
        fixture.create("it-image", &["--image", "localhost:9/none:v0"]).refused(&["localhost:9/none:v0"]);
    });
    refused("an image reference that is none", &|| {
        fixture.create("it-image", &["--image", "NOT an image"]).refused(&["NOT an image"]);
    });
    refused("a config file that is not there", &|| {
        let missing = fixture.directory().join("missing.yaml");
        fixture.create("it-config", &["--config", text(&missing)]).refused(&["missing.yaml"]);
    });
    refused("a config that is none", &|| {
        let config =
            write(&fixture, "broken.yaml", "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnods: []\n");
        fixture.create("it-config", &["--config", &config]).refused(&["nods"]);
    });
    refused("a port that is taken", &|| port_is_taken(&fixture));
    for (name, file, config, words) in CONFIGURATIONS {
        refused(name, &|| {
            let head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
            let config = write(&fixture, file, &format!("{head}{config}"));
            fixture.create("it-config", &["--config", &config]).refused(words);
        });
    }
    refused("a mount that is not shared", &|| not_shared(&fixture));
    refused("a bridge of that name that is not ours", &|| foreign_bridge(&fixture));
    refused("a pool without a free network", &|| {
        let full = fixture.kiln().with_env("KILN_SUBNET_POOL", "127.0.0.0/16");
        full.start(&["create", "cluster", "--name", "it-pool"])
            .wait(LONG)
            .refused(&["127.0.0.0/16", "127.0.0.0/8"]);
        let none = fixture.kiln().with_env("KILN_SUBNET_POOL", "many");
        none.start(&["create", "cluster", "--name", "it-pool"])
            .wait(LONG)
            .refused(&["KILN_SUBNET_POOL", "many"]);
    });
    refused("IPv6 on a host that has it off", &|| ipv6_is_off(&fixture));
    refused("a user who is not root", &|| not_root(&fixture).refused(&["root"]));
    refused("a disk that is full", &|| full_disk(&fixture).refused(&["space"]));
    refused("an unknown cluster", &|| {
        fixture.kiln().run(&["get", "kubeconfig", "--name", "it-none"]).refused(&["it-none"]);
        // As with kind, deleting what is not there is no error.
        let _ = fixture.delete("it-none");
    });
    refused("doctor and version need nothing", &|| {
        let version = fixture.kiln().run(&["version"]).succeeded();
        assert!(version.stdout().contains("kiln"), "{}", version.report());
        let doctor = fixture.kiln().run(&["doctor"]);
        assert!(doctor.code() <= 1, "{}", doctor.report());
        assert!(
            doctor.stdout().contains("cgroup") || doctor.stderr().contains("cgroup"),
            "{}",
            doctor.report()
        );
    });
    steps.finish();
}

fn port_is_taken(fixture: &Fixture) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let config =
        format!("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking:\n  apiServerPort: {port}\n");
    let config = write(fixture, "port.yaml", &config);
    fixture.create("it-port", &["--config", &config]).refused(&["port", &port.to_string()]);
}

fn not_shared(fixture: &Fixture) {
    let private =
        Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &fixture.directory().join("private"));
    run("mount", &["--make-private", text(private.path())]);
    for propagation in ["Bidirectional", "HostToContainer"] {
        let path = private.path().display();
        let config = format!(
            "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n  \
             extraMounts: [{{hostPath: \"{path}\", containerPath: /mnt, propagation: {propagation}}}]\n"
        );
        let config = write(fixture, "private.yaml", &config);
        fixture.create("it-private", &["--config", &config]).refused(&[
            &path.to_string(),
            propagation,
            "shared",
        ]);
    }
}

/// It keeps what it has, and stays.
fn foreign_bridge(fixture: &Fixture) {
    const BRIDGE: &str = "kiln-it-foreign";
    run("ip", &["link", "add", "name", BRIDGE, "type", "bridge"]);
    let finished = fixture.create("it-foreign", &[]);
    let _ = fixture.delete("it-foreign");
    let still = Command::new("ip").args(["link", "show", BRIDGE]).output().expect("ip runs");
    run("ip", &["link", "delete", BRIDGE]);
    assert!(still.status.success(), "it was removed");
    assert!(!String::from_utf8_lossy(&still.stdout).contains("master"), "something was made its port");
    finished.refused(&[BRIDGE]);
}

/// In a network namespace of its own, which is all the host that this knows of.
fn ipv6_is_off(fixture: &Fixture) {
    let config = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {ipFamily: dual}\n";
    let config = write(fixture, "dual.yaml", config);
    let binary = text(fixture.kiln().binary());
    let script = format!(
        "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 && \
         exec {binary} create cluster --name it-dual --config {config}"
    );
    let finished = fixture.kiln().run_other("unshare", &["--net", "sh", "-c", &script], LONG);
    finished.refused(&["ipFamily dual", "IPv6"]);
}

fn not_root(fixture: &Fixture) -> Finished {
    // The target directory may be where nobody else may look.
    let open = tempfile::Builder::new()
        .prefix("it-nobody-")
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory");
    let binary = open.path().join("kiln");
    fs_err::copy(fixture.kiln().binary(), &binary).expect("the binary can be copied");
    fs_err::set_permissions(&binary, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=-all"]);
    command.arg(&binary).args(["create", "cluster", "--name", "it-nobody"]);
    command.env("KUBECONFIG", open.path().join("kubeconfig")).env_remove("KIND_CLUSTER_NAME");
    Running::spawn(command, Vec::new()).wait(Duration::from_secs(60))
}

/// A state root with the real images whose clusters lie on a file system of one megabyte.
fn full_disk(fixture: &Fixture) -> Finished {
    let root = fixture.directory().join("small");
    fs_err::create_dir(&root).expect("a directory");
    let _images = Mounted::new(&["--bind", text(&fixture.state_root().join("images"))], &root.join("images"));
    let _clusters = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &root.join("clusters"));
    let small = fixture.kiln().with_env("KILN_ROOT", &root).with_env("KILN_RUN_ROOT", root.join("run"));
    let finished = small.start(&["create", "cluster", "--name", "it-full"]).wait(LONG);
    let left: Vec<_> = fs_err::read_dir(root.join("clusters")).expect("it is mounted").flatten().collect();
    assert!(left.is_empty(), "{left:?} is left on the full disk after\n{}", finished.report());
    finished
}

fn write(fixture: &Fixture, name: &str, content: &str) -> String {
    let file = fixture.directory().join(name);
    fs_err::write(&file, content).expect("the directory is ours");
    text(&file).to_owned()
}
