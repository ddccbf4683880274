//! Templates of control planes that tests leave in the state root.

use std::path::PathBuf;

use fs_err as fs;
use serde_json::{Value, json};

use crate::Fixture;

/// A file with a configuration that no earlier run has left a template of, for clusters of these nodes.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn unique_configuration(fixture: &Fixture, nodes: &Value) -> String {
    let unique = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel has one");
    let text = json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": nodes,
        "kubeadmConfigPatches": [
            format!("kind: ClusterConfiguration\napiServer:\n  certSANs: [{}.example]\n", unique.trim()),
        ],
    });
    let path = fixture.directory().join("unique.yaml");
    fs::write(&path, text.to_string()).expect("the fixture's directory is writable");
    path.to_str().expect("a path of ours is text").to_owned()
}

/// The templates that name one of these nodes or clusters, with their texts.
#[must_use]
pub fn naming(fixture: &Fixture, names: &[&str]) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(fixture.state_root().join("templates")).into_iter().flatten();
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let read = paths.filter_map(|path| Some((path.clone(), fs::read_to_string(path).ok()?)));
    read.filter(|(_, text)| names.iter().any(|name| text.contains(name))).collect()
}

/// Removes the templates that name one of these nodes or clusters: no other run will use them.
///
/// # Panics
/// When one cannot be removed.
pub fn forget(fixture: &Fixture, names: &[&str]) {
    for (path, _) in naming(fixture, names) {
        fs::remove_file(path).expect("it is a file of ours");
    }
}
