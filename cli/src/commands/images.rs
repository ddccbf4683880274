//! `images ls`

use std::collections::{BTreeMap, BTreeSet};

use kiln_provision::{
    cluster,
    image::{Reference, Store},
    state::NodeRole,
};

use super::{Session, block_on, get};
use crate::{
    arguments::{Format, ImagesLs},
    failure::{Context, Failure, require_root},
    json, table,
};

/// How much of a digest is shown to people, after `sha256:`.
const SHORT_DIGEST: usize = 12;
/// What stands for all nodes.
const ALL: &str = "all";

/// Lists the images of nodes, or of the host's store.
pub(super) fn ls(session: &Session, arguments: &ImagesLs) -> Result<(), Failure> {
    let list = if arguments.host { of_host(session)? } else { of_nodes(session, arguments)? };
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &list),
        Format::Text | Format::Wide if list.is_empty() => {
            session.shell.status("There are no images.");
            Ok(())
        }
        Format::Text if arguments.host => session.shell.result(&render_host(&list)),
        Format::Text => session.shell.result(&render(&list)),
        Format::Wide => session.shell.result(&render_wide(&list)),
    }
}

fn of_host(session: &Session) -> Result<Vec<json::Image>, Failure> {
    let what = "failed to list the images of this host";
    let store = Store::open(&session.paths.images()).context(what)?;
    let mut list = Vec::new();
    for usage in store.usage().context(what)? {
        let clusters = cluster::image_users(&session.paths, &usage.image.name).context(what)?;
        list.push(json::Image {
            node: None,
            name: usage.image.name.to_string(),
            digest: usage.image.manifest.to_string(),
            size: usage.image.size,
            shared_size: Some(usage.shared),
            unpacked_size: Some(usage.unpacked),
            clusters: Some(clusters),
        });
    }
    Ok(list)
}

fn of_nodes(session: &Session, arguments: &ImagesLs) -> Result<Vec<json::Image>, Failure> {
    require_root("asking a node for its images")?;
    let nodes = if arguments.nodes.is_empty() {
        let nodes = get::nodes_of_existing(session, arguments.name.or_default())?;
        // The load balancer has no containerd.
        let nodes = nodes.into_iter().filter(|node| node.role != NodeRole::ExternalLoadBalancer);
        nodes.map(|node| node.name).collect()
    } else {
        arguments.nodes.clone()
    };
    block_on(async {
        let mut list = Vec::new();
        for node in nodes {
            let images = cluster::node_images(&session.paths, &node)
                .await
                .context(&format!("failed to list the images of node {node}"))?;
            list.extend(images.into_iter().map(|image| json::Image {
                node: Some(node.clone()),
                name: image.name,
                digest: image.digest,
                size: image.size,
                ..json::Image::default()
            }));
        }
        Ok(list)
    })
}

/// A table; where there are several nodes, each image once, with those that have it.
fn render(list: &[json::Image]) -> String {
    let nodes: BTreeSet<_> = list.iter().map(|image| &image.node).collect();
    let cells = |image: &json::Image| [image.name.clone(), short(&image.digest), table::bytes(image.size)];
    if nodes.len() <= 1 {
        return table::render(["IMAGE", "DIGEST", "SIZE"], &list.iter().map(cells).collect::<Vec<_>>());
    }
    let mut owners: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for image in list {
        let node = image.node.as_deref().unwrap_or_default();
        owners.entry(cells(image)).or_default().push(node);
    }
    let row = |([name, digest, size], owners): ([String; 3], Vec<&str>)| {
        let owners = if owners.len() == nodes.len() { String::from(ALL) } else { owners.join(", ") };
        [name, digest, size, owners]
    };
    table::render(["IMAGE", "DIGEST", "SIZE", "NODES"], &owners.into_iter().map(row).collect::<Vec<_>>())
}

/// A table of the host's images: what they take, and who uses them.
fn render_host(list: &[json::Image]) -> String {
    let bytes = |count: Option<u64>| table::bytes(count.unwrap_or_default());
    let row = |image: &json::Image| {
        let clusters = image.clusters.clone().unwrap_or_default().join(", ");
        let digest = short(&image.digest);
        let (size, shared) = (table::bytes(image.size), bytes(image.shared_size));
        [familiar(&image.name), digest, size, shared, bytes(image.unpacked_size), clusters]
    };
    let header = ["IMAGE", "DIGEST", "SIZE", "SHARED", "UNPACKED", "CLUSTERS"];
    table::render(header, &list.iter().map(row).collect::<Vec<_>>())
}

/// The name as it is usually written, which leaves room for the rest. What is no name stays as it is.
fn familiar(name: &str) -> String {
    Reference::try_new(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}

fn short(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(SHORT_DIGEST).collect()
}

/// A table of everything: digests whole and sizes in bytes, for whoever compares them.
fn render_wide(list: &[json::Image]) -> String {
    let row = |image: &json::Image| {
        let node = image.node.clone().unwrap_or_default();
        [image.name.clone(), image.digest.clone(), image.size.to_string(), node]
    };
    table::render(["IMAGE", "DIGEST", "BYTES", "NODE"], &list.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(node: &str) -> json::Image {
        json::Image {
            node: Some(node.to_owned()),
            name: String::from("registry.k8s.io/pause:3.10"),
            digest: String::from("sha256:0123456789abcdef"),
            size: 320_000,
            ..json::Image::default()
        }
    }

    #[test]
    fn programs_get_the_same_in_two_notations() {
        let list = [
            image("kind-worker"),
            json::Image {
                node: None,
                shared_size: Some(0),
                clusters: Some(vec![String::from("kind")]),
                ..image("")
            },
        ];
        for (name, format) in [("json", Format::Json), ("yaml", Format::Yaml)] {
            insta::assert_snapshot!(name, json::render(format, &list).expect("plain data"));
        }
    }

    #[test]
    fn an_image_of_several_nodes_is_listed_once() {
        assert_eq!(
            render(&[image("a")]),
            "IMAGE                       DIGEST        SIZE\nregistry.k8s.io/pause:3.10  0123456789ab  320 kB\n"
        );
        let of_one = json::Image { name: String::from("docker.io/library/app:1"), ..image("b") };
        insta::assert_snapshot!(render(&[image("a"), of_one, image("b")]), @r"
        IMAGE                       DIGEST        SIZE    NODES
        docker.io/library/app:1     0123456789ab  320 kB  b
        registry.k8s.io/pause:3.10  0123456789ab  320 kB  all
        ");
    }

    #[test]
    fn the_host_s_images_fit_on_a_terminal() {
        let list = [
            json::Image {
                name: String::from("docker.io/kiln/node:v1.34.4"),
                size: 304_000_000,
                shared_size: Some(0),
                unpacked_size: Some(1_070_000_000),
                clusters: Some(vec![String::from("dev"), String::from("kind")]),
                ..image("")
            },
            json::Image {
                name: String::from(
                    "localhost:5000/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                ),
                clusters: Some(Vec::new()),
                ..image("")
            },
        ];
        insta::assert_snapshot!(render_host(&list));
    }
    #[test]
    fn wide_leaves_nothing_out() {
        insta::assert_snapshot!(render_wide(&[image("a")]), @r"
        IMAGE                       DIGEST                   BYTES   NODE
        registry.k8s.io/pause:3.10  sha256:0123456789abcdef  320000  a
        ");
    }
}
