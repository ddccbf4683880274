//! Layers that are made of an image and not part of it: what its containers' images are, unpacked.
//!
//! There is one at most for each image, at the place of the layer with a digest that is made from the digest of the image's
//! manifest. So it needs no index: whoever has the image finds it, it is in use as long as the image or a node of it is, and
//! it goes with the image. Its record is beside its files and says what their archive's digest is, to verify them by.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Digest, Store, digest::Hashed, failed, pack::write_archive, scratch::ScratchDirectory};
use crate::{Error, Result};

/// Counts changes of what such a layer holds: layers of another revision are not found, and go with the next prune.
const REVISION: u32 = 1;

/// The files of a layer and, beside them, the record of a derived one.
const FILES: &str = "fs";
const RECORD: &str = "derived.json";

/// What is written down about a derived layer.
#[derive(Debug, Deserialize, Serialize)]
struct Record {
    /// The digest of the manifest that it was derived from.
    image: Digest,
    /// The digest of an archive of its files.
    content: Digest,
}

/// A derived layer that is being made, by one process at a time. What is not published is removed when this goes.
#[derive(Debug)]
pub(crate) struct Derivation {
    store: Store,
    image: Digest,
    scratch: ScratchDirectory,
}

/// The layer that was derived from an image, or the making of it.
#[derive(Debug)]
pub(crate) enum Derived {
    /// It is there.
    There(PathBuf),
    /// It is the caller's to make.
    Missing(Derivation),
}

/// What a killed process has left of a derivation; nobody works on it while this lives.
#[derive(Debug)]
pub(crate) struct Abandoned(#[expect(dead_code, reason = "it is held, not used")] ScratchDirectory);

/// The place of the layer that is derived from an image, by the digest of its manifest.
pub(super) fn derived_id(image: &Digest) -> Digest {
    Digest::of(format!("kiln: images of {image} unpacked, {REVISION}").as_bytes())
}

impl Store {
    /// The layer that was derived from the image with this manifest, if there is one.
    #[must_use]
    pub fn derived_layer(&self, image: &Digest) -> Option<PathBuf> {
        Some(self.layer_path(&derived_id(image))).filter(|path| path.exists())
    }

    /// Looks for the layer that is derived from an image, or begins to make it. While another process makes it, this waits.
    ///
    /// # Errors
    /// No temporary directory can be made.
    pub(crate) fn derive(&self, image: &Digest) -> Result<Derived> {
        let name = scratch_name(&derived_id(image).hex());
        let scratch = ScratchDirectory::acquire(&self.tmp(), &name)
            .map_err(failed(format!("make a directory for a layer of {image}"), self.root()))?;
        Ok(match self.derived_layer(image) {
            Some(layer) => Derived::There(layer),
            None => Derived::Missing(Derivation { store: self.clone(), image: *image, scratch }),
        })
    }

    /// Takes what is left of the derivation with this [name](Derivation::id), unless a process is at it.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub(crate) fn abandoned_derivation(&self, id: &str) -> Result<Option<Abandoned>> {
        let taken = ScratchDirectory::try_acquire(&self.tmp(), &scratch_name(id));
        let taken = taken.map_err(failed("look for what a killed process has left", self.root()))?;
        Ok(taken.map(Abandoned))
    }

    /// What is wrong with a derived layer; nothing with others, which have no record.
    pub(super) fn derived_problem(&self, layer: &Digest) -> Option<String> {
        let directory = self.layer_directory(layer);
        let text = match fs_err::read(directory.join(RECORD)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(error.to_string()),
        };
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            Err(error) => return Some(format!("its record cannot be read: {error}")),
        };
        match content(&directory.join(FILES)) {
            Ok(found) if found == record.content => None,
            Ok(_) => Some(format!("its files are not those that were derived from {}", record.image)),
            Err(error) => Some(format!("its files cannot be read: {error}")),
        }
    }
}

impl Derivation {
    /// Names it among those of other images, in letters and digits.
    pub(crate) fn id(&self) -> String {
        derived_id(&self.image).hex()
    }

    /// A directory for whatever making the layer takes, on the file system of the store; empty at first.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Where the layer's files belong.
    pub(crate) fn files(&self) -> PathBuf {
        self.path().join(FILES)
    }

    /// Gives the layer its place, complete and on disk. Everything else in the directory is removed. Blocks.
    ///
    /// # Errors
    /// Something cannot be read, written or removed; nothing is left of the layer then.
    pub(crate) fn publish(self) -> Result<PathBuf> {
        let Self { store, image, scratch } = self;
        let destination = store.layer_directory(&derived_id(&image));
        let publish = || -> io::Result<()> {
            let path = scratch.path();
            for entry in fs_err::read_dir(path)? {
                let entry = entry?;
                if entry.file_name() != FILES {
                    super::scratch::remove(&entry.path())?;
                }
            }
            let record = Record { image, content: content(&path.join(FILES))? };
            fs_err::write(path.join(RECORD), serde_json::to_vec(&record)?)?;
            scratch.publish(&destination)
        };
        publish().map_err(failed(format!("keep the layer derived from {image}"), store.root()))?;
        Ok(destination.join(FILES))
    }

    /// Names a failed file operation; a full disk is told as such.
    pub(crate) fn failed(&self, what: String) -> impl FnOnce(io::Error) -> Error {
        failed(what, self.store.root())
    }
}

fn scratch_name(id: &str) -> String {
    format!("derived-{id}")
}

/// The digest of an archive of the files below a directory.
fn content(files: &Path) -> io::Result<Digest> {
    let mut archive = Hashed::new(io::sink());
    write_archive(files, &|_| true, &mut archive, &mut Vec::new())?;
    Ok(archive.into_parts().1)
}
