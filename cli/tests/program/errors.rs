//! The usual mistakes: what is said about them, and the exit status.

use std::os::unix::fs::PermissionsExt;

use crate::root::{Ran, Root};

/// A command line with what it says and its status, as a person at a terminal would see it.
fn session(root: &Root, line: &str) -> String {
    told(line, &root.run(line), root)
}

fn told(line: &str, ran: &Ran, root: &Root) -> String {
    let mut text = format!("$ kiln {line}\n");
    if !ran.stdout.is_empty() {
        // Help that goes with an error is recorded as help.
        text.push_str(&format!("({} lines on standard output)\n", ran.stdout.lines().count()));
    }
    text.push_str(&ran.stderr);
    text.push_str(&format!("[{}]\n\n", ran.code.unwrap_or(-1)));
    text.replace(&root.path().display().to_string(), "ROOT")
}

fn sessions(root: &Root, lines: &[&str]) -> String {
    lines.iter().map(|line| session(root, line)).collect()
}

#[test]
fn command_lines() {
    let root = Root::new(&[("kind", "kind-control-plane")]);
    insta::assert_snapshot!(sessions(
        &root,
        &[
            "crate cluster",
            "create",
            "create clutser",
            "create cluster --nmae x",
            "create cluster extra",
            "create cluster --wait 5",
            "create cluster --wait soon",
            "create cluster --bootstrap magic",
            "create cluster -o json",
            "delete clusters",
            "get nods",
            "get nodes -o jsn",
            "completion tcsh",
            "completion",
            "load docker-image",
            "load image-archive",
            "bench boot --runs 0",
            "bench boot --fail-over 1.1x",
            "top --interval 0",
            "-v x get clusters",
            "--no-such-flag",
            "exec",
            "cp",
        ],
    ));
}

#[test]
fn names() {
    let root = Root::new(&[("kind", "kind-control-plane")]);
    insta::assert_snapshot!(sessions(
        &root,
        &[
            "get kubeconfig --name knd",
            "export kubeconfig --name knd",
            "get nodes --name knd",
            "get nodes --name Kind",
            "create cluster --name a_b --dry-run",
            "images inspect nothing",
            "images rm nothing",
            "images inspect UPPER",
        ],
    ));
}

#[test]
fn configurations() {
    const HEAD: &str = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
    let root = Root::new(&[]);
    let mut text = String::new();
    for (name, config) in [
        ("empty.yaml", String::new()),
        ("old.yaml", String::from("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha3\n")),
        ("field.yaml", format!("{HEAD}nodes:\n- role: worker\n  imagge: x\n")),
        ("role.yaml", format!("{HEAD}nodes:\n- role: master\n")),
        ("workers.yaml", format!("{HEAD}nodes:\n- role: worker\n")),
        ("tabs.yaml", format!("{HEAD}nodes:\n\t- role: worker\n")),
        ("port.yaml", format!("{HEAD}nodes:\n- extraPortMappings: [{{containerPort: 99999}}]\n")),
        ("subnet.yaml", format!("{HEAD}networking: {{podSubnet: 10.0.0.0/99, ipFamily: ipv5}}\n")),
        ("patch.yaml", format!("{HEAD}kubeadmConfigPatches: ['kind: [']\n")),
    ] {
        let file = root.file(name, &config);
        text.push_str(&format!("{name}:\n"));
        text.push_str(&session(&root, &format!("config validate --config {}", file.display())));
    }
    text.push_str(&session(&root, "config validate --config /nonexistent.yaml"));
    text.push_str(&session(&root, &format!("config validate --config {}", root.path().display())));
    insta::assert_snapshot!(text);
}

#[test]
fn files_and_state() {
    let root = Root::new(&[]);
    let state = root.path().join("state/clusters/later");
    fs_err::create_dir_all(&state).expect("a directory");
    fs_err::write(state.join("cluster.json"), "{\"schema\": 99}").expect("a file");
    let state = root.path().join("state/clusters/torn");
    fs_err::create_dir_all(&state).expect("a directory");
    fs_err::write(state.join("cluster.json"), "{\"schema\": 1, ").expect("a file");
    let program = root.file("secret", "#!/bin/sh\n");
    fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    insta::assert_snapshot!(sessions(
        &root,
        &[
            "get nodes --name later",
            "get clusters -o wide",
            "export kubeconfig --name torn",
            "bench boot --baseline /nonexistent.json --fail-over 2",
            "man /dev/null/x",
            "--root /dev/null get clusters",
        ],
    ));
}

/// Quiet commands tell of errors by their status alone, and one that is called as kind is named so.
#[test]
fn quiet_and_by_another_name() {
    let root = Root::new(&[]);
    let mut text = sessions(&root, &["-q export kubeconfig --name x", "get nodes --nope -q"]);
    let link = root.path().join("kind");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kiln"), &link).expect("a link");
    for line in ["get nodes --nope", "export kubeconfig --name x", "get clusters", "delete clusters"] {
        let mut command = std::process::Command::new(&link);
        command.args(line.split(' ')).env_clear().env("KILN_ROOT", root.path().join("state"));
        command.env("KUBECONFIG", root.path().join("kubeconfig"));
        let ran = Ran::of(command.output().expect("kiln runs"));
        text.push_str(&told(line, &ran, &root).replacen("$ kiln", "$ kind", 1));
    }
    insta::assert_snapshot!(text);
}
