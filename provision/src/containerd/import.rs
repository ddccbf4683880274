//! Bringing an image into a node.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
};

use containerd_client::{
    services::v1::{
        CreateImageRequest, CreateRequest, DeleteRequest, Image as ImageRecord, UpdateImageRequest,
    },
    tonic::Code,
};
use oci_spec::image::ImageManifest;

use super::{Blob, BlobData, Containerd, SNAPSHOTTER, Supply, call, request};
use crate::{
    Error, Result,
    image::{BlobSource, Bundle, BundleImage, Document, Image, Layer, Store},
};

/// Leases end by themselves if whoever took them does not end them: an import takes minutes at most.
const LEASE_HOURS: i64 = 2;

/// An image as it goes into a node: one platform's manifest with what it refers to.
#[derive(Clone, Debug)]
pub struct ImportImage {
    /// Full names, such as `docker.io/library/busybox:stable`.
    pub names: Vec<String>,
    /// The indexes that lead to the manifest, outermost first: what the names stand for, if there is any. Other
    /// manifests of theirs need not be there, as after a pull for one platform.
    pub indexes: Vec<Blob>,
    /// The manifest.
    pub manifest: Blob,
    /// The configuration; its digest is the image's id.
    pub config: Blob,
    /// The layers, bottom first.
    pub layers: Vec<ImportLayer>,
}

/// A layer of an [`ImportImage`].
#[derive(Clone, Debug)]
pub struct ImportLayer {
    /// Its content, compressed or not.
    pub blob: Blob,
    /// `sha256:…` of the uncompressed content.
    pub diff_id: String,
}

/// How an image is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// Unpack it now, not when the first container needs it.
    pub unpack: bool,
    /// Keep the layers' content after unpacking. Without it the image can be run, but not exported.
    pub keep_layers: bool,
    /// Keep kubelet from removing the image when the disk fills up: it could not be fetched again.
    pub pinned: bool,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { unpack: false, keep_layers: true, pinned: false }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Bytes that the node did not have.
    pub bytes_sent: u64,
}

impl ImportImage {
    /// An image of a store under the names it is to have in the node.
    ///
    /// # Errors
    /// When the manifest cannot be read, [`Error::Damaged`] when it is none.
    pub fn from_store(store: &Store, image: &Image, names: Vec<String>) -> Result<Self> {
        let bytes = store.read_blob(&image.manifest)?;
        let manifest = ImageManifest::from_reader(bytes.as_slice()).map_err(|source| Error::Damaged {
            path: store.blob_path(&image.manifest),
            source: source.into(),
        })?;
        let media_type = manifest
            .media_type()
            .as_ref()
            .map_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned(), ToString::to_string);
        let blob = |descriptor: &oci_spec::image::Descriptor| -> Result<Blob> {
            let digest = descriptor.digest().to_string();
            let parsed = digest.parse()?;
            Ok(Blob {
                data: BlobData::Source(BlobSource::File(store.blob_path(&parsed))),
                media_type: descriptor.media_type().to_string(),
                size: descriptor.size(),
                digest,
            })
        };
        let mut layers = Vec::new();
        for (descriptor, layer) in manifest.layers().iter().zip(&image.layers) {
            layers.push(ImportLayer { blob: blob(descriptor)?, diff_id: layer.diff_id.to_string() });
        }
        Ok(Self {
            names,
            indexes: Vec::new(),
            config: blob(manifest.config())?,
            layers,
            manifest: Blob {
                digest: image.manifest.to_string(),
                media_type,
                size: bytes.len() as u64,
                data: BlobData::Bytes(bytes),
            },
        })
    }

    /// An image of a bundle.
    #[must_use]
    pub fn from_bundle(bundle: &Bundle, image: &BundleImage) -> Self {
        let document = |document: &Document| Blob {
            digest: document.digest.to_string(),
            media_type: document.media_type.clone(),
            size: document.bytes.len() as u64,
            data: BlobData::Bytes(document.bytes.clone()),
        };
        let layer = |layer: &Layer| ImportLayer {
            blob: Blob {
                digest: layer.digest.to_string(),
                media_type: layer.media_type.clone(),
                size: layer.size,
                data: BlobData::Source(bundle.blob(&layer.digest)),
            },
            diff_id: layer.diff_id.to_string(),
        };
        Self {
            names: image.names.iter().map(ToString::to_string).collect(),
            indexes: image.indexes.iter().map(document).collect(),
            manifest: document(&image.manifest),
            config: document(&image.config),
            layers: image.layers.iter().map(layer).collect(),
        }
    }

    /// What the names stand for.
    pub(super) fn target(&self) -> &Blob {
        self.indexes.first().unwrap_or(&self.manifest)
    }
}

impl Containerd {
    /// Brings an image into the node. What the node has is not sent again; what is interrupted leaves nothing that
    /// outlives its lease.
    ///
    /// # Errors
    /// [`Error::ContainerdCall`] when containerd refuses a step, [`Error::LayerMismatch`] when a layer is not what the
    /// configuration says, [`Error::File`] when content cannot be read.
    pub async fn import(&self, image: &ImportImage, options: ImportOptions) -> Result<Imported> {
        self.import_until(image, options, None, std::future::pending()).await
    }

    /// Like [`import`](Self::import), but takes content from a supply, if there is one, and gives up when `stop` is there. It
    /// leaves nothing in the node then.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when it was stopped, [`Error::Unfit`] when the supply does not have what it should, otherwise as
    /// for [`import`](Self::import).
    pub(crate) async fn import_until(
        &self,
        image: &ImportImage,
        options: ImportOptions,
        supply: Option<&Supply>,
        stop: impl Future<Output = ()>,
    ) -> Result<Imported> {
        let lease = self.take_lease().await?;
        let result = tokio::select! {
            result = self.import_leased(image, options, supply, &lease) => result,
            () = stop => Err(Error::Interrupted),
        };
        // Waiting for the collection: what was only needed for unpacking is gone when this returns.
        let sync = options.unpack && !options.keep_layers;
        let message = DeleteRequest { id: lease.clone(), sync };
        let ended = self.client.leases().delete(request(message)).await;
        let imported = result?;
        ended.map_err(call("end the lease", lease))?;
        Ok(imported)
    }

    async fn import_leased(
        &self,
        image: &ImportImage,
        options: ImportOptions,
        supply: Option<&Supply>,
        lease: &str,
    ) -> Result<Imported> {
        let none = HashMap::new();
        let mut imported = Imported::default();
        let layers_needed =
            options.keep_layers || !options.unpack || !self.is_unpacked(&image.layers).await?;
        if layers_needed {
            for layer in &image.layers {
                imported.bytes_sent += self.bring(&layer.blob, &none, supply, lease).await?;
            }
        }
        imported.bytes_sent += self.bring(&image.config, &none, supply, lease).await?;
        if options.unpack && !image.layers.is_empty() {
            let snapshot = self.unpack(&image.layers, lease).await?;
            // From here on the image's configuration keeps its snapshot.
            self.label(&image.config.digest, &HashMap::from([(snapshot_label(), snapshot)])).await?;
        }
        imported.bytes_sent +=
            self.bring(&image.manifest, &references(image, options), supply, lease).await?;
        // Inside out: what something refers to is there before it.
        let mut child = &image.manifest;
        for index in image.indexes.iter().rev() {
            let label =
                HashMap::from([("containerd.io/gc.ref.content.m.0".to_owned(), child.digest.clone())]);
            imported.bytes_sent += self.bring(index, &label, supply, lease).await?;
            child = index;
        }
        for name in image.names.iter().chain([&image.config.digest]) {
            self.record(name, image, options).await?;
        }
        Ok(imported)
    }

    /// Protects what is made with it until it is ended, or for as long as any work takes.
    pub(super) async fn take_lease(&self) -> Result<String> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let now = jiff::Timestamp::now();
        let id = format!(
            "kiln-{}-{}-{}",
            std::process::id(),
            now.as_nanosecond(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let expire = now + jiff::SignedDuration::from_hours(LEASE_HOURS);
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), format!("{expire:.0}"))]);
        let message = CreateRequest { id: id.clone(), labels };
        self.client.leases().create(request(message)).await.map_err(call("take the lease", &id))?;
        Ok(id)
    }

    /// Gives an image a name, as CRI does: one record for each name and one for the id. With its label CRI takes the
    /// record as it is and needs not write it again when it starts.
    async fn record(&self, name: &str, image: &ImportImage, options: ImportOptions) -> Result<()> {
        let record = ImageRecord {
            name: name.to_owned(),
            labels: labels(options),
            target: Some(image.target().descriptor()),
            ..Default::default()
        };
        let message = CreateImageRequest { image: Some(record.clone()), source_date_epoch: None };
        match self.client.images().create(request(message)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => {
                let message = UpdateImageRequest { image: Some(record), ..Default::default() };
                self.client.images().update(request(message)).await.map_err(call("rename", name))?;
                Ok(())
            }
            Err(status) => Err(call("record", name)(status)),
        }
    }
}

/// The label by which a configuration keeps its image's topmost snapshot from being collected (containerd core/unpack).
pub(super) fn snapshot_label() -> String {
    format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}")
}

/// What the manifest keeps from being collected.
fn references(image: &ImportImage, options: ImportOptions) -> HashMap<String, String> {
    let mut labels =
        HashMap::from([("containerd.io/gc.ref.content.config".to_owned(), image.config.digest.clone())]);
    if options.keep_layers || !options.unpack {
        for (number, layer) in image.layers.iter().enumerate() {
            labels.insert(format!("containerd.io/gc.ref.content.l.{number}"), layer.blob.digest.clone());
        }
    }
    labels
}

fn labels(options: ImportOptions) -> HashMap<String, String> {
    let mut labels = HashMap::from([("io.cri-containerd.image".to_owned(), "managed".to_owned())]);
    if options.pinned {
        labels.insert("io.cri-containerd.pinned".to_owned(), "pinned".to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(digest: &str) -> Blob {
        Blob {
            digest: digest.to_owned(),
            media_type: "t".to_owned(),
            size: 0,
            data: BlobData::Bytes(Vec::new()),
        }
    }

    #[test]
    fn layers_are_kept_unless_they_are_unpacked_and_not_wanted() {
        let image = ImportImage {
            names: Vec::new(),
            indexes: Vec::new(),
            manifest: blob("m"),
            config: blob("c"),
            layers: vec![ImportLayer { blob: blob("l"), diff_id: "d".to_owned() }],
        };
        let kept = |unpack, keep_layers| {
            let labels = references(&image, ImportOptions { unpack, keep_layers, pinned: false });
            assert_eq!(labels["containerd.io/gc.ref.content.config"], "c");
            labels.contains_key("containerd.io/gc.ref.content.l.0")
        };
        assert!(kept(true, true));
        assert!(kept(false, false), "without a snapshot the layers are all there is");
        assert!(!kept(true, false));
    }

    #[test]
    fn names_stand_for_the_outermost_index_if_there_is_one() {
        let mut image = ImportImage {
            names: Vec::new(),
            indexes: Vec::new(),
            manifest: blob("m"),
            config: blob("c"),
            layers: Vec::new(),
        };
        assert_eq!(image.target().digest, "m");
        image.indexes = vec![blob("outer"), blob("inner")];
        assert_eq!(image.target().digest, "outer");
    }

    #[test]
    fn only_pinned_images_carry_the_label_that_says_so() {
        let options = ImportOptions { pinned: true, ..ImportOptions::default() };
        assert_eq!(labels(options).len(), 2);
        assert_eq!(labels(ImportOptions::default()).len(), 1);
    }
}
