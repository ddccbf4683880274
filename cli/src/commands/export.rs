//! `export kubeconfig`

use kiln_provision::{cluster, kubeconfig};

use super::{Session, block_on};
use crate::{
    arguments::ExportKubeconfig,
    failure::{Context, Failure},
};

/// Adds a cluster to the user's kubeconfig and makes it the current context.
pub(super) fn kubeconfig(session: &Session, arguments: &ExportKubeconfig) -> Result<(), Failure> {
    let name = arguments.name.or_default();
    block_on(async {
        cluster::export_kubeconfig(&session.paths, name, arguments.internal, arguments.kubeconfig.path())
            .await
            .context(&format!("failed to export the kubeconfig of cluster \"{name}\""))
    })?;
    session.shell.status(&format!("Set kubectl context to \"{}\"", kubeconfig::key(name)));
    Ok(())
}
