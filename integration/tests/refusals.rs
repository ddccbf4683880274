//! Bad input: one clear error each that names the object, and nothing left behind.

use std::{
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kiln_integration::{Finished, Fixture, Running, Steps, kiln::LONG};

/// The user and group `nobody` and `nogroup` of Debian.
const NOBODY: &str = "65534";

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

struct Mounted(PathBuf);

impl Mounted {
    fn new(args: &[&str], target: &Path) -> Self {
        fs_err::create_dir(target).expect("a directory");
        let status = Command::new("mount").args(args).arg(target).status().expect("mount runs");
        assert!(status.success(), "mount {args:?} {}", target.display());
        Self(target.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn write(fixture: &Fixture, name: &str, content: &str) -> String {
    let file = fixture.directory().join(name);
    fs_err::write(&file, content).expect("the directory is ours");
    text(&file).to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}
