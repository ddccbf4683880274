//! `top`

use kiln_provision::cluster::{self, NodeUsage};

use super::{Session, block_on, get};
use crate::{
    arguments::{Format, Top},
    failure::{Context, Failure, require_root},
    json, signal, table,
};

/// What stands for a value that there is not.
const NONE: &str = "-";

/// Shows what nodes use, once or again and again.
pub(super) fn top(session: &Session, arguments: &Top) -> Result<(), Failure> {
    require_root("measuring nodes")?;
    if !arguments.watch {
        return show(session, arguments, 0).map(drop);
    }
    let (watched, arguments) = (session.clone(), arguments.clone());
    block_on(signal::until_stopped(async move {
        let watching = tokio::task::spawn_blocking(move || {
            let mut lines = 0;
            loop {
                // Looking takes the interval.
                lines = show(&watched, &arguments, lines)?;
            }
        });
        watching.await.context("failed to watch nodes")?
    }))?;
    // The terminal has shown the key that stopped it, where the next prompt belongs.
    session.shell.clear_result_line()
}

/// Shows what nodes use, in the place of the earlier table of so many lines; returns how many lines it has now.
fn show(session: &Session, arguments: &Top, earlier: usize) -> Result<usize, Failure> {
    let clusters = if arguments.all_clusters {
        cluster::clusters(&session.paths).context("failed to list clusters")?
    } else {
        let name = arguments.name.or_default();
        get::nodes_of_existing(session, name)?;
        vec![name.to_owned()]
    };
    let usage = cluster::usage(&session.paths, &clusters, arguments.interval())
        .context("failed to find out what nodes use")?;
    let list: Vec<json::Usage> = usage.into_iter().map(item).collect();
    match arguments.output.format {
        // One document after another: a reader of a stream of them takes each as it comes.
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &list).map(|()| 0),
        Format::Text | Format::Wide if list.is_empty() && !arguments.watch => {
            session.shell.status("There are no nodes in any cluster.");
            Ok(0)
        }
        Format::Text | Format::Wide => {
            let text = render(&list);
            session.shell.next_result(earlier, &text)
        }
    }
}

fn item(usage: NodeUsage) -> json::Usage {
    json::Usage {
        node: usage.name,
        cluster: usage.cluster,
        state: get::state_name(usage.state),
        // More digits would be those of the clock.
        cpu_cores: usage.cpu_cores.map(|cores| (cores * 1000.0).round() / 1000.0),
        memory_bytes: usage.memory_bytes,
        memory_with_cache_bytes: usage.memory_with_cache_bytes,
        pids: usage.pids,
        disk_bytes: usage.disk_bytes,
    }
}

fn render(list: &[json::Usage]) -> String {
    let row = |usage: &json::Usage| {
        let cores = usage.cpu_cores.map(|cores| format!("{cores:.2}"));
        let cells = [cores, usage.memory_bytes.map(table::bytes), usage.pids.map(|pids| pids.to_string())];
        let [cores, memory, pids] = cells.map(|cell| cell.unwrap_or_else(|| NONE.to_owned()));
        [usage.node.clone(), cores, memory, pids, table::bytes(usage.disk_bytes)]
    };
    table::render(["NODE", "CPU", "MEMORY", "PIDS", "DISK"], &list.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use kiln_provision::cluster::NodeState;

    use super::*;

    fn usage(name: &str, state: NodeState) -> NodeUsage {
        let running = state == NodeState::Running;
        NodeUsage {
            name: name.to_owned(),
            cluster: String::from("kind"),
            state,
            cpu_cores: running.then_some(0.123_456),
            memory_bytes: running.then_some(612_000_000),
            memory_with_cache_bytes: running.then_some(900_000_000),
            pids: running.then_some(312),
            disk_bytes: 12_300_000,
        }
    }

    #[test]
    fn programs_get_the_same_in_two_notations() {
        let list = [usage("kind-control-plane", NodeState::Running), usage("kind-worker", NodeState::Exited)]
            .map(item);
        for (name, format) in [("json", Format::Json), ("yaml", Format::Yaml)] {
            insta::assert_snapshot!(name, json::render(format, &list).expect("plain data"));
        }
    }

    #[test]
    fn what_does_not_run_uses_the_disk_alone() {
        let list = [usage("kind-control-plane", NodeState::Running), usage("kind-worker", NodeState::Exited)];
        assert_eq!(
            render(&list.map(item)),
            "NODE                CPU   MEMORY  PIDS  DISK\n\
             kind-control-plane  0.12  612 MB  312   12.3 MB\n\
             kind-worker         -     -       -     12.3 MB\n"
        );
    }

    #[test]
    fn programs_get_numbers() {
        let json = serde_json::to_value(item(usage("n", NodeState::Running))).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({
                "node": "n", "cluster": "kind", "state": "running", "cpu_cores": 0.123,
                "memory_bytes": 612_000_000, "memory_with_cache_bytes": 900_000_000, "pids": 312,
                "disk_bytes": 12_300_000
            })
        );
        let json = serde_json::to_value(item(usage("n", NodeState::Exited))).expect("plain data");
        assert!(
            json["cpu_cores"].is_null() && json["pids"].is_null() && json["disk_bytes"].is_u64(),
            "{json}"
        );
    }
}
