//! The names in the store: `index.json` of an OCI image layout, one entry per name.
//!
//! A name is kept complete, in the annotation that the layout's standard has for it and in containerd's.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType, SCHEMA_VERSION};

use super::{Digest, Reference, failed, manifest::to_json, scratch};
use crate::{Error, Result};

pub(super) const NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The names and what they stand for, sorted by name.
#[derive(Debug, Default)]
pub(super) struct Index(Vec<(Reference, Descriptor)>);

impl Index {
    /// Reads the index of the store at `root`; a store without one has no names.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = path(root);
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed("read the index of images", root)(error)),
        };
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| Error::Damaged { path, source };
        let index: ImageIndex = match serde_json::from_slice(&bytes) {
            Ok(index) => index,
            Err(error) => return Err(damaged(error.into())),
        };
        if index.schema_version() != SCHEMA_VERSION {
            let found = index.schema_version();
            return Err(damaged(format!("it has schema version {found}, not {SCHEMA_VERSION}").into()));
        }
        let named = |descriptor: &Descriptor| -> Option<(Reference, Descriptor)> {
            // Other tools may add entries without a name, or with one that is only a tag.
            let name = descriptor.annotations().as_ref()?.get(NAME)?;
            Some((
                Reference::try_new(name).ok().filter(|reference| reference.to_string() == *name)?,
                descriptor.clone(),
            ))
        };
        let mut entries: Vec<_> = index.manifests().iter().filter_map(named).collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self(entries))
    }

    /// All names.
    pub(super) fn entries(&self) -> &[(Reference, Descriptor)] {
        &self.0
    }

    /// What a name stands for. A name with a digest also finds an image of the same repository by that digest.
    pub(super) fn find(&self, name: &Reference) -> Option<&(Reference, Descriptor)> {
        self.0.iter().find(|(known, _)| known == name).or_else(|| {
            let digest = name.digest()?;
            self.0.iter().find(|(known, descriptor)| {
                (known.domain(), known.path()) == (name.domain(), name.path())
                    && Digest::try_from(descriptor.digest()).is_ok_and(|found| found == digest)
            })
        })
    }
}

/// Changes the index while no other process does. `change` says whether it changed anything.
pub(super) fn update(
    root: &Path,
    change: impl FnOnce(&mut Vec<(Reference, Descriptor)>) -> bool,
) -> Result<bool> {
    let _lock = scratch::lock_directory(root).map_err(failed("lock the index of images", root))?;
    let Index(mut entries) = Index::read(root)?;
    if !change(&mut entries) {
        return Ok(false);
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let manifests = entries.into_iter().map(|(name, mut descriptor)| {
        let mut annotations = descriptor.annotations().clone().unwrap_or_default();
        annotations
            .extend(HashMap::from([NAME, CONTAINERD_NAME].map(|key| (key.to_owned(), name.to_string()))));
        descriptor.set_annotations(Some(annotations));
        descriptor
    });
    let path = path(root);
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests(manifests.collect::<Vec<_>>())
        .build()
        .map_err(|error| Error::Damaged { path: path.clone(), source: Box::new(error) })?;
    let content = to_json(&path.display(), &index)?;
    scratch::replace_file(&root.join("tmp"), &path, &content)
        .map_err(failed("write the index of images", root))?;
    Ok(true)
}

fn path(root: &Path) -> PathBuf {
    root.join("index.json")
}
