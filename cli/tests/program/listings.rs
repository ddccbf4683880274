//! Every listing in every format, of what a real cluster of two nodes and a registry have left on the disk. None of their
//! processes is there any more, as after the host has been started anew.

use fs_err as fs;

use crate::root::Root;

/// `created` in the records; the listings tell how long ago that was.
const CREATED: [&str; 2] = ["2026-11-24T20:52:30.275912471Z", "2026-11-24T20:53:23.408247897Z"];
/// What it is replaced with: long enough ago for the age to be the same all day.
const LONG_AGO: &str = "2000-01-01T00:00:00.5Z";

fn root() -> Root {
    let root = Root::new(&[]);
    let state = root.path().join("state");
    for (path, text) in [
        ("clusters/dev/cluster.json", include_str!("data/cluster.json")),
        ("clusters/dev/trace.json", include_str!("data/trace.json")),
        ("clusters/dev/nodes/dev-control-plane/node.json", include_str!("data/control-plane.json")),
        ("clusters/dev/nodes/dev-worker/node.json", include_str!("data/worker.json")),
        ("registries/kiln-registry/registry.json", include_str!("data/registry.json")),
    ] {
        let file = state.join(path);
        let text = CREATED.iter().fold(text.to_owned(), |text, time| text.replace(time, LONG_AGO));
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        fs::write(file, text).expect("a file");
    }
    // One whose creation was killed before anything was written down.
    fs::create_dir_all(state.join("clusters/half/nodes/half-control-plane")).expect("a directory");
    root
}

/// What a command says, all in one text.
fn told(root: &Root, line: &str) -> String {
    let ran = root.run(line);
    let errors = if ran.stderr.is_empty() { String::new() } else { format!("\n--- stderr\n{}", ran.stderr) };
    let text = format!("$ kiln {line}\n--- exit {}\n{}{errors}", ran.code.unwrap_or(-1), ran.stdout);
    // The days since the turn of the century.
    let days = text.split_whitespace().find(|word| {
        word.strip_suffix('d').is_some_and(|days| days.len() >= 4 && days.bytes().all(|b| b.is_ascii_digit()))
    });
    match days {
        Some(days) => text.replace(days, &"D".repeat(days.len())),
        None => text,
    }
}

#[test]
fn listings_are_as_recorded() {
    let root = root();
    for listing in ["get clusters", "get nodes --all-clusters", "get nodes --name dev", "registry ls"] {
        for format in ["text", "wide", "json", "yaml"] {
            let name = format!("{}-{format}", listing.replace("--", "").replace(' ', "-"));
            insta::assert_snapshot!(name, told(&root, &format!("{listing} -o {format}")));
        }
    }
}

#[test]
fn nothing_to_list_is_said_on_standard_error() {
    let root = Root::new(&[]);
    let mut text = String::new();
    for listing in [
        "get clusters",
        "get nodes",
        "get nodes -A",
        "get nodes -A -o wide",
        "registry ls",
        "registry ls -o wide",
        "images ls --host",
        "images ls --host -o wide",
        "images ls --host -o json",
    ] {
        text.push_str(&told(&root, listing));
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

/// Traces are told to root alone.
#[test]
fn traces_are_as_recorded() {
    let root = root();
    if root.run("trace show --name dev").stderr.contains("needs root") {
        eprintln!("skipped: not root");
        return;
    }
    for format in ["text", "wide", "json", "yaml"] {
        insta::assert_snapshot!(
            format!("trace-show-{format}"),
            told(&root, &format!("trace show --name dev -o {format}"))
        );
    }
    let same = ["--name", "--cluster"].map(|flag| root.run(&format!("trace show {flag} dev")).stdout);
    assert_eq!(same[0], same[1]);
}
