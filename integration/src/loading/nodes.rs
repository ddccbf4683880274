//! Images loaded into several nodes: what they share, what they must not, and what is left when loading ends early.

use std::{
    fs::Metadata,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::run_loaded;
use crate::{
    Fixture, Steps, TestImage, disk,
    kiln::{LONG, SHORT},
};

const BLOBS: &str = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";
const NAME: &str = "example.org/it/shared:1";
/// Bytes that take long enough to be read that a run can be ended meanwhile.
const LARGE: usize = 200_000_000;

/// Loads images into all nodes of a cluster with three of them, which have room for no others of these names.
pub fn into_nodes(fixture: &Fixture, cluster: &str, nodes: [&str; 3], steps: &mut Steps) {
    let loads = Loads { fixture, cluster, nodes };
    steps.step("nodes have what is loaded into them in common", || loads.shared());
    steps.step("a node that removes an image takes it from nobody else", || loads.removed());
    steps.step("a link that a node has planted is not followed", || loads.planted());
    steps.step("a node whose containerd shares nothing is sent the image", || loads.isolated());
    steps.step("an image that is damaged leaves nothing", || loads.damaged());
    steps.step("a load that is ended leaves nothing", || loads.ended());
}

struct Loads<'a> {
    fixture: &'a Fixture,
    cluster: &'a str,
    nodes: [&'a str; 3],
}

impl Loads<'_> {
    fn shared(&self) {
        // A static program that the tests have at hand.
        let program = fs_err::read(self.fixture.kiln().binary()).expect("the binary is there");
        let image = TestImage::new(&program);
        self.load(&image, NAME);
        let [first, second, third] = self.nodes.map(|node| self.blob(node, &image).expect("it was loaded"));
        assert_eq!((first.ino(), first.ino()), (second.ino(), third.ino()));
        assert_eq!((first.nlink(), first.permissions().mode() & 0o7777), (3, 0o444));
        assert_eq!((first.uid(), first.gid()), (0, 0));
        let used = self.fixture.kiln().run(&["df", "-o", "json"]).succeeded();
        let used: Value = serde_json::from_slice(used.bytes()).expect("it is JSON");
        let of = |kind: &str, name: &str, field: &str| {
            let mut items = used.as_array().into_iter().flatten();
            let item = items.find(|item| item["kind"] == kind && item["name"] == name);
            item.and_then(|item| item[field].as_u64()).unwrap_or_else(|| panic!("no {name}: {used}"))
        };
        // Once, and in none of the nodes alone.
        let alone: u64 = self.nodes.map(|node| of("node", node, "disk_bytes")).iter().sum();
        assert!(of("cluster", self.cluster, "disk_bytes") >= alone + first.len(), "{used}");
    }

    fn removed(&self) {
        let program = fs_err::read(self.fixture.kiln().binary()).expect("the binary is there");
        let image = TestImage::new(&program);
        self.remove(self.nodes[1], &image);
        assert!(self.blob(self.nodes[1], &image).is_none(), "it is still there");
        assert_eq!(self.blob(self.nodes[0], &image).expect("it was loaded").nlink(), 2);
        let said =
            self.in_node(self.nodes[2], &format!("ctr -n k8s.io content get {} | sha256sum", layer(&image)));
        assert!(said.starts_with(&hex(&image)), "{said}");
        let _ = run_loaded(self.fixture.kiln(), self.cluster, self.nodes[2], "shared", NAME);
    }

    fn planted(&self) {
        let (image, node) = (TestImage::new(b"planted"), self.nodes[1]);
        let moved = "/var/lib/containerd/it-moved";
        let _ = self.in_node(node, &format!("mv {BLOBS} {moved} && ln -s {moved} {BLOBS}"));
        self.load(&image, "example.org/it/planted:1");
        assert!(!Path::new(moved).exists(), "the host has followed it");
        // The node has it all the same, and only for itself.
        let said = self.in_node(node, &format!("stat -c %h {moved}/{}", hex(&image)));
        assert_eq!(said.trim(), "1");
        let _ = self.in_node(node, &format!("rm {BLOBS} && mv {moved} {BLOBS}"));
        assert_eq!(self.blob(self.nodes[2], &image).expect("it was loaded").nlink(), 2);
    }

    fn isolated(&self) {
        let (image, node) = (TestImage::new(b"isolated"), self.nodes[1]);
        let _ = self.in_node(
            node,
            "cp /etc/containerd/config.toml /run/config.toml &&
             printf '\\n[plugins.\"io.containerd.metadata.v1.bolt\"]\\n  content_sharing_policy = \"isolated\"\\n' \
             >>/etc/containerd/config.toml && systemctl restart containerd",
        );
        self.load(&image, "example.org/it/isolated:1");
        let [first, own, third] = self.nodes.map(|node| self.blob(node, &image).expect("it was loaded"));
        assert_eq!((first.ino(), first.nlink(), own.nlink()), (third.ino(), 2, 1));
        let _ = self
            .in_node(node, "cp /run/config.toml /etc/containerd/config.toml && systemctl restart containerd");
    }

    fn damaged(&self) {
        let image = TestImage::new(&[7; 100_000]);
        let mut archive = image.docker_archive("example.org/it/damaged:1");
        archive[50_000] ^= 1;
        let before = disk::store_contents(self.fixture.state_root());
        let path = self.file("damaged.tar", &archive);
        let load = ["load", "image-archive", "-n", self.cluster, &path];
        self.fixture.kiln().run(&load).refused(&["layer/layer.tar of", "has digest", &layer(&image)]);
        assert_eq!(disk::store_contents(self.fixture.state_root()), before);
        for node in self.nodes {
            assert!(self.blob(node, &image).is_none(), "{node} has it");
            let known = self.in_node(node, "ctr -n k8s.io content ls -q; ctr -n k8s.io leases ls");
            assert!(!known.contains(&hex(&image)) && !known.contains("kiln-"), "{known}");
        }
    }

    fn ended(&self) {
        let image = TestImage::new(&vec![9; LARGE]);
        let path = self.file("large.tar", &image.docker_archive("example.org/it/large:1"));
        let before = disk::store_contents(self.fixture.state_root());
        let start = || {
            let load = self.fixture.kiln().start(&["load", "image-archive", "-n", self.cluster, &path]);
            assert!(load.wait_for_stderr("Loading image", SHORT), "it does not begin");
            load
        };
        let load = start();
        load.signal(Signal::SIGINT);
        let _ = load.wait(SHORT).exited(130);
        assert_eq!(disk::store_contents(self.fixture.state_root()), before);
        start().kill();
        // Whatever that has left is gone with the next.
        self.load(&TestImage::new(b"next"), "example.org/it/next:1");
        assert_eq!(disk::store_contents(self.fixture.state_root()), before);
        for node in self.nodes {
            assert!(self.blob(node, &image).is_none(), "{node} has it");
        }
    }

    fn load(&self, image: &TestImage, name: &str) {
        let path = self.file("image.tar", &image.docker_archive(name));
        let load = ["load", "image-archive", "-n", self.cluster, &path];
        let _ = self.fixture.kiln().start(&load).wait(LONG).succeeded();
    }

    fn remove(&self, node: &str, image: &TestImage) {
        // CRI may be faster to remove the id. What nothing refers to is gone when the last one is.
        let script = format!("ctr -n k8s.io images rm --sync {NAME} {} || true", image.id());
        let _ = self.in_node(node, &script);
        let _ = self.in_node(node, "ctr -n k8s.io content prune references");
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.fixture.directory().join(name);
        fs_err::write(&path, content).expect("the directory is ours");
        path.to_str().expect("a path of ours is text").to_owned()
    }

    fn in_node(&self, node: &str, script: &str) -> String {
        self.fixture.kiln().run(&["exec", node, "--", "sh", "-c", script]).succeeded().stdout()
    }

    /// The layer of an image in a node, as the host sees it.
    fn blob(&self, node: &str, image: &TestImage) -> Option<Metadata> {
        let nodes: PathBuf = self.fixture.state_root().join("clusters").join(self.cluster).join("nodes");
        let blobs = nodes.join(node).join(BLOBS.trim_start_matches('/'));
        fs_err::symlink_metadata(blobs.join(hex(image))).ok()
    }
}

fn layer(image: &TestImage) -> String {
    image.blobs()[0].0.clone()
}

fn hex(image: &TestImage) -> String {
    layer(image).trim_start_matches("sha256:").to_owned()
}
