//! `delete cluster` and `delete clusters`

use std::{collections::HashSet, path::Path};

use kiln_provision::cluster::{self, Deleted};

use super::{Session, block_on, bracketed, get, preview};
use crate::{
    arguments::{DeleteCluster, DeleteClusters},
    failure::{Context, Failure, INTERRUPTED, require_root},
    progress::Progress,
    signal,
};

/// Deletes a cluster. That there is none is not an error: it is gone, as asked.
pub(super) fn cluster(session: &Session, arguments: &DeleteCluster) -> Result<(), Failure> {
    let format = preview::format(&arguments.preview)?;
    require_root("deleting a cluster")?;
    let name = arguments.name.or_default();
    if let Some(format) = format {
        return preview::delete(session, &[name.to_owned()], arguments.kubeconfig.path(), format);
    }
    session.shell.status(&format!("Deleting cluster \"{name}\" ..."));
    let deleted = block_on(interruptible(delete(session, name, arguments.kubeconfig.path())))?;
    if deleted.nodes.is_empty() {
        get::hint_at_others(session, name);
    } else {
        session.shell.status(&deleted.summary());
    }
    Ok(())
}

/// Deletes the clusters that were named, or all, side by side. One that cannot be deleted does not keep the others.
pub(super) fn clusters(session: &Session, arguments: &DeleteClusters) -> Result<(), Failure> {
    let format = preview::format(&arguments.preview)?;
    if arguments.names.is_empty() && !arguments.all {
        return Err(
            Failure::new("no cluster names provided").with_hint("name the clusters to delete, or use --all")
        );
    }
    require_root("deleting clusters")?;
    let mut names = if arguments.all {
        cluster::clusters(&session.paths).context("failed to list clusters")?
    } else {
        arguments.names.clone()
    };
    let mut known = HashSet::new();
    names.retain(|name| known.insert(name.clone()));
    if let Some(format) = format {
        return preview::delete(session, &names, arguments.kubeconfig.path(), format);
    }
    let kubeconfig = arguments.kubeconfig.path();
    let ended = block_on(interruptible(async {
        let progress = Progress::new(&session.shell);
        Ok(cluster::delete_all(&session.paths, &names, kubeconfig, &progress).await)
    }))?;
    let (mut deleted, mut failures) = (Vec::new(), 0);
    for (name, ended) in names.into_iter().zip(ended) {
        match ended.context(&failed(&name)) {
            Ok(_) => deleted.push(name),
            Err(failure) => {
                failures += 1;
                session.shell.failure(&failure);
            }
        }
    }
    session.shell.status(&format!("Deleted clusters: {}", bracketed(&deleted)));
    // kind ends with success here. Something is left on the host, though, and a script should know.
    if failures == 0 { Ok(()) } else { Err(Failure::silent(1)) }
}

/// Runs a removal until it ends or a signal comes. What is left of it then is still known.
async fn interruptible<T>(removal: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let interrupted = |failure: Failure| match failure.code() {
        INTERRUPTED => failure.with_hint("delete it again: what is left of it is known"),
        _ => failure,
    };
    signal::until_interrupted(removal).await.map_err(interrupted)
}

async fn delete(session: &Session, name: &str, kubeconfig: Option<&Path>) -> Result<Deleted, Failure> {
    let progress = Progress::new(&session.shell);
    let deleted = cluster::delete(&session.paths, name, kubeconfig, &progress).await;
    drop(progress);
    deleted.context(&failed(name))
}

fn failed(name: &str) -> String {
    format!("failed to delete cluster \"{name}\"")
}
