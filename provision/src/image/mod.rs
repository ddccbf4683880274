//! Images: content by digest, names, and layers that are unpacked once per host.
//!
//! The store is an OCI image layout (`oci-layout`, `index.json`, `blobs/sha256/HEX`), so that other tools can read
//! it, plus `layers/HEX/fs`: the unpacked layers by the digest of their uncompressed archive, in the form overlayfs
//! wants as lower directories. Several processes may use one store at once. Whatever is being written lives in
//! `tmp/` under a lock of its writer and is renamed into place when it is complete, verified and on disk; what a
//! killed process left there is removed by the next one. Blobs that come from afar are in `partial/` until they are
//! complete: another pull goes on with what a cut one has left there, for a day.
//!
//! What nothing refers to goes by [`Store::prune`] only, and not while anybody has a promise ([`Store::share`]) that
//! all stays.
//!
//! A [`Bundle`] is somebody else's: the images of an archive or of another layout, on their way into nodes. What an
//! archive holds never becomes part of the store: it stays in the archive's own file or, if that can only be read front
//! to back, is parked in `tmp/`.
//!
//! All of this blocks: asynchronous callers move it to a blocking thread.

mod archive;
mod blob;
mod bundle;
mod content;
mod derived;
mod digest;
mod docker_archive;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod index;
mod inode;
mod located;
mod manifest;
mod materialise;
mod members;
mod oci_index;
mod pack;
mod parked;
mod part;
mod partial;
mod pax;
mod picked;
mod reference;
mod scratch;
mod sparse;
mod staged;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod unpack;
mod usage;
mod verification;
mod whiteout;

pub use blob::BlobWriter;
pub use bundle::{Bundle, BundleImage, Document};
pub use content::{BlobSource, Blobs};
pub(crate) use derived::{Derivation, Derived};
pub use digest::Digest;
pub(crate) use inode::unset_opaque;
pub use manifest::{Image, ImageSettings, Layer, write_image};
pub(crate) use manifest::{MAX_DEPTH, for_this_host, is_index, is_manifest, platforms};
pub use materialise::materialise;
pub(crate) use materialise::visit_files;
pub use oci_spec::image::{Descriptor, ImageConfiguration};
pub(crate) use pack::archive_tree;
pub use pack::pack_layer;
pub use parked::Parking;
pub use part::{FilePart, PartReader};
pub use partial::Partial;
pub(crate) use picked::pick_files;
pub use reference::Reference;
pub use store::{InUse, Store};
pub(crate) use unpack::extract_tree;
pub use usage::{ImageUsage, Pruned};
pub use verification::{Damage, Verified};
pub(crate) use whiteout::whiteout_tree;

use std::{io, path::Path};

use crate::Error;

/// Turns a failed operation of the store into an error that says what was being done, and names a full disk as such.
/// `path` is where the store is; `what` follows "failed to".
fn failed(what: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| {
        let what = what.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Error::NoSpace { what, path, source }
        } else {
            Error::ImageStore { what, source }
        }
    }
}
