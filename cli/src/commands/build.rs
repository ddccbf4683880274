//! `build node-image`

use kiln_provision::{
    build::{self, BuildOptions},
    image::{Reference, Store},
};

use super::{Session, block_on, version_tag};
use crate::{
    arguments::BuildNodeImage,
    failure::{Context, Failure, require_root},
    progress::Progress,
    signal,
};

const FAILED: &str = "failed to build node image";

/// Builds a node image into the host's store.
pub(super) fn node_image(session: &Session, arguments: &BuildNodeImage) -> Result<(), Failure> {
    let version = version_tag(&arguments.kubernetes_version);
    let name = match arguments.image.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Reference::try_new(name),
        None => build::image_for(&version),
    };
    let name = name.context(FAILED)?;
    require_root("building a node image")?;
    let store = Store::open(&session.paths.images()).context(FAILED)?;
    let options = BuildOptions { kubernetes_version: version, image: name, no_cache: arguments.no_cache };
    let image = block_on(async {
        let progress = Progress::new(&session.shell);
        signal::until_interrupted(async {
            build::node_image(&session.paths, &store, &options, &progress).await.context(FAILED)
        })
        .await
    })?;
    session.shell.status(&format!("Built image {} ({})", image.name.familiar(), image.manifest));
    Ok(())
}
