//! What is below Kubernetes in a node: the Debian root of the recipe, or an image that somebody has made.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{Build, cache::file_error, debian::Debian, layer, source::refused, subset};
use crate::{
    Result,
    image::{Image, Layer, Reference, Store, materialise, whiteout_tree},
};

/// Programs that the entrypoint, the units and kubelet start, beside those that the build brings along.
const PROGRAMS: [&str; 14] = [
    "/sbin/init",
    "/bin/bash",
    "/bin/mount",
    "/bin/sed",
    "/bin/grep",
    "/bin/systemctl",
    "/usr/bin/awk",
    "/usr/bin/getent",
    "/usr/sbin/conntrack",
    "/usr/sbin/ip",
    "/usr/sbin/iptables",
    "/usr/sbin/ip6tables",
    "/usr/sbin/nft",
    "/usr/sbin/modprobe",
];

/// What a node image brings along itself: what a base has there must not show through.
const REPLACED: [&str; 1] = ["var/lib/containerd"];

/// An image to build on.
#[derive(Debug)]
pub(super) struct BaseImage {
    image: Image,
    /// Whether it has something of [`REPLACED`].
    hides: bool,
}

impl BaseImage {
    /// Finds it in the store and looks whether a node can be made of it.
    ///
    /// # Errors
    /// [`Error::BuildSource`](crate::Error::BuildSource) when it is not there or lacks something.
    pub(super) async fn open(build: &Build<'_>, store: &Store, name: &Reference) -> Result<Self> {
        let what = format!("the base image {}", name.familiar());
        let image = store.image(name)?.ok_or_else(|| {
            refused(
                &what,
                "it is not in the store of this host",
                "`kiln images ls --host` lists those that are; without --base-image Debian is the base",
            )
        })?;
        let scratch = build.cache.scratch()?;
        let looking = tokio::task::spawn_blocking({
            let (store, image, root) = (store.clone(), image.clone(), scratch.path().join("root"));
            move || {
                let layers = store.unpack(&image)?;
                // Names of the same files, on the same file system: nothing is copied, and nothing written to.
                materialise(&layers, Path::new(""), &root, |_| true)?;
                Ok((missing(&root), REPLACED.iter().any(|path| root.join(path).exists())))
            }
        });
        let failed = file_error("look into the base image", build.cache.root());
        let (missing, hides): (Vec<&str>, bool) =
            looking.await.map_err(io::Error::other).map_err(failed).and_then(|result| result)?;
        if !missing.is_empty() {
            let reason = format!("it lacks {}", missing.join(", "));
            return Err(refused(what, reason, "take an image with systemd and the tools of a node"));
        }
        Ok(Self { image, hides })
    }

    /// Its environment, as `NAME=VALUE`.
    pub(super) fn environment(&self) -> Vec<String> {
        let config = self.image.config.config().as_ref();
        config.and_then(|config| config.env().clone()).unwrap_or_default()
    }

    /// Its labels.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let config = self.image.config.config().as_ref();
        config.and_then(|config| config.labels().clone()).unwrap_or_default().into_iter().collect()
    }
}

/// The layers below the node's own, bottom first.
pub(super) async fn layers(
    build: &Build<'_>,
    store: &Store,
    debian: &Debian,
    image: Option<&BaseImage>,
) -> Result<Vec<Layer>> {
    let Some(base) = image else {
        return Ok(vec![layer::packed(build, store, "debian", &debian.key, &debian.root).await?]);
    };
    let mut layers = base.image.layers.clone();
    if base.hides {
        let scratch = build.cache.scratch()?;
        let root: PathBuf = scratch.path().join("root");
        let making = file_error("hide what the base image has", build.cache.root());
        whiteout_tree(&root, REPLACED.map(Path::new)).map_err(making)?;
        layers.push(layer::packed(build, store, "hidden", &REPLACED.join(","), &root).await?);
    }
    Ok(layers)
}

/// The programs that are not in a root.
fn missing(root: &Path) -> Vec<&'static str> {
    let is_there = |path: &str| {
        // Roots without merged /usr have them in either place.
        let other = match path.strip_prefix("/usr") {
            Some(other) => other.to_owned(),
            None => format!("/usr{path}"),
        };
        [path, &other].iter().any(|place| subset::resolve(root, Path::new(place)).is_some())
    };
    PROGRAMS.into_iter().filter(|path| !is_there(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_either_place_and_those_missing_are_named() {
        let root = tempfile::tempdir().unwrap();
        for path in PROGRAMS.iter().filter(|path| !path.ends_with("/nft")) {
            // The other way round than they are listed.
            let path = path.strip_prefix("/usr").map_or(format!("usr{path}"), |path| path[1..].to_owned());
            let path = root.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        assert_eq!(missing(root.path()), ["/usr/sbin/nft"]);
    }
}
