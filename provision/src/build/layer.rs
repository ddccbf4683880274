//! Packing directories of the build into layers, each at most once.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{Build, cache::file_error};
use crate::{
    Error, Result,
    image::{Digest, Layer, Store, pack_layer},
};

/// What is written down about a packed layer.
#[derive(Deserialize, Serialize)]
struct Record {
    digest: Digest,
    diff_id: Digest,
    media_type: String,
    size: u64,
}

/// The layer that holds a directory, made from `key`. The work of packing is saved when the store still has it.
pub(super) async fn packed(
    build: &Build<'_>,
    store: &Store,
    name: &str,
    key: &str,
    directory: &Path,
) -> Result<Layer> {
    let cached = format!("layers/{name}");
    if let Some(record) = build.cache.find(&cached, key).and_then(|path| read(&path))
        && store.blob_path(&record.digest).exists()
    {
        return Ok(Layer {
            digest: record.digest,
            diff_id: record.diff_id,
            media_type: record.media_type,
            size: record.size,
        });
    }
    let packing = tokio::task::spawn_blocking({
        let (store, directory) = (store.clone(), directory.to_owned());
        move || pack_layer(&store, &directory, |_| true)
    });
    let layer =
        packing.await.map_err(io::Error::other).map_err(file_error("pack a layer", build.cache.root()))??;
    let record = Record {
        digest: layer.digest,
        diff_id: layer.diff_id,
        media_type: layer.media_type.clone(),
        size: layer.size,
    };
    let noting = file_error("note a packed layer", build.cache.root());
    let scratch = build.cache.scratch()?;
    let path = scratch.path().join("layer.json");
    let text = serde_json::to_vec(&record)
        .map_err(|source| Error::Damaged { path: path.clone(), source: source.into() })?;
    fs_err::write(&path, text).map_err(noting)?;
    build.cache.commit(&path, &cached, key)?;
    Ok(layer)
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_slice(&fs_err::read(path).ok()?).ok()
}
