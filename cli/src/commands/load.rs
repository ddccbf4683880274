//! `load docker-image`, `load image-archive` and `load oci-layout`

use std::io::{self, IsTerminal};

use kiln_provision::cluster::{self, Cancel, LoadSource};

use super::{Session, block_on};
use crate::{
    arguments::LoadTarget,
    failure::{Failure, require_root},
    progress::Progress,
    signal, usage,
};

/// Loads images into nodes. Progress is all that there is to say.
pub(super) fn load(session: &Session, sources: Vec<LoadSource>, target: &LoadTarget) -> Result<(), Failure> {
    require_root("loading images into nodes")?;
    if sources.contains(&LoadSource::StandardInput) && io::stdin().is_terminal() {
        return Err(Failure::new("standard input is a terminal, not an image archive").with_hint(format!(
            "pass the archive on, as in \"docker save IMAGE | {} load image-archive -\"",
            usage::program(&session.args)
        )));
    }
    block_on(async {
        let cancel = Cancel::new();
        signal::watch(&session.shell, &cancel)?;
        let progress = Progress::new(&session.shell);
        let loaded = cluster::load(&session.paths, sources, &target.options(), &progress, &cancel).await;
        drop(progress);
        loaded.map_err(|error| {
            let failure = Failure::from(error);
            if cancel.is_triggered() { failure.into_interrupted() } else { failure }
        })
    })
}
