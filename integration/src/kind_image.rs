//! A node image to kind's contract, made out of Kiln's: the same programs, kind's way of keeping images, of configuring
//! containerd and of starting.
//!
//! What differs from Kiln's image is what upstream's images differ in: those of the control plane are in containerd's content
//! store and not unpacked, one is in an archive as in kind's first versions, containerd's configuration is of version 2
//! with a specification for all containers and a hook, and the entrypoint is another one.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use crate::{Fixture, Registry, Tools, kiln::LONG};

/// Files of the image, with the modes that they have there.
const FILES: [(&str, u32, &str); 3] = [
    ("usr/local/bin/entrypoint", 0o755, include_str!("kind_image/entrypoint")),
    ("etc/containerd/config.toml", 0o644, include_str!("kind_image/config.toml")),
    ("kind/bin/mount-product-files.sh", 0o755, include_str!("kind_image/mount-product-files.sh")),
];

/// A file of an image: its path, its mode and what it holds.
pub type File = (String, u32, Vec<u8>);

/// What a node runs of containerd.
const PROGRAMS: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];

/// Makes the rest, in a node.
const SCRIPT: &str = include_str!("kind_image/make.sh");

/// What the entrypoint says on the console.
pub const ENTRYPOINT_SAYS: &str = "KIND-CONTRACT: becomes /sbin/init";

/// What is said when the images in one are unpacked, and at no other time.
pub const UNPACKING: &str = "Unpacking the images in";

/// Makes a node of an image in which containerd runs, and no Kubernetes: that is not needed.
#[track_caller]
pub fn make_node(fixture: &Fixture, cluster: &str, image: &str) {
    let stopping = fixture.kiln().with_env("KILN_STOP_AFTER", "nodes");
    let _ =
        stopping.start(&["create", "cluster", "--name", cluster, "--image", image]).wait(LONG).succeeded();
}

/// Makes the image and puts it into a registry. Returns its name there. `maker` is the cluster of the node that it is made in,
/// which is deleted, and `base` that node's image. With the programs of another containerd, that is the image's, and what has
/// brought the images in.
#[track_caller]
pub fn push(
    fixture: &Fixture,
    tools: &Tools,
    registry: &Registry,
    (maker, base): (&str, &str),
    containerd: Option<&Path>,
) -> String {
    let kiln = fixture.kiln();
    let pushed = registry.name("base:1");
    let _ = kiln.start(&["push", base, &pushed]).wait(LONG).succeeded();

    let node = format!("{maker}-control-plane");
    let work =
        fixture.state_root().join("clusters").join(maker).join("nodes").join(&node).join("var/tmp/kind");
    let root = work.join("root");
    for (path, mode, text) in FILES {
        write(&root.join(path), mode, text.as_bytes());
    }
    for (path, mode, program) in containerd.map(read_programs).unwrap_or_default() {
        write(&root.join(path), mode, &program);
    }
    let _ = kiln.start(&["exec", &node, "--", "bash", "-c", SCRIPT]).wait(LONG).succeeded();
    let name = registry.name("kindest/node:v1.34.4");
    append(tools, &pushed, &work.join("layer.tar"), &name);
    let _ = fixture.delete(maker);
    name
}

/// Makes another image of one in a registry, with these files more or in the place of others.
#[track_caller]
pub fn push_with_files(fixture: &Fixture, tools: &Tools, base: &str, name: &str, files: &[File]) {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        layer.append_data(&mut header, path, content.as_slice()).expect("memory takes everything");
    }
    let file = fixture.directory().join("layer.tar");
    fs_err::write(&file, layer.into_inner().expect("memory takes everything")).expect("a file of the test");
    append(tools, base, &file, name);
}

/// The programs of a containerd as files of an image, in the place of its own.
#[must_use]
pub fn read_programs(directory: &Path) -> Vec<File> {
    let read = |name: &str| {
        let program = fs_err::read(directory.join(name)).expect("a program of containerd's");
        (format!("usr/local/bin/{name}"), 0o755, program)
    };
    PROGRAMS.map(read).into()
}

/// Removes the images of a registry from the image store.
#[track_caller]
pub fn remove(fixture: &Fixture, registry: &Registry) {
    let kiln = fixture.kiln();
    let listed = kiln.run(&["images", "ls", "--host", "-o", "json"]).succeeded();
    let listed: serde_json::Value = serde_json::from_slice(listed.bytes()).expect("a listing");
    let ours = registry.name("");
    let names = listed.as_array().into_iter().flatten().filter_map(|image| image["name"].as_str());
    let names: Vec<&str> = names.filter(|name| name.starts_with(&ours)).collect();
    assert!(!names.is_empty(), "{listed}");
    let mut args = vec!["images", "rm"];
    args.extend(names);
    let _ = kiln.run(&args).succeeded();
}

#[track_caller]
fn append(tools: &Tools, base: &str, layer: &Path, name: &str) {
    let layer = layer.to_str().expect("paths of tests are text");
    drop(tools.crane(&["append", "--base", base, "--new_layer", layer, "--new_tag", name]).succeeded());
}

fn write(path: &Path, mode: u32, content: &[u8]) {
    fs_err::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory of the node");
    fs_err::write(path, content).expect("a file of the node");
    fs_err::set_permissions(path, Permissions::from_mode(mode)).expect("a file of ours");
}
