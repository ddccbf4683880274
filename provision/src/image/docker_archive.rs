//! The older form of archives, which `docker save` and `podman save` write: `manifest.json` lists configurations and
//! layers by their paths. It has no manifests as registries know them, so they are made here, the same ones for the
//! same archive.

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use serde::Deserialize;

use super::{
    Digest, Layer, Reference,
    bundle::{BundleImage, Config, Document, invalid},
    content::{Content, FoundLayer},
    manifest::to_json,
    parked::Compressed,
};
use crate::{Error, Result};

/// The file that says what the others are.
pub(super) const MANIFEST: &str = "manifest.json";

const MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";
const GZIP_LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker has no type of its own for these.
const ZSTD_LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    names: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

impl Entry {
    /// Its names that are some.
    fn references(&self) -> impl Iterator<Item = Reference> {
        self.names.iter().flatten().filter_map(|name| Reference::try_new(name).ok())
    }
}

/// The images that `manifest.json` lists.
pub(super) fn images(content: &Content, manifest: &[u8]) -> Result<Vec<BundleImage>> {
    let mut images: Vec<BundleImage> = Vec::new();
    for entry in parse(content, manifest)? {
        let new = image(content, &entry)?;
        match images.iter_mut().find(|known| known.manifest == new.manifest) {
            Some(known) => known.names.extend(new.names),
            None => images.push(new),
        }
    }
    Ok(images)
}

/// Gives images that `index.json` has no names for those that `manifest.json` has.
pub(super) fn add_names(content: &Content, images: &mut [BundleImage]) -> Result<()> {
    let Some(manifest) = content.member(MANIFEST)? else { return Ok(()) };
    for entry in parse(content, &manifest)? {
        let config = content.find(&entry.config)?;
        for image in images.iter_mut().filter(|image| image.names.is_empty() && Some(image.id()) == config) {
            image.names.extend(entry.references());
        }
    }
    Ok(())
}

fn parse(content: &Content, manifest: &[u8]) -> Result<Vec<Entry>> {
    serde_json::from_slice(manifest).map_err(|error| content.not_images(error))
}

fn image(content: &Content, entry: &Entry) -> Result<BundleImage> {
    let names: Vec<_> = entry.references().collect();
    let called = names.first().map_or_else(|| entry.config.clone(), Reference::familiar);
    let missing = || content.missing(&called, format!("its configuration {}", entry.config));
    let digest = content.find(&entry.config)?.ok_or_else(missing)?;
    let bytes = content.read(&digest)?.ok_or_else(missing)?;
    let facts = Config::parse(&called, &bytes)?;
    let paths = entry.layers.as_deref().unwrap_or_default();
    if facts.diff_ids().len() != paths.len() {
        let problem = "manifest.json and its configuration have different numbers of layers";
        return Err(invalid(&called, problem));
    }
    let layers = paths.iter().zip(facts.diff_ids());
    let layers =
        layers.map(|(path, diff_id)| layer(content, &called, path, diff_id)).collect::<Result<Vec<_>>>()?;
    let config = Document { digest, media_type: CONFIG_TYPE.to_owned(), bytes };
    let manifest = manifest(&called, &config, &layers)?;
    Ok(BundleImage { names, indexes: Vec::new(), manifest, config, layers, foreign: facts.foreign() })
}

fn layer(content: &Content, image: &str, path: &str, diff_id: &str) -> Result<Layer> {
    let missing = || content.missing(image, format!("its layer {path}"));
    let diff_id = Digest::try_new(diff_id)?;
    let FoundLayer { digest, size, compressed } = content.find_layer(path, &diff_id)?.ok_or_else(missing)?;
    let media_type = match compressed {
        Compressed::Gzip => GZIP_LAYER_TYPE,
        Compressed::Zstd => ZSTD_LAYER_TYPE,
        // Whatever it is, its digest tells below whether it is the archive that it should be.
        Compressed::No | Compressed::Otherwise(_) => LAYER_TYPE,
    };
    // Compressed layers are compared when they are unpacked.
    if media_type == LAYER_TYPE && digest != diff_id {
        let what = format!("{path} of {}", content.origin);
        return Err(Error::DigestMismatch { what, expected: diff_id, actual: digest });
    }
    Ok(Layer { digest, diff_id, media_type: media_type.to_owned(), size })
}

fn manifest(image: &str, config: &Document, layers: &[Layer]) -> Result<Document> {
    let describe =
        |media_type: &str, size, digest| Descriptor::new(MediaType::from(media_type), size, digest);
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::from(MANIFEST_TYPE))
        .config(describe(CONFIG_TYPE, config.bytes.len() as u64, config.digest))
        .layers(
            layers
                .iter()
                .map(|layer| describe(&layer.media_type, layer.size, layer.digest))
                .collect::<Vec<_>>(),
        )
        .build()
        .map_err(|error| invalid(image, error))?;
    let bytes = to_json(&image, &manifest)?;
    Ok(Document { digest: Digest::of(&bytes), media_type: MANIFEST_TYPE.to_owned(), bytes })
}
