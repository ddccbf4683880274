//! `images ls`

use kiln_provision::{cluster, image::Store, state::NodeRole};

use super::{Session, block_on, get};
use crate::{
    arguments::{Format, ImagesLs},
    failure::{Context, Failure, require_root},
    json, table,
};

/// How much of a digest is shown to people, after `sha256:`.
const SHORT_DIGEST: usize = 12;

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

/// A table; with a column for the node when there is more than one.
fn render(list: &[json::Image]) -> String {
    let many = list.iter().any(|image| image.node != list[0].node);
    if many {
        let row = |image: &json::Image| {
            let node = image.node.clone().unwrap_or_default();
            [node, image.name.clone(), short(&image.digest), table::bytes(image.size)]
        };
        table::render(["NODE", "IMAGE", "DIGEST", "SIZE"], &list.iter().map(row).collect::<Vec<_>>())
    } else {
        let row = |image: &json::Image| [image.name.clone(), short(&image.digest), table::bytes(image.size)];
        table::render(["IMAGE", "DIGEST", "SIZE"], &list.iter().map(row).collect::<Vec<_>>())
    }
}

/// A table of the host's images: what they take, and who uses them.
fn render_host(list: &[json::Image]) -> String {
    let bytes = |count: Option<u64>| table::bytes(count.unwrap_or_default());
    let row = |image: &json::Image| {
        let clusters = image.clusters.clone().unwrap_or_default().join(", ");
        let digest = short(&image.digest);
        let (size, shared) = (table::bytes(image.size), bytes(image.shared_size));
        [image.name.clone(), digest, size, shared, bytes(image.unpacked_size), clusters]
    };
    let header = ["IMAGE", "DIGEST", "SIZE", "SHARED", "UNPACKED", "CLUSTERS"];
    table::render(header, &list.iter().map(row).collect::<Vec<_>>())
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
    fn the_node_is_shown_when_there_are_several() {
        assert_eq!(
            render(&[image("a")]),
            "IMAGE                       DIGEST        SIZE\nregistry.k8s.io/pause:3.10  0123456789ab  320 kB\n"
        );
        assert!(render(&[image("a"), image("b")]).starts_with("NODE  IMAGE"));
    }

    #[test]
    fn wide_leaves_nothing_out() {
        insta::assert_snapshot!(render_wide(&[image("a")]), @r"
        IMAGE                       DIGEST                   BYTES   NODE
        registry.k8s.io/pause:3.10  sha256:0123456789abcdef  320000  a
        ");
    }
}
