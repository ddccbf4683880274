//! `get clusters`, `get nodes` and `get kubeconfig`

use jiff::Timestamp;
use kiln_provision::{
    Error,
    cluster::{self, ClusterStatus, NodeState, NodeStatus},
    kubeconfig,
};

use super::Session;
use crate::{
    arguments::{Format, GetClusters, GetKubeconfig, GetNodes},
    duration,
    failure::{Context, Failure},
    json, table,
};

/// Lists clusters, one name per line.
pub(super) fn clusters(session: &Session, arguments: &GetClusters) -> Result<(), Failure> {
    const FAILED: &str = "failed to list clusters";
    let names = cluster::clusters(&session.paths).context(FAILED)?;
    let format = arguments.output.format;
    // Names can be told without reading anything of a cluster, and by anybody.
    if format == Format::Text {
        if names.is_empty() {
            session.shell.status(&format!("No {} clusters found.", session.brand()));
        }
        return session.shell.result(&lines(&names));
    }
    let mut list = Vec::new();
    for name in &names {
        list.push(cluster::cluster_status(&session.paths, name).context(FAILED)?);
    }
    match format {
        Format::Text | Format::Wide => {
            session.shell.result(&cluster_table(&list, Timestamp::now()))?;
            for status in &list {
                if let Some(problem) = &status.problem {
                    session.shell.status(&format!("Cluster \"{}\" is broken: {problem}", status.name));
                }
            }
            Ok(())
        }
        Format::Json | Format::Yaml => {
            let list: Vec<_> = list.into_iter().map(cluster_item).collect();
            json::print(&session.shell, format, &list)
        }
    }
}

fn cluster_table(list: &[ClusterStatus], now: Timestamp) -> String {
    let row = |status: &ClusterStatus| {
        let running = status.nodes.iter().filter(|node| node.state == NodeState::Running).count();
        let all = status.nodes.len();
        let age = status.created.map(|created| now.duration_since(created).unsigned_abs());
        [
            status.name.clone(),
            status.state.as_str().to_owned(),
            if running == all { all.to_string() } else { format!("{running}/{all}") },
            status.kubernetes_version.clone().unwrap_or_default(),
            age.map(duration::age).unwrap_or_default(),
            status.api.map(url).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = list.iter().map(row).collect();
    table::render(["NAME", "STATUS", "NODES", "VERSION", "AGE", "API"], &rows)
}

fn url(api: std::net::SocketAddr) -> String {
    format!("https://{api}")
}

fn cluster_item(status: ClusterStatus) -> json::Cluster {
    let network = status.network;
    // The record of a cluster that has no node yet has nothing to say here.
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    json::Cluster {
        context: kubeconfig::key(&status.name),
        name: status.name,
        nodes: status.nodes.into_iter().map(|node| node.name).collect(),
        state: status.state.as_str(),
        problem: status.problem,
        created: status.created.map(|created| created.to_string()),
        kubernetes_version: given(status.kubernetes_version),
        image: given(status.image),
        api: status.api.map(url),
        bridge: network.as_ref().map(|network| network.bridge.clone()),
        ipv4: network.as_ref().and_then(|network| network.ipv4).map(|net| net.to_string()),
        ipv6: network.as_ref().and_then(|network| network.ipv6).map(|net| net.to_string()),
    }
}

/// Lists nodes, one name per line. What has become of those that do not run is said beside the list.
pub(super) fn nodes(session: &Session, arguments: &GetNodes) -> Result<(), Failure> {
    let clusters = if arguments.all_clusters {
        cluster::clusters(&session.paths).context("failed to list clusters")?
    } else {
        vec![arguments.name.or_default().to_owned()]
    };
    let mut list = Vec::new();
    for cluster in clusters {
        for node in nodes_of(session, &cluster)? {
            list.push(item(node));
        }
    }
    let format = arguments.output.format;
    if matches!(format, Format::Json | Format::Yaml) {
        return json::print(&session.shell, format, &list);
    }
    if list.is_empty() && arguments.all_clusters {
        session.shell.status(&format!("No {} nodes for any cluster.", session.brand()));
    } else if list.is_empty() {
        let name = arguments.name.or_default();
        session.shell.status(&format!("No {} nodes found for cluster \"{name}\".", session.brand()));
        hint_at_others(session, name);
    }
    if format == Format::Wide {
        let rows: Vec<_> = list.iter().map(row).collect();
        // Most clusters have one family of addresses, and with it a line fits on a terminal.
        let header = ["NODE", "ROLE", "STATE", "IPV4", "IPV6", "IMAGE"];
        return session.shell.result(&table::render_filled(header, &rows));
    }
    for node in list.iter().filter(|node| node.state != "running") {
        session.shell.status(&format!("Node {} {}", node.name, state(node)));
    }
    let names: Vec<String> = list.into_iter().map(|node| node.name).collect();
    session.shell.result(&lines(&names))
}

fn row(node: &json::Node) -> [String; 6] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let state = if node.state == "running" { node.state.to_owned() } else { state(node) };
    [node.name.clone(), node.role.clone(), state, text(&node.ipv4), text(&node.ipv6), node.image.clone()]
}

/// What has become of a node that does not run, as it follows its name.
fn state(node: &json::Node) -> String {
    if node.state == "created" {
        return String::from("was never started");
    }
    let Some(exit) = &node.exit else {
        // Its monitor was killed as well, or the host has been started anew.
        return String::from("has exited, nobody knows how");
    };
    let how = match (exit.signal, exit.code) {
        (Some(signal), _) => {
            let named = nix::sys::signal::Signal::try_from(signal).map(|named| format!(" ({named})"));
            format!("killed by signal {signal}{}", named.unwrap_or_default())
        }
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => String::from("unknown end"),
    };
    let memory = match exit.oom_kills {
        0 => String::new(),
        count => format!("; {count} of its processes had been killed for want of memory"),
    };
    format!("has exited: {how} at {}{memory}", time(exit.finished))
}

/// Seconds since 1970 as a date and time of UTC.
fn time(seconds: u64) -> String {
    let timestamp =
        i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| format!("{seconds} s after 1970"), |timestamp| timestamp.to_string())
}

/// Prints a cluster's kubeconfig.
pub(super) fn kubeconfig(session: &Session, arguments: &GetKubeconfig) -> Result<(), Failure> {
    let name = arguments.name.or_default();
    let text = cluster::kubeconfig(&session.paths, name, arguments.internal)
        .map_err(|error| no_control_plane(session, name, &error, Failure::from_error(&error)))?;
    // kind prints the document as a line, so there is a newline after the one that ends it.
    session.shell.result(&format!("{text}\n"))
}

/// That there is no such cluster, as kind says it where credentials are asked for.
pub(super) fn no_control_plane(session: &Session, name: &str, error: &Error, failure: Failure) -> Failure {
    session.in_words_of_kind(failure, || {
        matches!(error, Error::NoSuchCluster { .. }).then(|| {
            format!(
                "could not locate any control plane nodes for cluster named '{name}'. \
                 Use the --name option to select a different cluster"
            )
        })
    })
}

/// The nodes of a cluster; none when there is no such cluster.
pub(super) fn nodes_of(session: &Session, cluster: &str) -> Result<Vec<NodeStatus>, Failure> {
    cluster::nodes(&session.paths, cluster)
        .context(&format!("failed to list the nodes of cluster \"{cluster}\""))
}

/// The nodes of a cluster that is to be there.
pub(super) fn nodes_of_existing(session: &Session, cluster: &str) -> Result<Vec<NodeStatus>, Failure> {
    let nodes = nodes_of(session, cluster)?;
    if nodes.is_empty() {
        let known = cluster::clusters(&session.paths).context("failed to list clusters")?;
        return Err(Error::NoSuchCluster { cluster: cluster.to_owned(), known }.into());
    }
    Ok(nodes)
}

/// Says which cluster may have been meant, when there is none of this name.
pub(super) fn hint_at_others(session: &Session, name: &str) {
    // This is advice beside a result: whatever keeps it from being given is no failure.
    let Ok(known) = cluster::clusters(&session.paths) else { return };
    if !known.is_empty() && !known.iter().any(|other| other == name) {
        let error = Error::NoSuchCluster { cluster: name.to_owned(), known };
        session.shell.hint(&error.hint().unwrap_or_default());
    }
}

fn item(node: NodeStatus) -> json::Node {
    json::Node {
        name: node.name,
        cluster: node.cluster,
        role: node.role.to_string(),
        state: state_name(node.state),
        pid: node.pid,
        ipv4: node.ipv4.map(|address| address.to_string()),
        ipv6: node.ipv6.map(|address| address.to_string()),
        image: node.image,
        exit: node.exit.map(|exit| json::Exit {
            code: exit.code,
            signal: exit.signal,
            oom_kills: exit.oom_kills,
            finished: exit.finished,
        }),
        ports: node.ports.iter().map(port).collect(),
    }
}

/// A state as programs read it.
pub(super) fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Created => "created",
        NodeState::Running => "running",
        NodeState::Exited => "exited",
    }
}

fn port(mapping: &kiln_provision::PortMapping) -> json::Port {
    json::Port {
        protocol: mapping.protocol.to_string(),
        listen: mapping.listen.to_string(),
        host_port: mapping.host_port,
        container_port: mapping.target_port,
    }
}

fn lines(names: &[String]) -> String {
    names.iter().flat_map(|name| [name.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use kiln_provision::{cluster::ClusterState, state::NodeRole};

    use super::*;

    #[test]
    fn an_end_is_told_with_its_cause() {
        let exit = |code, signal, oom_kills| json::Exit { code, signal, oom_kills, finished: 1_795_528_800 };
        let node = |state, exit| json::Node {
            name: String::from("c-worker"),
            cluster: String::from("c"),
            role: String::from("worker"),
            state,
            pid: None,
            ipv4: None,
            ipv6: None,
            image: String::new(),
            exit,
            ports: Vec::new(),
        };
        for (node, expected) in [
            (node("created", None), "was never started"),
            (node("exited", None), "has exited, nobody knows how"),
            (
                node("exited", Some(exit(None, Some(9), 0))),
                "has exited: killed by signal 9 (SIGKILL) at 2026-11-24T14:00:00Z",
            ),
            (
                node("exited", Some(exit(Some(1), None, 2))),
                "has exited: exit code 1 at 2026-11-24T14:00:00Z; 2 of its processes had been killed for want of memory",
            ),
        ] {
            assert_eq!(state(&node), expected);
        }
    }

    #[test]
    fn clusters_are_a_table() {
        let created: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
        let status = |name: &str, state, nodes: &[NodeState]| ClusterStatus {
            name: name.to_owned(),
            state,
            problem: None,
            created: Some(created),
            kubernetes_version: Some(String::from("v1.34.4")),
            image: None,
            api: Some("127.0.0.1:40001".parse().expect("an address")),
            network: None,
            nodes: nodes.iter().map(|state| node(*state)).collect(),
        };
        let node_states = [NodeState::Running, NodeState::Exited, NodeState::Running];
        let list = [
            status("dev", ClusterState::Ready, &node_states[..1]),
            status("ci-1", ClusterState::Broken, &node_states),
            ClusterStatus {
                created: None,
                kubernetes_version: None,
                api: None,
                ..status("new", ClusterState::Creating, &[])
            },
        ];
        let now = "2026-11-24T14:30:00Z".parse().expect("a time");
        insta::assert_snapshot!(cluster_table(&list, now), @r"
        NAME  STATUS    NODES  VERSION  AGE    API
        dev   ready     1      v1.34.4  2h30m  https://127.0.0.1:40001
        ci-1  broken    2/3    v1.34.4  2h30m  https://127.0.0.1:40001
        new   creating  0
        ");
    }

    fn node(state: NodeState) -> NodeStatus {
        NodeStatus {
            name: String::from("n"),
            cluster: String::from("c"),
            role: NodeRole::Worker,
            state,
            pid: None,
            exit: None,
            image: String::new(),
            ipv4: None,
            ipv6: None,
            ports: Vec::new(),
        }
    }

    #[test]
    fn names_are_lines() {
        assert_eq!(lines(&[String::from("a"), String::from("b")]), "a\nb\n");
        assert_eq!(lines(&[]), "");
    }
}
