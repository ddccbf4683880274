//! `get clusters`, `get nodes` and `get kubeconfig`

use kiln_provision::{
    Error,
    cluster::{self, NodeState, NodeStatus},
    kubeconfig,
};

use super::Session;
use crate::{
    arguments::{Format, GetClusters, GetKubeconfig, GetNodes},
    failure::{Context, Failure},
    json,
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

/// Lists nodes, one name per line.
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
    if arguments.output.format == Format::Json {
        return json::print(&session.shell, &list);
    }
    if list.is_empty() {
        session.shell.status(&match arguments.all_clusters {
            true => String::from("There are no nodes in any cluster."),
            false => format!("There are no nodes in cluster \"{}\".", arguments.name.or_default()),
        });
    }
    let names: Vec<String> = list.into_iter().map(|node| node.name).collect();
    session.shell.result(&lines(&names))
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
    }
}

fn lines(names: &[String]) -> String {
    names.iter().flat_map(|name| [name.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lines() {
        assert_eq!(lines(&[String::from("a"), String::from("b")]), "a\nb\n");
        assert_eq!(lines(&[]), "");
    }
}
