//! `df`

use kiln_provision::cluster::{self, DiskUse};

use super::Session;
use crate::{
    arguments::{Df, Format},
    failure::{Context, Failure, require_root},
    json, table,
};

/// What stands for a value that there is not.
const NONE: &str = "-";

/// Shows what Kiln takes of the disk.
pub(super) fn df(session: &Session, arguments: &Df) -> Result<(), Failure> {
    require_root("measuring the disk")?;
    let used = cluster::disk_use(&session.paths).context("failed to find out what the disk is used for")?;
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &items(&used)),
        Format::Text => session.shell.result(&render(&used)),
        Format::Wide => session.shell.result(&render_wide(&items(&used))),
    }
}

/// Everything as one list: what is part of something else comes behind it.
fn items(used: &DiskUse) -> Vec<json::Disk> {
    let mut list = Vec::new();
    for cluster in &used.clusters {
        let name = Some(cluster.name.clone());
        let shared_bytes = Some(cluster.shared_bytes);
        list.push(json::Disk { name: name.clone(), shared_bytes, ..item("cluster", cluster.own_bytes) });
        list.extend(cluster.nodes.iter().map(|node| json::Disk {
            name: Some(node.name.clone()),
            cluster: name.clone(),
            shared_bytes: Some(node.shared_bytes),
            ..item("node", node.own_bytes)
        }));
    }
    let store = &used.store;
    list.push(json::Disk { name: Some(store.path.display().to_string()), ..item("store", store.bytes) });
    list.push(json::Disk { count: Some(store.blobs), ..item("blobs", store.blob_bytes) });
    list.extend(store.layers.iter().map(|layer| json::Disk {
        name: Some(format!("sha256:{}", layer.diff_id)),
        nodes: Some(layer.nodes.clone()),
        ..item("layer", layer.bytes)
    }));
    list.push(item("build-cache", used.build_cache_bytes));
    list
}

fn item(kind: &'static str, disk_bytes: u64) -> json::Disk {
    json::Disk { kind, disk_bytes, ..json::Disk::default() }
}

/// A line for each, layers as one.
fn render(used: &DiskUse) -> String {
    let row = |what: String, disk, shared: Option<u64>| {
        [what, table::bytes(disk), shared.map_or_else(|| NONE.to_owned(), table::bytes)]
    };
    let mut rows = Vec::new();
    for cluster in &used.clusters {
        rows.push(row(format!("cluster {}", cluster.name), cluster.own_bytes, Some(cluster.shared_bytes)));
        for node in &cluster.nodes {
            rows.push(row(format!("  {}", node.name), node.own_bytes, Some(node.shared_bytes)));
        }
    }
    let store = &used.store;
    let layers = store.layers.iter().map(|layer| layer.bytes).sum();
    rows.push(row(String::from("image store"), store.bytes, None));
    rows.push(row(format!("  blobs: {}", store.blobs), store.blob_bytes, None));
    rows.push(row(format!("  unpacked layers: {}", store.layers.len()), layers, None));
    rows.push(row(String::from("build cache"), used.build_cache_bytes, None));
    rows.push(row(String::from("all of it"), used.bytes(), None));
    table::render(["WHAT", "DISK", "SHARED"], &rows)
}

/// A table of everything, in bytes.
fn render_wide(list: &[json::Disk]) -> String {
    let row = |item: &json::Disk| {
        let name = item.name.clone().or_else(|| item.count.map(|count| count.to_string()));
        let shared = item.shared_bytes.map(|bytes| bytes.to_string());
        let nodes = item.nodes.as_ref().filter(|nodes| !nodes.is_empty()).map(|nodes| nodes.join(","));
        let [name, shared, nodes] = [name, shared, nodes].map(|cell| cell.unwrap_or_else(|| NONE.to_owned()));
        [item.kind.to_owned(), name, item.disk_bytes.to_string(), shared, nodes]
    };
    table::render(["KIND", "NAME", "BYTES", "SHARED", "NODES"], &list.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use kiln_provision::cluster::{ClusterDisk, LayerDisk, NodeDisk, StoreDisk};

    use super::*;

    fn used() -> DiskUse {
        let node =
            |name: &str, own_bytes| NodeDisk { name: name.to_owned(), own_bytes, shared_bytes: 640_000_000 };
        let layer = |diff_id: &str, bytes, nodes: &[&str]| LayerDisk {
            diff_id: diff_id.to_owned(),
            bytes,
            nodes: nodes.iter().map(ToString::to_string).collect(),
        };
        DiskUse {
            clusters: vec![ClusterDisk {
                name: "kind".to_owned(),
                own_bytes: 22_400_000,
                shared_bytes: 640_000_000,
                nodes: vec![node("kind-control-plane", 16_300_000), node("kind-worker", 6_000_000)],
            }],
            store: StoreDisk {
                path: "/var/lib/kiln/images".into(),
                bytes: 1_050_000_000,
                blobs: 5,
                blob_bytes: 400_000_000,
                layers: vec![
                    layer("11", 640_000_000, &["kind-control-plane", "kind-worker"]),
                    layer("22", 10_000_000, &[]),
                ],
            },
            build_cache_bytes: 0,
        }
    }

    #[test]
    fn programs_get_the_same_in_two_notations() {
        let list = items(&used());
        for (name, format) in [("json", Format::Json), ("yaml", Format::Yaml)] {
            insta::assert_snapshot!(name, json::render(format, &list).expect("plain data"));
        }
    }

    #[test]
    fn the_parts_are_below_the_whole() {
        insta::assert_snapshot!(render(&used()), @r"
        WHAT                  DISK     SHARED
        cluster kind          22.4 MB  640 MB
          kind-control-plane  16.3 MB  640 MB
          kind-worker         6.00 MB  640 MB
        image store           1.05 GB  -
          blobs: 5            400 MB   -
          unpacked layers: 2  650 MB   -
        build cache           0 B      -
        all of it             1.07 GB  -
        ");
    }

    #[test]
    fn wide_leaves_nothing_out() {
        insta::assert_snapshot!(render_wide(&items(&used())), @r"
        KIND         NAME                  BYTES       SHARED     NODES
        cluster      kind                  22400000    640000000  -
        node         kind-control-plane    16300000    640000000  -
        node         kind-worker           6000000     640000000  -
        store        /var/lib/kiln/images  1050000000  -          -
        blobs        5                     400000000   -          -
        layer        sha256:11             640000000   -          kind-control-plane,kind-worker
        layer        sha256:22             10000000    -          -
        build-cache  -                     0           -          -
        ");
    }

    #[test]
    fn programs_get_what_adds_up() {
        let list = items(&used());
        let whole = list.iter().filter(|item| ["cluster", "store", "build-cache"].contains(&item.kind));
        assert_eq!(whole.map(|item| item.disk_bytes).sum::<u64>(), used().bytes());
        let json = serde_json::to_value(&list).expect("plain data");
        assert_eq!(
            json[1],
            serde_json::json!({
                "kind": "node", "name": "kind-control-plane", "cluster": "kind", "disk_bytes": 16_300_000,
                "shared_bytes": 640_000_000, "count": null, "nodes": null
            })
        );
    }
}
