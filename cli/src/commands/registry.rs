//! `registry create`, `registry delete` and `registry ls`

use kiln_provision::{
    cluster::{
        Cancel,
        registry::{self, RegistryOptions, RegistryStatus},
    },
    state::REGISTRY_PORT,
};

use super::{Session, block_on};
use crate::{
    arguments::{Format, RegistryCreate, RegistryDelete, RegistryLs},
    failure::{Context, Failure, require_root},
    json,
    progress::Progress,
    signal, table,
};

/// Creates a registry, and says how to use it.
pub(super) fn create(session: &Session, arguments: &RegistryCreate) -> Result<(), Failure> {
    require_root("creating a registry")?;
    let shell = &session.shell;
    let name = &arguments.name;
    let options = RegistryOptions {
        name: name.clone(),
        port: arguments.port,
        proxy: arguments.proxy().map(str::to_owned),
    };
    let created = block_on(async {
        let cancel = Cancel::new();
        signal::watch(shell, &cancel)?;
        let progress = Progress::new(shell);
        let created = registry::create(&session.paths, &options, &progress, &cancel).await;
        drop(progress);
        created.map_err(|error| {
            let failure = Failure::because(&format!("failed to create registry \"{name}\""), &error);
            if cancel.is_triggered() { failure.into_interrupted() } else { failure }
        })
    })?;
    let record = &created.record;
    let runs = if created.ran { "runs already" } else { "runs" };
    match &record.proxy {
        Some(url) => {
            shell.status(&format!(
                "Registry \"{name}\" {runs} at localhost:{}, a cache of {url}",
                record.port
            ));
        }
        None => {
            let port = record.port;
            shell.status(&format!("Registry \"{name}\" {runs} at localhost:{port}"));
            shell.status(&format!(
                "Push to localhost:{port}/IMAGE; pods name it localhost:{port}/IMAGE or {name}:{REGISTRY_PORT}/IMAGE"
            ));
        }
    }
    Ok(())
}

/// Deletes the registries that were named, or all. One that cannot be deleted does not keep the others.
pub(super) fn delete(session: &Session, arguments: &RegistryDelete) -> Result<(), Failure> {
    require_root("deleting a registry")?;
    let names = if arguments.all {
        let known = registry::registries(&session.paths).context("failed to list registries")?;
        known.into_iter().map(|status| status.name).collect()
    } else {
        arguments.names.clone()
    };
    if names.is_empty() {
        session.shell.status("There are no registries.");
    }
    let failed = block_on(async {
        let mut failed = false;
        for name in &names {
            let progress = Progress::new(&session.shell);
            let deleted = registry::delete(&session.paths, name, arguments.keep_data, &progress).await;
            drop(progress);
            match deleted.context(&format!("failed to delete registry \"{name}\"")) {
                Ok(deleted) => {
                    let what = match (deleted.registry, deleted.data) {
                        (true, true) => " and its images",
                        (true, false) => "; its images are kept",
                        (false, _) => "'s images, which had been kept",
                    };
                    session.shell.status(&format!("Deleted registry \"{name}\"{what}"));
                }
                Err(failure) => {
                    failed = true;
                    session.shell.failure(&failure);
                }
            }
        }
        Ok(failed)
    })?;
    if failed { Err(Failure::silent(1)) } else { Ok(()) }
}

/// Lists registries.
pub(super) fn ls(session: &Session, arguments: &RegistryLs) -> Result<(), Failure> {
    let list = registry::registries(&session.paths).context("failed to list registries")?;
    let list: Vec<json::Registry> = list.into_iter().map(item).collect();
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &list),
        Format::Text | Format::Wide if list.is_empty() => {
            session.shell.status("There are no registries.");
            Ok(())
        }
        Format::Text => session.shell.result(&render(&list)),
        Format::Wide => session.shell.result(&render_wide(&list)),
    }
}

fn item(status: RegistryStatus) -> json::Registry {
    let record = status.record.as_ref();
    json::Registry {
        name: status.name.clone(),
        state: status.state.as_str(),
        host: record.map(|record| format!("localhost:{}", record.port)),
        node_host: record.map(|record| format!("{}:{REGISTRY_PORT}", record.name)),
        address: record
            .and_then(kiln_provision::state::RegistryRecord::gateway)
            .map(|gateway| format!("{gateway}:{REGISTRY_PORT}")),
        proxy: record.and_then(|record| record.proxy.clone()),
        image: record.map(|record| record.image.clone()),
        created: record.map(|record| record.created.to_string()),
        exit: status.exit.map(|exit| json::Exit {
            code: exit.code,
            signal: exit.signal,
            oom_kills: exit.oom_kills,
            finished: exit.finished,
        }),
    }
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

fn render(list: &[json::Registry]) -> String {
    let row = |item: &json::Registry| {
        [item.name.clone(), item.state.to_owned(), text(&item.host), text(&item.node_host), text(&item.proxy)]
    };
    let rows: Vec<_> = list.iter().map(row).collect();
    table::render(["NAME", "STATUS", "HOST", "NODES", "CACHE OF"], &rows)
}

fn render_wide(list: &[json::Registry]) -> String {
    let row = |item: &json::Registry| {
        [
            item.name.clone(),
            item.state.to_owned(),
            text(&item.host),
            text(&item.node_host),
            text(&item.address),
            text(&item.proxy),
            text(&item.image),
            text(&item.created),
        ]
    };
    let rows: Vec<_> = list.iter().map(row).collect();
    table::render(["NAME", "STATUS", "HOST", "NODES", "ADDRESS", "CACHE OF", "IMAGE", "CREATED"], &rows)
}

#[cfg(test)]
mod tests {
    use kiln_provision::cluster::registry::RegistryState;

    use super::*;

    #[test]
    fn tables_are_for_people() {
        let list = [
            json::Registry {
                name: String::from("kiln-registry"),
                state: "running",
                host: Some(String::from("localhost:5001")),
                node_host: Some(String::from("kiln-registry:5000")),
                address: Some(String::from("172.30.0.1:5000")),
                ..Default::default()
            },
            item(RegistryStatus {
                name: String::from("half"),
                state: RegistryState::Broken,
                record: None,
                exit: None,
            }),
        ];
        insta::assert_snapshot!(render(&list), @r"
        NAME           STATUS   HOST            NODES               CACHE OF
        kiln-registry  running  localhost:5001  kiln-registry:5000
        half           broken
        ");
        assert!(render_wide(&list).contains("172.30.0.1:5000"));
    }
}
