//! What `kiln load` does, in steps that tests of several node images share: images in all forms go into one node, and images
//! go into all nodes at once.

mod forms;
mod nodes;

use serde_json::json;

use crate::{Cluster, Kiln};

pub use forms::into_node;
pub use nodes::into_nodes;

/// Runs the program of an image that a node has in a pod, which must succeed, and returns what it wrote.
#[track_caller]
fn run_loaded(kiln: &Kiln, cluster: &str, node: &str, pod: &str, image: &str) -> String {
    let (image, object) = (format!("--image={image}"), format!("pod/{pod}"));
    let overrides = format!("--overrides={}", json!({ "spec": { "nodeName": node } }));
    let run = ["run", pod, &image, &overrides, "--restart=Never", "--image-pull-policy=Never"];
    let _ = kiln.kubectl(cluster, &[&run[..], &["--", "version"]].concat()).succeeded();
    let ended = ["wait", "--for=jsonpath={.status.phase}=Succeeded", &object, "--timeout=60s"];
    let _ = kiln.kubectl(cluster, &ended).succeeded();
    let ran = Cluster::new(kiln, cluster).json(&["get", "pod", pod]);
    assert_eq!(ran["spec"]["nodeName"], node, "{ran}");
    let told = kiln.kubectl(cluster, &["logs", pod]).succeeded().stdout();
    let _ = kiln.kubectl(cluster, &["delete", &object, "--grace-period=0", "--force"]).succeeded();
    told
}
