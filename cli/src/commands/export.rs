//! `export kubeconfig` and `export logs`

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use kiln_provision::{cluster, kubeconfig, logs};

use super::{Session, block_on, get, version};
use crate::{
    arguments::{ExportKubeconfig, ExportLogs},
    failure::{Context, Failure, require_root},
    signal,
};

/// Adds a cluster to the user's kubeconfig and makes it the current context.
pub(super) fn kubeconfig(session: &Session, arguments: &ExportKubeconfig) -> Result<(), Failure> {
    let name = arguments.name.or_default();
    block_on(async {
        cluster::export_kubeconfig(&session.paths, name, arguments.internal, arguments.kubeconfig.path())
            .await
            .map_err(|error| {
                let what = format!("failed to export the kubeconfig of cluster \"{name}\"");
                get::no_control_plane(session, name, &error, Failure::because(&what, &error))
            })
    })?;
    session.shell.status(&format!("Set kubectl context to \"{}\"", kubeconfig::key(name)));
    Ok(())
}

/// Writes a cluster's logs to a directory, whose name is the result. It is printed before they are there, as kind does.
pub(super) fn logs(session: &Session, arguments: &ExportLogs) -> Result<(), Failure> {
    let name = arguments.name.or_default();
    require_root("reading the logs of a cluster")?;
    logs::check(&session.paths, name)?;
    let directory = match arguments.directory() {
        Some(directory) => directory.to_path_buf(),
        None => temporary_directory()?,
    };
    session.shell.status(&format!("Exporting logs for cluster \"{name}\" to:"));
    session.shell.result(&format!("{}\n", directory.display()))?;
    block_on(signal::until_interrupted(async {
        Ok(logs::export(&session.paths, name, &directory, &version::line(false)).await?)
    }))
}

/// A new directory that only its owner may look into.
fn temporary_directory() -> Result<PathBuf, Failure> {
    let private = std::fs::Permissions::from_mode(0o700);
    let made = tempfile::Builder::new().prefix("kiln-logs-").permissions(private).tempdir();
    Ok(made.context("failed to make a temporary directory")?.keep())
}
