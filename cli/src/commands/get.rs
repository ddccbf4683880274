//! `get clusters`, `get nodes` and `get kubeconfig`

use kiln_provision::{
    Error,
    cluster::{self, NodeState, NodeStatus},
    kubeconfig,
};

use super::Session;
use crate::{
    arguments::{Format, GetClusters, GetKubeconfig, GetNodes, NodeFormat},
    failure::{Context, Failure},
    json, table,
};

/// Lists clusters, one name per line.
pub(super) fn clusters(session: &Session, arguments: &GetClusters) -> Result<(), Failure> {
    let names = cluster::clusters(&session.paths).context("failed to list clusters")?;
    if arguments.output.format == Format::Json {
        let mut list = Vec::new();
        for name in names {
            let nodes = nodes_of(session, &name)?.into_iter().map(|node| node.name).collect();
            list.push(json::Cluster { context: kubeconfig::key(&name), name, nodes });
        }
        return json::print(&session.shell, &list);
    }
    if names.is_empty() {
        session.shell.status("There are no clusters.");
    }
    session.shell.result(&lines(&names))
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
    if arguments.output.format == NodeFormat::Json {
        return json::print(&session.shell, &list);
    }
    if list.is_empty() {
        session.shell.status(&match arguments.all_clusters {
            true => String::from("There are no nodes in any cluster."),
            false => format!("There are no nodes in cluster \"{}\".", arguments.name.or_default()),
        });
    }
    if arguments.output.format == NodeFormat::Wide {
        let rows: Vec<_> = list.iter().map(row).collect();
        return session
            .shell
            .result(&table::render(["NODE", "ROLE", "STATE", "IPV4", "IPV6", "IMAGE"], &rows));
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
    let text = cluster::kubeconfig(&session.paths, arguments.name.or_default(), arguments.internal)?;
    // kind prints the document as a line, so there is a newline after the one that ends it.
    session.shell.result(&format!("{text}\n"))
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

fn item(node: NodeStatus) -> json::Node {
    json::Node {
        name: node.name,
        cluster: node.cluster,
        role: node.role.to_string(),
        state: match node.state {
            NodeState::Created => "created",
            NodeState::Running => "running",
            NodeState::Exited => "exited",
        },
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
    fn names_are_lines() {
        assert_eq!(lines(&[String::from("a"), String::from("b")]), "a\nb\n");
        assert_eq!(lines(&[]), "");
    }
}
