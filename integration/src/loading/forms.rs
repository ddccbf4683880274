//! Images in all the forms that they are loaded in, into one node.

use std::path::Path;

use serde_json::Value;

use super::run_loaded;
use crate::{Finished, Fixture, HostContainerd, Kiln, Steps, TestImage, disk, host::text, kiln::LONG};

const FIRST: &str = "example.org/it/first:1";
const SECOND: &str = "example.org/it/second:1";
const THIRD: &str = "example.org/it/third:1";
const FOURTH: &str = "example.org/it/fourth:1";

/// Loads images into one node of a cluster. `host` has the programs of the containerd that the host is to have.
pub fn into_node(fixture: &Fixture, cluster: &str, node: &str, host: &Path, steps: &mut Steps) {
    let before = disk::store_contents(fixture.state_root());
    // A static program that the tests have at hand.
    let image = TestImage::new(&fs_err::read(fixture.kiln().binary()).expect("the binary is there"));
    let file = fixture.directory().join("image.tar");
    fs_err::write(&file, image.docker_archive(FIRST)).expect("the directory is ours");
    let loads = Loads { fixture, kiln: fixture.kiln(), cluster, node, image: &image, file: text(&file) };
    steps.step("an image is loaded from a file, and pods run it at once", || loads.load_file());
    steps.step("what a node has is not sent again", || loads.again());
    steps.step("another is loaded from standard input and unpacked, an index with an absent variant", || {
        loads.load_standard_input();
    });
    steps.step("an image comes from the host's containerd, of whatever namespace", || {
        loads.load_of_containerd(host);
    });
    steps.step("an image comes from a layout, and containerd misses nothing of any", || loads.load_layout());
    steps.step("what cannot be loaded is refused", || loads.refused());
    steps.step("loading leaves nothing in the host's store", || {
        assert_eq!(disk::store_contents(fixture.state_root()), before, "the store has changed");
    });
}

struct Loads<'a> {
    fixture: &'a Fixture,
    kiln: &'a Kiln,
    cluster: &'a str,
    node: &'a str,
    image: &'a TestImage,
    /// An archive of it.
    file: &'a str,
}

impl Loads<'_> {
    fn load_file(&self) {
        assert!(!self.lists(FIRST), "it is there before it was loaded");
        let finished = self.load(&[self.file], b"").succeeded();
        let told = format!("{FIRST:?} into node {}", self.node);
        assert!(finished.stderr().contains(&told), "{}", finished.report());
        assert!(self.lists(FIRST), "{}", finished.report());
        self.run("first", FIRST);
    }

    fn again(&self) {
        let finished = self.load(&[self.file], b"").succeeded();
        let present = format!("Image {FIRST:?} (ID {}): present on node {}", self.image.id(), self.node);
        assert!(finished.stderr().contains(&present), "{}", finished.report());
        assert!(!finished.stderr().contains("Loading"), "{}", finished.report());
    }

    fn load_standard_input(&self) {
        let archive = self.image.oci_archive(SECOND);
        let finished = self.load(&["-", "--unpack", "-v", "1"], &archive).succeeded();
        // The layer is the first image's, and is there: only the documents are new.
        let sent = finished.stderr().lines().find_map(|line| {
            line.split_once(" bytes sent to node")?.0.rsplit(' ').next()?.parse::<u64>().ok()
        });
        assert!(sent.is_some_and(|bytes| bytes > 0 && bytes < 10_000), "{}", finished.report());
        assert!(self.lists(SECOND), "{}", finished.report());
        self.run("second", SECOND);
        let finished = self.load(&["-", "--unpack"], &archive).succeeded();
        assert!(finished.stderr().contains("present on node"), "{}", finished.report());
    }

    fn load_of_containerd(&self, programs: &Path) {
        let archive = self.fixture.directory().join("third.tar");
        fs_err::write(&archive, TestImage::new(b"of containerd").oci_archive(THIRD))
            .expect("the directory is ours");
        let host = HostContainerd::start(programs, self.fixture.directory());
        let _ = host.ctr(&["-n", "moby", "images", "import", "--no-unpack", text(&archive)]).succeeded();
        let kiln = self.kiln.with_env("CONTAINERD_ADDRESS", host.socket());
        let load = |kiln: &Kiln, name| {
            kiln.run(&["load", "docker-image", "-n", self.cluster, "--nodes", self.node, name])
        };
        let finished = load(&kiln, THIRD).succeeded();
        let from = format!("Image {THIRD:?} comes from containerd (namespace moby)");
        assert!(finished.stderr().contains(&from), "{}", finished.report());
        assert!(self.lists(THIRD), "{}", finished.report());
        let finished = load(&kiln, THIRD).succeeded();
        assert!(finished.stderr().contains("present on node"), "{}", finished.report());
        let elsewhere = kiln.with_env("CONTAINERD_NAMESPACE", "default");
        load(&elsewhere, "localhost:9/it/none:1").refused(&["containerd", "does not have it"]);
        let _ = self.in_node(&["crictl", "rmi", THIRD]);
    }

    fn load_layout(&self) {
        let archive = TestImage::new(b"of a layout").oci_archive(FOURTH);
        let layout = self.fixture.directory().join("layout");
        tar::Archive::new(archive.as_slice()).unpack(&layout).expect("the directory is ours");
        let load =
            ["load", "oci-layout", "-n", self.cluster, "--nodes", self.node, text(&layout), "--unpack"];
        let _ = self.kiln.run(&load).succeeded();
        assert!(self.lists(FOURTH));
        // What containerd itself says: pods have unpacked the others.
        let checked = self.in_node(&["ctr", "-n", "k8s.io", "images", "check", "name~=example.org/it/"]);
        for name in [FIRST, SECOND, FOURTH] {
            let line = checked.lines().find(|line| line.starts_with(name));
            let words: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
            assert!(words.contains(&"complete") && words.last() == Some(&"true"), "{name}:\n{checked}");
        }
    }

    fn refused(&self) {
        self.load(&["-"], b"no archive").refused(&["standard input is not an image archive"]);
        let archive = self.image.docker_archive("example.org/it/none:1");
        self.load(&["-"], &archive[..archive.len() / 2]).refused(&["standard input is truncated"]);
        self.load(&["/nonexistent.tar"], b"").refused(&["/nonexistent.tar"]);
        let load = |cluster, more: &[&str]| {
            self.kiln.run(&[&["load", "image-archive", "-n", cluster, self.file], more].concat())
        };
        load(self.cluster, &["--nodes", "it-none"]).refused(&["unknown node: \"it-none\""]);
        load("it-none", &[]).refused(&["no nodes found", "it-none"]);
        // Nothing listens there, so a pull fails at once.
        let missing = self.kiln.run(&["load", "docker-image", "-n", self.cluster, "localhost:9/it/none:1"]);
        missing.refused(&["localhost:9/it/none:1", "image store"]);
    }

    fn load(&self, args: &[&str], input: &[u8]) -> Finished {
        let all = ["load", "image-archive", "--name", self.cluster, "--nodes", self.node];
        let finished = self.kiln.run_with(&[&all[..], args].concat(), input, LONG);
        assert!(finished.stdout().is_empty(), "progress is for stderr:\n{}", finished.report());
        finished
    }

    fn lists(&self, name: &str) -> bool {
        let list = self.kiln.run(&["images", "ls", "--node", self.node, "-o", "json"]).succeeded();
        let list: Value = serde_json::from_slice(list.bytes()).expect("it is JSON");
        list.as_array().into_iter().flatten().any(|image| image["name"] == name)
    }

    fn run(&self, pod: &str, image: &str) {
        let told = run_loaded(self.kiln, self.cluster, self.node, pod, image);
        assert!(told.contains("kiln"), "{told}");
    }

    fn in_node(&self, command: &[&str]) -> String {
        self.kiln.run(&[&["exec", self.node, "--"], command].concat()).succeeded().stdout()
    }
}
