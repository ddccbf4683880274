//! What an image is made of: its manifest and its configuration.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, ImageConfiguration, ImageConfigurationBuilder, ImageIndex,
    ImageManifest, ImageManifestBuilder, MediaType, Os, RootFsBuilder, SCHEMA_VERSION,
};
use serde::Serialize;

use super::{Digest, Reference, Store};
use crate::{Error, Result};

pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Indexes that may lie in each other. Real ones do not nest.
pub(crate) const MAX_DEPTH: u32 = 4;

/// An image in the store, for this host's platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name it was found by.
    pub name: Reference,
    /// The digest of its manifest: what identifies its content.
    pub manifest: Digest,
    /// What kind of manifest it is: OCI's or Docker's.
    pub manifest_type: String,
    /// How it wants to be run.
    pub config: ImageConfiguration,
    /// What it is made of, bottom first.
    pub layers: Vec<Layer>,
    /// Bytes of its manifest, configuration and layers, as stored.
    pub size: u64,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the layer as stored, usually compressed.
    pub digest: Digest,
    /// Of the uncompressed archive: the same however it is compressed, so unpacked layers go by it.
    pub diff_id: Digest,
    /// What kind of archive it is, and how compressed.
    pub media_type: String,
    /// Bytes as stored.
    pub size: u64,
}

/// How an image that is being made wants to be run. What is empty or `None` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Default arguments after the entry point's.
    pub cmd: Vec<String>,
    /// The environment as `NAME=VALUE`.
    pub env: Vec<String>,
    /// Annotations for people and tools.
    pub labels: BTreeMap<String, String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The signal that asks it to stop, such as `SIGRTMIN+3`.
    pub stop_signal: Option<String>,
}

/// Makes an image of this host's platform from layers that are in the store, bottom first, and names it. The same
/// arguments make the same digests: the image has no creation time.
///
/// # Errors
/// The store cannot be written.
pub fn write_image(
    store: &Store,
    name: &Reference,
    layers: Vec<Layer>,
    settings: ImageSettings,
) -> Result<Image> {
    let invalid = |source: oci_spec::OciSpecError| Error::InvalidImage {
        image: name.familiar(),
        source: Box::new(source),
    };
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>())
        .build()
        .map_err(invalid)?;
    let mut run = ConfigBuilder::default().build().map_err(invalid)?;
    let present = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    run.set_entrypoint(present(settings.entrypoint));
    run.set_cmd(present(settings.cmd));
    run.set_env(present(settings.env));
    run.set_labels(
        Some(settings.labels.into_iter().collect::<HashMap<_, _>>()).filter(|labels| !labels.is_empty()),
    );
    run.set_working_dir(settings.workdir);
    run.set_stop_signal(settings.stop_signal);
    let config = ImageConfigurationBuilder::default()
        .architecture(Arch::default())
        .os(Os::Linux)
        .rootfs(rootfs)
        .config(run)
        .build()
        .map_err(invalid)?;

    let (config_digest, config_size) = store.put_blob(&to_json(name, &config)?)?;
    let describe =
        |layer: &Layer| Descriptor::new(MediaType::from(&layer.media_type[..]), layer.size, layer.digest);
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(Descriptor::new(MediaType::ImageConfig, config_size, config_digest))
        .layers(layers.iter().map(describe).collect::<Vec<_>>())
        .build()
        .map_err(invalid)?;
    let (digest, manifest_size) = store.put_blob(&to_json(name, &manifest)?)?;
    store.tag(name, &Descriptor::new(MediaType::ImageManifest, manifest_size, digest))?;
    let size = manifest_size + config_size + layers.iter().map(|layer| layer.size).sum::<u64>();
    let manifest_type = MediaType::ImageManifest.to_string();
    Ok(Image { name: name.clone(), manifest: digest, manifest_type, config, layers, size })
}

/// Reads what `descriptor`, a manifest or an index of them, describes.
pub(super) fn read_image(store: &Store, name: &Reference, descriptor: &Descriptor) -> Result<Image> {
    let descriptor = resolve(store, name, descriptor.clone())?;
    let digest = Digest::try_from(descriptor.digest())?;
    let bytes = store.read_blob(&digest)?;
    let manifest: ImageManifest = from_json(name, &bytes)?;
    let config_bytes = store.read_blob(&Digest::try_from(manifest.config().digest())?)?;
    let config: ImageConfiguration = from_json(name, &config_bytes)?;

    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != manifest.layers().len() {
        return Err(invalid(name, "its manifest and its configuration have different numbers of layers"));
    }
    let layers = manifest.layers().iter().zip(diff_ids).map(|(layer, diff_id)| {
        Ok(Layer {
            digest: Digest::try_from(layer.digest())?,
            diff_id: Digest::try_new(diff_id)?,
            media_type: layer.media_type().to_string(),
            size: layer.size(),
        })
    });
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let documents = (bytes.len() + config_bytes.len()) as u64;
    // Sizes are claims of the manifest: absurd ones must not overflow.
    let size = layers.iter().fold(documents, |sum, layer| sum.saturating_add(layer.size));
    let manifest_type = descriptor.media_type().to_string();
    Ok(Image { name: name.clone(), manifest: digest, manifest_type, config, layers, size })
}

/// Follows indexes to the manifest for this host.
fn resolve(store: &Store, name: &Reference, mut descriptor: Descriptor) -> Result<Descriptor> {
    for _ in 0..MAX_DEPTH {
        if !is_index(&descriptor) {
            return Ok(descriptor);
        }
        let index: ImageIndex = from_json(name, &store.read_blob(&Digest::try_from(descriptor.digest())?)?)?;
        let fitting = for_this_host(index.manifests());
        let none = || invalid(name, &format!("it has no variant for linux/{}", Arch::default()));
        descriptor = (*fitting.first().ok_or_else(none)?).clone();
    }
    Err(invalid(name, "its indexes are nested too deeply"))
}

pub(crate) fn is_index(entry: &Descriptor) -> bool {
    *entry.media_type() == MediaType::ImageIndex || entry.media_type().as_ref() == DOCKER_MANIFEST_LIST
}

pub(crate) fn is_manifest(entry: &Descriptor) -> bool {
    *entry.media_type() == MediaType::ImageManifest || entry.media_type().as_ref() == DOCKER_MANIFEST
}

/// The entries of an index that this host runs: those that say so before those that say nothing, which are for any.
pub(crate) fn for_this_host(entries: &[Descriptor]) -> Vec<&Descriptor> {
    let mut fitting: Vec<_> =
        entries.iter().filter(|entry| (is_index(entry) || is_manifest(entry)) && fits(entry)).collect();
    fitting.sort_by_key(|entry| entry.platform().is_none());
    fitting
}

/// Whether an entry is for this host. One without a platform is for any.
pub(super) fn fits(entry: &Descriptor) -> bool {
    entry
        .platform()
        .as_ref()
        .is_none_or(|platform| *platform.os() == Os::Linux && *platform.architecture() == Arch::default())
}

/// The platforms of an index's entries, for people. Signatures and the like are for none.
pub(crate) fn platforms(entries: &[Descriptor]) -> Vec<String> {
    let platforms = entries.iter().filter_map(|entry| entry.platform().as_ref());
    let known = platforms.filter(|platform| *platform.os() != Os::Other("unknown".to_owned()));
    known.map(|platform| format!("{}/{}", platform.os(), platform.architecture())).collect()
}

/// JSON that is the same for the same value: maps of labels and annotations have no order of their own.
pub(super) fn to_json(name: &impl ToString, value: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |source| Error::InvalidImage { image: name.to_string(), source: Box::new(source) };
    let mut value = serde_json::to_value(value).map_err(failed)?;
    value.sort_all_objects();
    serde_json::to_vec(&value).map_err(failed)
}

fn from_json<T: serde::de::DeserializeOwned>(name: &Reference, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|source| Error::InvalidImage { image: name.familiar(), source: Box::new(source) })
}

fn invalid(name: &Reference, problem: &str) -> Error {
    Error::InvalidImage { image: name.familiar(), source: problem.into() }
}
