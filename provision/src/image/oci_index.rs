//! The images of an `index.json`, as OCI image layouts, OCI archives and newer ones of `docker save` have it.

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest};

use super::{
    Digest, Layer, Reference,
    bundle::{BundleImage, Config, Document, invalid},
    content::Content,
    index,
    manifest::{MAX_DEPTH, fits, for_this_host, is_index, is_manifest, platforms},
};
use crate::{Error, Result};

/// The images of an `index.json`. Entries of the same image are its names; entries for other platforms are none.
pub(super) fn images(content: &Content, index: &[u8]) -> Result<Vec<BundleImage>> {
    let index: ImageIndex = serde_json::from_slice(index).map_err(|error| content.not_images(error))?;
    let mut described = index.manifests().clone();
    described.retain(|entry| is_index(entry) || is_manifest(entry));
    let usable: Vec<_> = described.iter().filter(|entry| fits(entry)).collect();
    if let (true, Some(first)) = (usable.is_empty(), described.first()) {
        let called = name(first).map_or_else(|| first.digest().to_string(), |name| name.familiar());
        return Err(no_platform(content, &called, &described));
    }
    let mut images: Vec<(Digest, BundleImage)> = Vec::new();
    for entry in usable {
        let digest = Digest::try_from(entry.digest())?;
        let name = name(entry);
        match images.iter_mut().find(|(known, _)| *known == digest) {
            Some((_, image)) => image.names.extend(name.filter(|name| !image.names.contains(name))),
            None => images.push((digest, image(content, entry, name)?)),
        }
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// The complete name in an entry's annotations. The layout's own annotation often has a tag only.
fn name(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations().as_ref()?;
    let complete = |name: &&String| name.contains(['/', ':', '@']);
    let candidates = [annotations.get(index::CONTAINERD_NAME), annotations.get(index::NAME).filter(complete)];
    candidates.into_iter().flatten().find_map(|name| Reference::try_new(name).ok())
}

/// The image that an entry describes.
pub(super) fn image(content: &Content, entry: &Descriptor, name: Option<Reference>) -> Result<BundleImage> {
    let called = name.as_ref().map_or_else(|| entry.digest().to_string(), Reference::familiar);
    let mut indexes = Vec::new();
    let mut descriptor = entry.clone();
    let manifest = loop {
        let document = document(content, &called, &descriptor, "manifest")?;
        if !is_index(&descriptor) {
            break document;
        }
        if indexes.len() as u32 >= MAX_DEPTH {
            return Err(invalid(&called, "its indexes are nested too deeply"));
        }
        descriptor = choose(content, &called, &document)?;
        indexes.push(document);
    };
    let parsed: ImageManifest =
        serde_json::from_slice(&manifest.bytes).map_err(|error| invalid(&called, error))?;
    let config = document(content, &called, parsed.config(), "configuration")?;
    let facts = Config::parse(&called, &config.bytes)?;
    if facts.diff_ids().len() != parsed.layers().len() {
        let problem = "its manifest and its configuration have different numbers of layers";
        return Err(invalid(&called, problem));
    }
    let layers = parsed.layers().iter().zip(facts.diff_ids()).map(|(layer, diff_id)| {
        let digest = Digest::try_from(layer.digest())?;
        let size = content.size(&digest)?;
        let size = size.ok_or_else(|| content.missing(&called, format!("its layer {digest}")))?;
        if size != layer.size() {
            let problem = format!("its layer {digest} has {size} bytes, not {}", layer.size());
            return Err(invalid(&called, problem));
        }
        let media_type = layer.media_type().to_string();
        Ok(Layer { digest, diff_id: Digest::try_new(diff_id)?, media_type, size })
    });
    let layers = layers.collect::<Result<_>>()?;
    let names = name.into_iter().collect();
    Ok(BundleImage { names, indexes, manifest, config, layers, foreign: facts.foreign() })
}

fn document(content: &Content, image: &str, descriptor: &Descriptor, what: &str) -> Result<Document> {
    let digest = Digest::try_from(descriptor.digest())?;
    let bytes = content.read(&digest)?;
    let bytes = bytes.ok_or_else(|| content.missing(image, format!("its {what} {digest}")))?;
    Ok(Document { digest, media_type: descriptor.media_type().to_string(), bytes })
}

/// The entry of an index that this host runs, and one that is there before one that is not.
fn choose(content: &Content, image: &str, index: &Document) -> Result<Descriptor> {
    let index: ImageIndex = serde_json::from_slice(&index.bytes).map_err(|error| invalid(image, error))?;
    let fitting = for_this_host(index.manifests());
    for entry in &fitting {
        if content.size(&Digest::try_from(entry.digest())?)?.is_some() {
            return Ok((*entry).clone());
        }
    }
    match fitting.first() {
        Some(entry) => {
            let what = format!("its manifest {} for linux/{}", entry.digest(), Arch::default());
            Err(content.missing(image, what))
        }
        None => Err(no_platform(content, image, index.manifests())),
    }
}

fn no_platform(content: &Content, image: &str, entries: &[Descriptor]) -> Error {
    Error::NoPlatform {
        origin: content.origin.clone(),
        image: image.to_owned(),
        platform: format!("linux/{}", Arch::default()),
        present: platforms(entries),
    }
}
