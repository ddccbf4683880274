//! Images that a node has and has not unpacked.

use std::collections::{BTreeSet, HashMap};

use containerd_client::services::v1::{DeleteRequest, ListImagesRequest};
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use super::{Blob, BlobData, Containerd, ImportLayer, call, import::snapshot_label, request};
use crate::{
    Result,
    image::{MAX_DEPTH, for_this_host},
};

/// Images unpacked at the same time: each keeps a processor busy, and the disk as well.
const PARALLEL: usize = 2;

/// An image by what unpacking it takes.
#[derive(Clone, Debug)]
struct Pending {
    /// The digest of its configuration.
    config: String,
    /// Its layers, bottom first. Their content is in the node, and need not be sent any more.
    layers: Vec<ImportLayer>,
}

/// What [`Containerd::unpack_all`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnpackedImages {
    /// Images that were unpacked.
    pub(crate) unpacked: usize,
    /// Names of images that could not be: some of their content is not there.
    pub(crate) incomplete: BTreeSet<String>,
}

impl Containerd {
    /// Unpacks all images whose content is there and whose snapshots are not. `told` gets the names.
    ///
    /// # Errors
    /// [`ContainerdCall`](crate::Error::ContainerdCall) when containerd refuses a step, [`LayerMismatch`](crate::Error::LayerMismatch) when a layer is not what the
    /// image's configuration says. Nothing half-made stays once the caller's lease has ended, which it has when this returns.
    pub(crate) async fn unpack_all(&self, told: &(dyn Fn(&str) + Sync)) -> Result<UnpackedImages> {
        let lease = self.take_lease().await?;
        let result = self.unpack_leased(&lease, told).await;
        // Waiting for the collection: two images with layers in common may both have begun to unpack them.
        let message = DeleteRequest { id: lease.clone(), sync: true };
        let ended = self.client.leases().delete(request(message)).await;
        let unpacked = result?;
        ended.map_err(call("end the lease", lease))?;
        Ok(unpacked)
    }

    async fn unpack_leased(&self, lease: &str, told: &(dyn Fn(&str) + Sync)) -> Result<UnpackedImages> {
        let message = ListImagesRequest { filters: Vec::new() };
        let answer = self.client.images().list(request(message)).await.map_err(call("list", "images"))?;
        let mut records = answer.into_inner().images;
        // Names before the digests that images are recorded under as well.
        records.sort_by_key(|record| (record.name.contains("sha256:"), record.name.clone()));
        let mut seen = BTreeSet::new();
        let mut done = UnpackedImages::default();
        let mut waiting = Vec::new();
        for record in records {
            let image = self.pending(record.target.unwrap_or_default().digest).await?;
            // One may be recorded by an index, and by its manifest as well.
            if image.as_ref().is_some_and(|image| !seen.insert(image.config.clone())) {
                continue;
            }
            match image {
                Some(image) if self.is_unpacked(&image.layers).await? => {}
                Some(image) if self.has_layers(&image).await? => waiting.push((record.name, image)),
                _ => drop(done.incomplete.insert(record.name)),
            }
        }
        done.unpacked = waiting.len();
        let unpacking = waiting.into_iter().map(|(name, image)| async move {
            told(&name);
            let snapshot = self.unpack(&image.layers, lease).await?;
            // From here on the image's configuration keeps its snapshot.
            self.label(&image.config, &HashMap::from([(snapshot_label(), snapshot)])).await
        });
        stream::iter(unpacking).buffer_unordered(PARALLEL).try_collect::<()>().await?;
        Ok(done)
    }

    /// The image that a manifest or index describes, in its variant for this host; `None` when it is no image, or its documents
    /// are not there.
    async fn pending(&self, mut digest: String) -> Result<Option<Pending>> {
        for _ in 0..MAX_DEPTH {
            let Some(document) = self.read_small(&digest).await? else { return Ok(None) };
            if let Ok(index) = serde_json::from_slice::<ImageIndex>(&document) {
                let Some(next) = self.present_variant(index.manifests()).await? else { return Ok(None) };
                digest = next;
                continue;
            }
            let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&document) else { return Ok(None) };
            let config = self.read_small(manifest.config().digest().as_ref()).await?;
            return Ok(config.and_then(|config| pending(&manifest, &config)));
        }
        Ok(None)
    }

    /// The digest of the first variant for this host that is there: an index usually names many that are not.
    async fn present_variant(&self, manifests: &[Descriptor]) -> Result<Option<String>> {
        for variant in for_this_host(manifests) {
            let digest = variant.digest().to_string();
            if self.has_content(&digest).await? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    async fn has_layers(&self, image: &Pending) -> Result<bool> {
        for layer in &image.layers {
            if !self.has_content(&layer.blob.digest).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// `None` for what is no image to run, such as a signature.
fn pending(manifest: &ImageManifest, config: &[u8]) -> Option<Pending> {
    let parsed: ImageConfiguration = serde_json::from_slice(config).ok()?;
    let diff_ids = parsed.rootfs().diff_ids();
    let layers = manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| ImportLayer {
        blob: Blob {
            digest: layer.digest().to_string(),
            media_type: layer.media_type().to_string(),
            size: layer.size(),
            data: BlobData::Bytes(Vec::new()),
        },
        diff_id: diff_id.clone(),
    });
    let same = diff_ids.len() == manifest.layers().len();
    let config = manifest.config().digest().to_string();
    same.then(|| Pending { config, layers: layers.collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(diff_ids: &[&str]) -> Option<Pending> {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("c"), "size": 2 },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest("1"), "size": 9 }],
        });
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        pending(&serde_json::from_value(manifest).unwrap(), config.to_string().as_bytes())
    }

    #[test]
    fn layers_come_with_what_they_unpack_to() {
        let image = read(&["sha256:d"]).unwrap();
        let [layer] = &image.layers[..] else { panic!("{image:?}") };
        assert_eq!((layer.diff_id.as_str(), layer.blob.size), ("sha256:d", 9));
        assert!(layer.blob.digest.ends_with("111") && layer.blob.media_type.ends_with("gzip"));
        assert!(image.config.ends_with("ccc"));
    }

    #[test]
    fn what_is_no_image_is_passed_over() {
        assert!(read(&[]).is_none(), "manifest and configuration disagree");
    }
}
