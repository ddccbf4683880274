//! What commands do as far as they need neither root nor a cluster.

use fs_err as fs;

use crate::root::Root;

/// The flags of kind's commands, as its own help lists them; those that Kiln has the command for.
const OF_KIND: [(&str, &[&str]); 10] = [
    ("create cluster", &["-n", "--name", "--config", "--image", "--retain", "--wait", "--kubeconfig"]),
    ("delete cluster", &["-n", "--name", "--kubeconfig"]),
    ("delete clusters", &["-A", "--all", "--kubeconfig"]),
    ("export kubeconfig", &["-n", "--name", "--kubeconfig", "--internal"]),
    ("get clusters", &["-q", "-v"]),
    ("get nodes", &["-n", "--name", "-A", "--all-clusters"]),
    ("get kubeconfig", &["-n", "--name", "--internal"]),
    ("load docker-image", &["-n", "--name", "--nodes"]),
    ("load image-archive", &["-n", "--name", "--nodes"]),
    ("build node-image", &["--image", "--type", "--base-image", "--arch"]),
];

#[test]
fn help_has_kinds_flags() {
    let root = Root::new(&[]);
    for (command, flags) in OF_KIND {
        let help = root.run(&format!("{command} --help")).succeeded().stdout;
        let words: Vec<&str> = help.split([' ', ',', '\n', '[', '=']).collect();
        for flag in flags {
            assert!(words.contains(flag), "{command} without {flag}: {help}");
        }
    }
}

#[test]
fn manual_pages_are_written_where_asked() {
    let root = Root::new(&[]);
    let directory = root.path().join("share/man1");
    root.run(&format!("man {}", directory.display())).succeeded();
    for page in ["kiln.1", "kiln-create-cluster.1", "kiln-config-init.1"] {
        assert!(fs::read_to_string(directory.join(page)).expect(page).starts_with(".ie"), "{page}");
    }
    let denied = root.run("man /dev/null/x").failed();
    assert!(denied.stderr.contains("failed to write the manual pages"), "{denied:?}");
}

#[test]
fn the_example_is_valid_and_fits_the_schema_that_is_printed() {
    let root = Root::new(&[]);
    for flags in ["", "--full"] {
        let example = root.run(&format!("config init {flags}")).succeeded();
        let file = root.file("example.yaml", &example.stdout);
        let checked = root.run(&format!("config validate --config {}", file.display())).succeeded();
        assert_eq!(checked.stdout, "");
        assert!(checked.stderr.contains("is valid: cluster \"kind\""), "{checked:?}");
    }
    let schema = root.run("config schema").succeeded();
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).expect("JSON");
    assert_eq!(schema["properties"]["apiVersion"]["const"], "kind.x-k8s.io/v1alpha4");
    assert!(!root.path().join("state").exists(), "none of this makes anything");
}

#[test]
fn validation_tells_every_problem_at_once() {
    let root = Root::new(&[]);
    let file = root.file(
        "bad.yaml",
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- rolle: worker\nnetworking: {ipFamily: ipv5}\n",
    );
    let refused = root.run(&format!("config validate --config {}", file.display())).failed();
    for part in ["unknown field `rolle`", "ipv5", "did you mean `role`?"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    // What the format lets through, and no host can do.
    let file = root.file(
        "port.yaml",
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking: {apiServerAddress: here}\n",
    );
    let refused = root.run(&format!("config validate --config {}", file.display())).failed();
    assert!(refused.stderr.contains("apiServerAddress"), "{refused:?}");
}

#[test]
fn what_only_this_host_lacks_is_a_warning() {
    let root = Root::new(&[]);
    let file = root.file(
        "mount.yaml",
        "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- extraMounts: [{hostPath: /no/such, containerPath: /x}]\n",
    );
    let checked = root.run(&format!("config validate --config {}", file.display())).succeeded();
    assert!(checked.stderr.contains("WARNING: this host cannot run it"), "{checked:?}");
}

#[test]
fn listings_come_in_every_format() {
    let root = Root::new(&[("dev", "dev-control-plane"), ("kind", "kind-control-plane")]);
    assert_eq!(root.run("get clusters").succeeded().stdout, "dev\nkind\n");
    let wide = root.run("get clusters -o wide").succeeded();
    insta::assert_snapshot!(wide.stdout, @r"
    NAME  STATUS  NODES  VERSION  AGE  API
    dev   broken  0
    kind  broken  0
    ");
    assert!(wide.stderr.contains("Cluster \"dev\" is broken: its creation was interrupted"), "{wide:?}");
    let yaml = root.run("get clusters -o yaml").succeeded().stdout;
    assert!(yaml.contains("\n  name: dev\n") && yaml.contains("  state: broken\n- "), "{yaml}");
    let json: serde_json::Value =
        serde_json::from_str(&root.run("get clusters -o json").succeeded().stdout).expect("JSON");
    assert_eq!(json[1]["name"], "kind");
    assert_eq!(json[1]["problem"], "its creation was interrupted");
    for listing in ["get nodes", "images ls --host"] {
        for format in ["json", "yaml"] {
            assert_eq!(root.run(&format!("{listing} -o {format}")).succeeded().stdout, "[]\n", "{listing}");
        }
        root.run(&format!("{listing} -o wide")).succeeded();
    }
    let doctor = root.run("doctor -o yaml");
    assert!(doctor.stdout.starts_with("- cure:"), "{doctor:?}");
}

#[test]
fn what_is_misspelt_is_guessed() {
    let root = Root::new(&[("kind", "kind-control-plane")]);
    for (line, guess) in [
        ("crate cluster", "'create'"),
        ("get nods", "'nodes'"),
        ("get nodes --nam x", "'--name'"),
        ("get nodes -o jsn", "'json'"),
        ("export kubeconfig --name knd", "did you mean \"kind\"?"),
    ] {
        let failed = root.run(line).failed();
        assert!(failed.stderr.contains(guess), "{line}: {}", failed.stderr);
    }
    // That there is no such cluster is no error, as with kind; but it may be a mistake.
    let listed = root.run("get nodes --name knd").succeeded();
    assert!(listed.stderr.contains("did you mean \"kind\"?"), "{listed:?}");
    let listed = root.run("get nodes --name kind").succeeded();
    assert!(!listed.stderr.contains("hint"), "{listed:?}");
}

#[test]
fn an_output_belongs_to_a_dry_run() {
    let root = Root::new(&[]);
    for line in ["create cluster -o json", "delete cluster -o json", "delete clusters -A -o yaml"] {
        let failed = root.run(line).failed();
        assert!(failed.stderr.contains("--dry-run"), "{line}: {failed:?}");
    }
}
