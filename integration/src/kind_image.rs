//! A node image to kind's contract, made out of Kiln's: the same programs, kind's way of keeping images, of configuring
//! containerd and of starting.
//!
//! What differs from Kiln's image is what upstream's images differ in: those of the control plane are in containerd's content
//! store and not unpacked, one is in an archive as in kind's first versions, containerd's configuration is of version 2
//! with a specification for all containers and a hook, and the entrypoint is another one.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{Fixture, Registry, Tools, kiln::LONG};

/// Files of the image, with the modes that they have there.
const FILES: [(&str, u32, &str); 3] = [
    ("usr/local/bin/entrypoint", 0o755, include_str!("kind_image/entrypoint")),
    ("etc/containerd/config.toml", 0o644, include_str!("kind_image/config.toml")),
    ("kind/bin/mount-product-files.sh", 0o755, include_str!("kind_image/mount-product-files.sh")),
];

/// Makes the rest, in a node.
const SCRIPT: &str = include_str!("kind_image/make.sh");

/// What the entrypoint says on the console.
pub const ENTRYPOINT_SAYS: &str = "KIND-CONTRACT: becomes /sbin/init";

/// Makes a node of an image in which containerd runs, and no Kubernetes: that is not needed.
#[track_caller]
pub fn make_node(fixture: &Fixture, cluster: &str, image: &str) {
    let stopping = fixture.kiln().with_env("KILN_STOP_AFTER", "nodes");
    let _ =
        stopping.start(&["create", "cluster", "--name", cluster, "--image", image]).wait(LONG).succeeded();
}

/// Makes the image and puts it into a registry. Returns its name there. `maker` is the cluster of the node that it is made in,
/// which is deleted, and `base` that node's image.
#[track_caller]
pub fn push(fixture: &Fixture, tools: &Tools, registry: &Registry, maker: &str, base: &str) -> String {
    let kiln = fixture.kiln();
    let pushed = registry.name("base:1");
    let _ = kiln.start(&["push", base, &pushed]).wait(LONG).succeeded();

    let node = format!("{maker}-control-plane");
    let work =
        fixture.state_root().join("clusters").join(maker).join("nodes").join(&node).join("var/tmp/kind");
    for (path, mode, text) in FILES {
        write(&work.join("root").join(path), mode, text);
    }
    let _ = kiln.start(&["exec", &node, "--", "bash", "-c", SCRIPT]).wait(LONG).succeeded();
    let name = registry.name("kindest/node:v1.34.4");
    append(tools, &pushed, &work.join("layer.tar"), &name);
    let _ = fixture.delete(maker);
    name
}

/// Makes another image of one in a registry, with one file more or another one in its place.
#[track_caller]
pub fn push_with_file(
    fixture: &Fixture,
    tools: &Tools,
    base: &str,
    name: &str,
    (path, mode, text): (&str, u32, &str),
) {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(mode);
    layer.append_data(&mut header, path, text.as_bytes()).expect("memory takes everything");
    let file = fixture.directory().join("layer.tar");
    fs_err::write(&file, layer.into_inner().expect("memory takes everything")).expect("a file of the test");
    append(tools, base, &file, name);
}

#[track_caller]
fn append(tools: &Tools, base: &str, layer: &Path, name: &str) {
    let layer = layer.to_str().expect("paths of tests are text");
    drop(tools.crane(&["append", "--base", base, "--new_layer", layer, "--new_tag", name]).succeeded());
}

fn write(path: &PathBuf, mode: u32, text: &str) {
    fs_err::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory of the node");
    fs_err::write(path, text).expect("a file of the node");
    fs_err::set_permissions(path, Permissions::from_mode(mode)).expect("a file of ours");
}
