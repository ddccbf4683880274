//! Node images whose containerd is an old one, as kind's had it for years: Debian's 1.6 and 1.7, with the shim and
//! the client of the same package. What unpacks the images in them is that containerd, and so is what images are loaded into.

use std::path::Path;

use kiln_integration::{
    Cluster, Fixture, Registry, Steps, Tools,
    cluster::items,
    debian, fixture,
    kind_image::{self, UNPACKING},
    loading,
};

const MAKER: &str = "it-maker";
const OWN_IMAGE: &str = "kiln/node:v1.34.4";
/// Of Debian's releases, with the version that they have.
const OLDEST: (&str, &str) = ("bookworm", "1.6");
const LAST: (&str, &str) = ("trixie", "1.7");
const CLUSTER: &str = "it-old";
const NODES: [&str; 3] = ["it-old-control-plane", "it-old-worker", "it-old-worker2"];

#[test]
fn nodes_with_an_old_containerd_take_images_as_others_do() {
    let Some(oldest) = debian::programs(OLDEST.0, "containerd") else { return };
    let Some(last) = debian::programs(LAST.0, "containerd") else { return };
    let Some(tools) = Tools::open() else { return };
    let Some(fixture) = Fixture::open() else { return };
    let registry = tools.registry(fixture.directory(), &[]);
    let mut steps = Steps::default();
    let mut images = Vec::new();
    if steps.step("images with old containerds are in a registry", || {
        images = push(&fixture, &tools, &registry, &oldest, &last).into();
    }) {
        for ((image, programs), (_, version)) in images.iter().zip([&oldest, &last]).zip([OLDEST, LAST]) {
            eprintln!("  containerd {version}");
            if steps.step("its images are unpacked, and a cluster comes up", || {
                create(&fixture, image, version);
            }) {
                loading::into_nodes(&fixture, CLUSTER, NODES, &mut steps);
                loading::into_node(&fixture, CLUSTER, NODES[1], programs, &mut steps);
            }
            steps.step("the cluster is deleted", || drop(fixture.delete(CLUSTER)));
        }
        steps.step("the images are removed", || kind_image::remove(&fixture, &registry));
    }
    steps.step("nothing is left", || fixture.assert_nothing_left());
    steps.finish();
}

/// One image whose contents the oldest has brought in, and the same with the last in its place.
fn push(fixture: &Fixture, tools: &Tools, registry: &Registry, oldest: &Path, last: &Path) -> [String; 2] {
    kind_image::make_node(fixture, MAKER, OWN_IMAGE);
    let first = kind_image::push(fixture, tools, registry, (MAKER, OWN_IMAGE), Some(oldest));
    let second = registry.name("kindest/node:newer");
    kind_image::push_with_files(fixture, tools, &first, &second, &kind_image::read_programs(last));
    [first, second]
}

fn create(fixture: &Fixture, image: &str, version: &str) {
    let config = fixture::data("old-containerd.yaml");
    let config = config.to_str().expect("a source path is text");
    let created =
        fixture.create(CLUSTER, &["--config", config, "--image", image, "--wait", "5m"]).succeeded();
    assert!(created.stderr().contains(UNPACKING), "{}", created.report());
    assert!(created.stderr().contains("Ready after"), "{}", created.report());
    let nodes = Cluster::new(fixture.kiln(), CLUSTER).json(&["get", "nodes"]);
    let runs = format!("containerd://{version}.");
    let told = |node: &serde_json::Value| {
        let told = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str();
        told.is_some_and(|told| told.starts_with(&runs))
    };
    assert_eq!(items(&nodes).filter(|node| told(node)).count(), NODES.len(), "{nodes}");
}
