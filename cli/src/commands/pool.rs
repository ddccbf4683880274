//! `pool fill`, `pool ls` and `pool drain`

use kiln_provision::{
    cluster::{self, Cancel, CreateOptions, FillOptions, StandbyStatus},
    trace::Trace,
};

use super::{Session, block_on, config};
use crate::{
    arguments::{Format, PoolDrain, PoolFill, PoolLs},
    failure::{Context, Failure, require_root},
    json,
    progress::Progress,
    signal, table,
};

/// What the failure of a filling begins with.
const FAILED: &str = "failed to fill the pool";

/// Boots clusters ahead.
pub(super) fn fill(session: &Session, arguments: &PoolFill) -> Result<(), Failure> {
    let given = arguments.name.given();
    let config = config::load(arguments.config(), given).map_err(|failure| failure.within(FAILED))?;
    require_root("booting clusters")?;
    let shell = &session.shell;
    let name = given.unwrap_or(&config.name).to_owned();
    let options = FillOptions {
        create: CreateOptions {
            config,
            name: given.map(str::to_owned),
            image: arguments.image().map(str::to_owned),
            wait: arguments.wait,
            kubeconfig: None,
            retain: false,
            pod_network: arguments.pod_network.into(),
            bootstrap: arguments.bootstrap.into(),
            trace: Trace::default(),
        },
        count: arguments.count,
    };
    let filled = block_on(async {
        let cancel = Cancel::new();
        signal::watch(shell, &cancel)?;
        let progress = Progress::new(shell);
        let filled = cluster::fill(&session.paths, &options, &progress, &cancel).await;
        drop(progress);
        filled.map_err(|error| {
            let failure = Failure::because(FAILED, &error);
            if cancel.is_triggered() { failure.into_interrupted() } else { failure }
        })
    })?;
    let (all, new) = (filled.booted.len() + filled.kept.len(), filled.booted.len());
    let clusters = if all == 1 { "cluster" } else { "clusters" };
    shell.status(&format!("{all} standby {clusters} of name \"{name}\", {new} of them new"));
    Ok(())
}

/// Removes standby clusters.
pub(super) fn drain(session: &Session, arguments: &PoolDrain) -> Result<(), Failure> {
    require_root("removing clusters")?;
    let name = (!arguments.all).then(|| arguments.name.or_default());
    let progress = Progress::new(&session.shell);
    let drained = block_on(async {
        cluster::drain(&session.paths, name, &progress).await.context("failed to drain the pool")
    });
    drop(progress);
    let standbys = drained?.standbys;
    for standby in &standbys {
        session.shell.status(&format!("Removed {standby}"));
    }
    if standbys.is_empty() {
        session.shell.status(&match name {
            Some(name) => format!("There are no standby clusters of name \"{name}\"."),
            None => String::from("There are no standby clusters."),
        });
    }
    Ok(())
}

/// Lists standby clusters.
pub(super) fn ls(session: &Session, arguments: &PoolLs) -> Result<(), Failure> {
    let list = cluster::pool(&session.paths).context("failed to list standby clusters")?;
    let list: Vec<json::Standby> = list.into_iter().map(item).collect();
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &list),
        Format::Text | Format::Wide if list.is_empty() => {
            session.shell.status("There are no standby clusters.");
            Ok(())
        }
        Format::Text => session.shell.result(&render(&list)),
        Format::Wide => session.shell.result(&render_wide(&list)),
    }
}

fn item(status: StandbyStatus) -> json::Standby {
    json::Standby {
        name: status.standby.cluster,
        number: status.standby.number,
        state: status.state.as_str(),
        kubernetes_version: status.kubernetes_version,
        image: status.image,
        nodes: status.nodes,
        frozen: status.frozen.map(|time| time.to_string()),
        boot_seconds: status.boot_seconds.map(|seconds| (seconds * 1000.0).round() / 1000.0),
        memory_bytes: status.memory_bytes,
        disk_bytes: status.disk_bytes,
    }
}

fn cells(item: &json::Standby) -> [String; 7] {
    [
        item.name.clone(),
        item.number.to_string(),
        item.state.to_owned(),
        item.kubernetes_version.clone().unwrap_or_default(),
        item.nodes.len().to_string(),
        table::bytes(item.memory_bytes),
        table::bytes(item.disk_bytes),
    ]
}

fn render(list: &[json::Standby]) -> String {
    let rows: Vec<_> = list.iter().map(cells).collect();
    table::render(["NAME", "NUMBER", "STATUS", "VERSION", "NODES", "MEMORY", "DISK"], &rows)
}

fn render_wide(list: &[json::Standby]) -> String {
    let row = |item: &json::Standby| {
        let [name, number, state, version, nodes, memory, disk] = cells(item);
        let boot = item.boot_seconds.map(|seconds| format!("{seconds:.1}s")).unwrap_or_default();
        let (frozen, image) =
            (item.frozen.clone().unwrap_or_default(), item.image.clone().unwrap_or_default());
        [name, number, state, version, nodes, memory, disk, boot, frozen, image]
    };
    let rows: Vec<_> = list.iter().map(row).collect();
    let head = ["NAME", "NUMBER", "STATUS", "VERSION", "NODES", "MEMORY", "DISK", "BOOT", "FROZEN", "IMAGE"];
    table::render(head, &rows)
}

#[cfg(test)]
mod tests {
    use kiln_provision::{cluster::StandbyState, state::Standby};

    use super::*;

    #[test]
    fn tables_are_for_people() {
        let standby = |number| Standby { cluster: String::from("ci"), number };
        let list = [
            item(StandbyStatus {
                standby: standby(1),
                state: StandbyState::Frozen,
                image: Some(String::from("kiln/node:v1.34.4")),
                kubernetes_version: Some(String::from("v1.34.4")),
                nodes: vec![String::from("ci-control-plane")],
                frozen: Some("2026-11-24T20:00:00Z".parse().unwrap()),
                boot_seconds: Some(8.123_456),
                memory_bytes: 600 << 20,
                disk_bytes: 17 << 20,
            }),
            item(StandbyStatus {
                standby: standby(2),
                state: StandbyState::Broken,
                image: None,
                kubernetes_version: None,
                nodes: Vec::new(),
                frozen: None,
                boot_seconds: None,
                memory_bytes: 0,
                disk_bytes: 0,
            }),
        ];
        insta::assert_snapshot!(render(&list), @r"
        NAME  NUMBER  STATUS  VERSION  NODES  MEMORY  DISK
        ci    1       frozen  v1.34.4  1      629 MB  17.8 MB
        ci    2       broken           0      0 B     0 B
        ");
        insta::assert_snapshot!(render_wide(&list), @r"
        NAME  NUMBER  STATUS  VERSION  NODES  MEMORY  DISK     BOOT  FROZEN                IMAGE
        ci    1       frozen  v1.34.4  1      629 MB  17.8 MB  8.1s  2026-11-24T20:00:00Z  kiln/node:v1.34.4
        ci    2       broken           0      0 B     0 B
        ");
    }
}
