//! Unpacking layers into snapshots of a node.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::atomic::{AtomicU32, Ordering},
};

use containerd_client::{
    services::v1::{
        ApplyRequest,
        snapshots::{
            CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
        },
    },
    tonic::Code,
};
use sha2::{Digest as _, Sha256};

use super::{Containerd, ImportLayer, SNAPSHOTTER, call, leased, request};
use crate::{Error, Result};

impl Containerd {
    /// Unpacks the layers that have no snapshot yet, each on top of the one before. Returns the name of the last
    /// snapshot.
    pub(super) async fn unpack(&self, layers: &[ImportLayer], lease: &str) -> Result<String> {
        let mut parent = String::new();
        for layer in layers {
            let chain = chain_id(&parent, &layer.diff_id);
            if !self.has_snapshot(&chain).await? {
                self.unpack_layer(layer, &parent, &chain, lease).await?;
            }
            parent = chain;
        }
        Ok(parent)
    }

    /// Whether the snapshot of an image's topmost layer is there, so that none of its layers is needed. There is nothing
    /// to unpack of an image without layers.
    pub(super) async fn is_unpacked(&self, layers: &[ImportLayer]) -> Result<bool> {
        if layers.is_empty() {
            return Ok(true);
        }
        let chain = layers.iter().fold(String::new(), |parent, layer| chain_id(&parent, &layer.diff_id));
        self.has_snapshot(&chain).await
    }

    async fn has_snapshot(&self, name: &str) -> Result<bool> {
        let message = StatSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key: name.to_owned() };
        match self.client.snapshots().stat(request(message)).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(call("look for the snapshot", name)(status)),
        }
    }

    async fn unpack_layer(&self, layer: &ImportLayer, parent: &str, chain: &str, lease: &str) -> Result<()> {
        // The name of the lease makes it ours alone, and the number this image's, of those that are unpacked at the same time.
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let key = format!("unpack-{lease}-{}-{chain}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let message = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let prepared = self.client.snapshots().prepare(leased(message, lease)).await;
        let mounts = prepared.map_err(call("prepare a snapshot for", &layer.diff_id))?.into_inner().mounts;

        let result = self.apply(layer, mounts, lease).await;
        if let Err(error) = result {
            let message = RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key };
            // The first error is the one to tell.
            let _ = self.client.snapshots().remove(request(message)).await;
            return Err(error);
        }
        let message = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: chain.to_owned(),
            key,
            ..Default::default()
        };
        match self.client.snapshots().commit(leased(message, lease)).await {
            Ok(_) => Ok(()),
            // Another import of the same layer was faster.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            Err(status) => Err(call("commit the snapshot of", &layer.diff_id)(status)),
        }
    }

    async fn apply(
        &self,
        layer: &ImportLayer,
        mounts: Vec<containerd_client::types::Mount>,
        lease: &str,
    ) -> Result<()> {
        let message = ApplyRequest { diff: Some(layer.blob.descriptor()), mounts, ..Default::default() };
        let applied = self.client.diff().apply(leased(message, lease)).await;
        let applied = applied.map_err(call("unpack", &layer.blob.digest))?.into_inner().applied;
        let found = applied.map(|descriptor| descriptor.digest).unwrap_or_default();
        if found == layer.diff_id {
            Ok(())
        } else {
            Err(Error::LayerMismatch {
                layer: layer.blob.digest.clone(),
                expected: layer.diff_id.clone(),
                found,
            })
        }
    }
}

/// Names a layer on top of others: the digest of the parent's name and the layer's diff id. The first is its diff id
/// (OCI image specification, "layer ChainID").
fn chain_id(parent: &str, diff_id: &str) -> String {
    if parent.is_empty() {
        return diff_id.to_owned();
    }
    let digest = Sha256::digest(format!("{parent} {diff_id}"));
    digest.iter().fold("sha256:".to_owned(), |mut name, byte| {
        write!(name, "{byte:02x}").expect("writing to a string");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let first = chain_id("", "sha256:aa");
        assert_eq!(first, "sha256:aa");
        // printf 'sha256:aa sha256:bb' | sha256sum
        let expected = "sha256:b68ad689d6d1ec110ea1c13617437ad6f3766d4b3b309f6a603a222e07a0164f";
        assert_eq!(chain_id(&first, "sha256:bb"), expected);
    }
}
