//! `--dry-run`: what `create` and `delete` would do.

use std::path::Path;

use kiln_provision::{
    cluster::{self, CreateOptions, NodeState, PlannedCluster, PlannedNode},
    config, kubeconfig,
};

use super::{Session, block_on, get};
use crate::{
    arguments::{Format, Preview},
    failure::{Context, Failure},
    json,
    progress::Progress,
    table,
};

/// The format of a preview, if one was asked for.
pub(super) fn format(preview: &Preview) -> Result<Option<Format>, Failure> {
    match (preview.dry_run, preview.format) {
        (true, format) => Ok(Some(format.unwrap_or_default())),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(Failure::new("--output is for what --dry-run finds")
            .with_hint("add --dry-run to see what would be done, or leave --output out")),
    }
}

/// Checks all that creating a cluster takes, and shows what would be made.
pub(super) fn create(session: &Session, options: &CreateOptions, format: Format) -> Result<(), Failure> {
    let planned = block_on(async {
        let progress = Progress::new(&session.shell);
        let planned = cluster::plan_create(&session.paths, options, &progress).await;
        drop(progress);
        Ok(planned?)
    })?;
    let planned = planned_item(planned);
    match format {
        Format::Json | Format::Yaml => json::print(&session.shell, format, &[planned]),
        Format::Text | Format::Wide => {
            session.shell.result(&render_planned(&planned, format == Format::Wide))?;
            session.shell.status("Nothing was made (--dry-run).");
            Ok(())
        }
    }
}

/// Shows what deleting clusters would remove.
pub(super) fn delete(
    session: &Session,
    names: &[String],
    kubeconfig: Option<&Path>,
    format: Format,
) -> Result<(), Failure> {
    let mut removals = Vec::new();
    for name in names {
        let removal = cluster::plan_delete(&session.paths, name, kubeconfig)
            .context(&format!("failed to find out what there is of cluster \"{name}\""))?;
        if removal.is_empty() && matches!(format, Format::Text | Format::Wide) {
            session.shell.status(&format!("There is nothing of a cluster \"{name}\"."));
            get::hint_at_others(session, name);
        }
        removals.extend(removed(removal));
    }
    match format {
        Format::Json | Format::Yaml => json::print(&session.shell, format, &removals),
        Format::Text | Format::Wide => {
            if !removals.is_empty() {
                session.shell.result(&render_removals(&removals))?;
            }
            session.shell.status("Nothing was removed (--dry-run).");
            Ok(())
        }
    }
}

fn planned_item(planned: PlannedCluster) -> json::PlannedCluster {
    json::PlannedCluster {
        context: kubeconfig::key(&planned.name),
        name: planned.name,
        bridge: planned.network.bridge,
        ipv4: planned.network.ipv4.map(|net| net.to_string()),
        ipv6: planned.network.ipv6.map(|net| net.to_string()),
        pod_subnet: planned.pod_subnet,
        service_subnet: planned.service_subnet,
        api_address: planned.api_address.to_string(),
        api_port: planned.api_port,
        kubeconfig: planned.kubeconfig.display().to_string(),
        nodes: planned.nodes.into_iter().map(planned_node).collect(),
    }
}

fn planned_node(node: PlannedNode) -> json::PlannedNode {
    let port = |mapping: config::PortMapping| json::PlannedPort {
        protocol: mapping.protocol.to_string().to_lowercase(),
        listen: mapping.listen_address.to_string(),
        host_port: mapping.host_port,
        container_port: mapping.container_port,
    };
    let mount = |mount: config::Mount| json::PlannedMount {
        host_path: mount.host_path.display().to_string(),
        container_path: mount.container_path.display().to_string(),
        read_only: mount.read_only,
    };
    json::PlannedNode {
        name: node.name,
        role: node.role.to_string(),
        image: Some(node.image).filter(|image| !image.is_empty()),
        kubernetes_version: node.kubernetes_version,
        ipv4: node.ipv4.map(|address| address.to_string()),
        ipv6: node.ipv6.map(|address| address.to_string()),
        ports: node.ports.into_iter().map(port).collect(),
        mounts: node.mounts.into_iter().map(mount).collect(),
    }
}

/// What belongs to the cluster line by line, then its nodes as a table; mounts only if `wide`.
fn render_planned(planned: &json::PlannedCluster, wide: bool) -> String {
    let both = |ipv4: &Option<String>, ipv6: &Option<String>| {
        ipv4.iter().chain(ipv6).map(String::as_str).collect::<Vec<_>>().join(",")
    };
    let api = json::PlannedPort {
        protocol: String::from("tcp"),
        listen: planned.api_address.clone(),
        host_port: planned.api_port,
        container_port: 0,
    };
    let facts = [
        ("cluster", planned.name.clone()),
        ("context", format!("{} in {}", planned.context, planned.kubeconfig)),
        ("api", format!("https://{}", host_side(&api))),
        ("network", format!("{} on {}", both(&planned.ipv4, &planned.ipv6), planned.bridge)),
        ("pods", planned.pod_subnet.clone()),
        ("services", planned.service_subnet.clone()),
    ];
    let mut text: String = facts.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect();
    text.push('\n');
    let row = |node: &json::PlannedNode| {
        let ports = node
            .ports
            .iter()
            .map(|port| format!("{}->{}/{}", host_side(port), port.container_port, port.protocol));
        [
            node.name.clone(),
            node.role.clone(),
            node.kubernetes_version.clone().unwrap_or_default(),
            both(&node.ipv4, &node.ipv6),
            node.image.clone().unwrap_or_default(),
            ports.collect::<Vec<_>>().join(","),
        ]
    };
    let rows: Vec<_> = planned.nodes.iter().map(row).collect();
    text.push_str(&table::render(["NODE", "ROLE", "VERSION", "ADDRESS", "IMAGE", "PORTS"], &rows));
    let mounts = planned.nodes.iter().flat_map(|node| {
        node.mounts.iter().map(|mount| {
            let how = if mount.read_only { "read-only" } else { "" };
            [node.name.clone(), mount.host_path.clone(), mount.container_path.clone(), how.to_owned()]
        })
    });
    let mounts: Vec<_> = mounts.collect();
    if wide && !mounts.is_empty() {
        text.push('\n');
        text.push_str(&table::render(["NODE", "HOST PATH", "NODE PATH", "HOW"], &mounts));
    }
    text
}

/// The host's address and port, as in a URL; `*` is a port that would be chosen.
fn host_side(port: &json::PlannedPort) -> String {
    let number = port.host_port.map_or_else(|| String::from("*"), |number| number.to_string());
    if port.listen.contains(':') {
        format!("[{}]:{number}", port.listen)
    } else {
        format!("{}:{number}", port.listen)
    }
}

/// What would be removed, in the order in which it would be.
fn removed(removal: cluster::Removal) -> Vec<json::Removal> {
    let mut list = Vec::new();
    let mut push = |kind, name: String, detail: String| {
        list.push(json::Removal { cluster: removal.cluster.clone(), kind, name, detail });
    };
    let entry = kubeconfig::key(&removal.cluster);
    for file in removal.kubeconfigs {
        push("kubeconfig", file.display().to_string(), format!("the entries {entry}"));
    }
    for node in removal.nodes {
        let detail = match (node.state, node.pid) {
            (NodeState::Running, Some(pid)) => format!("{}, running as process {pid}", node.role),
            (NodeState::Running, None) => format!("{}, running", node.role),
            (NodeState::Exited, _) => format!("{}, has exited", node.role),
            (NodeState::Created, _) => format!("{}, was never started", node.role),
        };
        push("node", node.name, detail);
    }
    for node in removal.unfinished {
        push("node", node, String::from("its making was interrupted"));
    }
    if let Some(network) = removal.network {
        let nets = network.ipv4.map(|net| net.to_string()).into_iter();
        let nets = nets.chain(network.ipv6.map(|net| net.to_string()));
        push("bridge", network.bridge, nets.collect::<Vec<_>>().join(","));
    }
    for directory in removal.directories {
        push("directory", directory.display().to_string(), String::new());
    }
    list
}

fn render_removals(removals: &[json::Removal]) -> String {
    let row = |removal: &json::Removal| {
        [removal.cluster.clone(), removal.kind.to_owned(), removal.name.clone(), removal.detail.clone()]
    };
    let rows: Vec<_> = removals.iter().map(row).collect();
    table::render(["CLUSTER", "KIND", "NAME", "DETAIL"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(listen: &str, host_port: Option<u16>, container_port: u16) -> json::PlannedPort {
        json::PlannedPort {
            protocol: String::from("tcp"),
            listen: listen.to_owned(),
            host_port,
            container_port,
        }
    }

    #[test]
    fn a_cluster_is_shown_with_its_nodes() {
        let node = |name: &str, role: &str, ipv4: &str, ports| json::PlannedNode {
            name: name.to_owned(),
            role: role.to_owned(),
            image: Some(String::from("kiln/node:v1.34.4")),
            kubernetes_version: Some(String::from("v1.34.4")),
            ipv4: Some(ipv4.to_owned()),
            ipv6: None,
            ports,
            mounts: Vec::new(),
        };
        let mut worker = node("dev-worker", "worker", "172.30.0.3", vec![port("::1", Some(8080), 80)]);
        worker.mounts.push(json::PlannedMount {
            host_path: String::from("/tmp"),
            container_path: String::from("/data"),
            read_only: true,
        });
        let planned = json::PlannedCluster {
            name: String::from("dev"),
            context: String::from("kind-dev"),
            bridge: String::from("kiln-dev"),
            ipv4: Some(String::from("172.30.0.0/24")),
            ipv6: None,
            pod_subnet: String::from("10.244.0.0/16"),
            service_subnet: String::from("10.96.0.0/16"),
            api_address: String::from("127.0.0.1"),
            api_port: None,
            kubeconfig: String::from("/root/.kube/config"),
            nodes: vec![
                node("dev-control-plane", "control-plane", "172.30.0.2", vec![port("127.0.0.1", None, 6443)]),
                worker,
            ],
        };
        insta::assert_snapshot!(render_planned(&planned, true), @r"
        cluster   dev
        context   kind-dev in /root/.kube/config
        api       https://127.0.0.1:*
        network   172.30.0.0/24 on kiln-dev
        pods      10.244.0.0/16
        services  10.96.0.0/16

        NODE               ROLE           VERSION  ADDRESS     IMAGE              PORTS
        dev-control-plane  control-plane  v1.34.4  172.30.0.2  kiln/node:v1.34.4  127.0.0.1:*->6443/tcp
        dev-worker         worker         v1.34.4  172.30.0.3  kiln/node:v1.34.4  [::1]:8080->80/tcp

        NODE        HOST PATH  NODE PATH  HOW
        dev-worker  /tmp       /data      read-only
        ");
        assert!(!render_planned(&planned, false).contains("/data"));
    }

    #[test]
    fn what_would_be_removed_is_listed_in_order() {
        let removal = cluster::Removal {
            cluster: String::from("c"),
            nodes: Vec::new(),
            unfinished: vec![String::from("c-worker")],
            network: None,
            api: None,
            directories: vec!["/var/lib/kiln/clusters/c".into()],
            kubeconfigs: vec!["/root/.kube/config".into()],
        };
        insta::assert_snapshot!(render_removals(&removed(removal)), @r"
        CLUSTER  KIND        NAME                      DETAIL
        c        kubeconfig  /root/.kube/config        the entries kind-c
        c        node        c-worker                  its making was interrupted
        c        directory   /var/lib/kiln/clusters/c
        ");
    }

    #[test]
    fn an_output_without_a_dry_run_is_refused() {
        let preview = |dry_run, format| format_of(dry_run, format);
        assert_eq!(preview(true, None).expect("fine"), Some(Format::Text));
        assert_eq!(preview(true, Some(Format::Json)).expect("fine"), Some(Format::Json));
        assert_eq!(preview(false, None).expect("fine"), None);
        let _ = preview(false, Some(Format::Json)).expect_err("nothing would be printed");
    }

    fn format_of(dry_run: bool, output: Option<Format>) -> Result<Option<Format>, Failure> {
        format(&Preview { dry_run, format: output })
    }
}
