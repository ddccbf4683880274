//! What images are described by: manifests, and indexes of them.

use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType};
use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap},
};
use serde::Deserialize;
use tokio::time::sleep;

use super::{
    Problem,
    session::{self, Session},
};
use crate::image::{Digest, for_this_host, is_index, is_manifest, platforms};

/// Bytes of a manifest or an index. The store takes no larger ones.
pub(super) const MAX_DOCUMENT: u64 = 16 << 20;

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DIGEST: &str = "docker-content-digest";

/// A manifest or an index as it came.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Gets what a tag or a digest names. What comes for a digest is it.
pub(super) async fn fetch(
    session: &Session,
    reference: &str,
    expected: Option<Digest>,
) -> Result<Fetched, Problem> {
    let url = session.url(&format!("manifests/{reference}")).await?;
    let mut failures = 0;
    loop {
        let response = session.send(Method::GET, &url, |request| request.header(ACCEPT, ACCEPTED)).await?;
        if response.status() != StatusCode::OK {
            return Err(session.refused(response).await);
        }
        match read(session, response, expected).await {
            // The connection broke in the middle.
            Err(problem @ Problem::Unreachable { .. }) => {
                failures += 1;
                match session.retry().after(failures, None) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(problem),
                }
            }
            other => return other,
        }
    }
}

async fn read(session: &Session, response: Response, expected: Option<Digest>) -> Result<Fetched, Problem> {
    let headers = response.headers().clone();
    let bytes = session::document(response, session.host()).await?;
    let actual = Digest::of(&bytes);
    let promised = headers.get(DIGEST).and_then(|value| value.to_str().ok());
    let promised = promised.and_then(|value| Digest::try_new(value).ok());
    if let Some(expected) = expected.or(promised).filter(|expected| *expected != actual) {
        return Err(Problem::Mismatch { expected, actual: actual.to_string() });
    }
    let media_type = media_type(&headers, &bytes)?;
    Ok(Fetched { descriptor: Descriptor::new(media_type, bytes.len() as u64, actual), bytes })
}

/// What a document is: as its header says, else as it says itself, else by what is in it.
fn media_type(headers: &HeaderMap, bytes: &[u8]) -> Result<MediaType, Problem> {
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let header = header.map(|value| value.split(';').next().unwrap_or_default().trim());
    if let Some(known) = header.filter(|value| value.starts_with("application/vnd.")) {
        return Ok(MediaType::from(known));
    }
    let kind: Kind = serde_json::from_slice(bytes)
        .map_err(|error| Problem::Answer { what: "a manifest", source: error.into() })?;
    match kind {
        Kind { media_type: Some(media_type), .. } => Ok(MediaType::from(media_type.as_str())),
        Kind { manifests: Some(_), .. } => Ok(MediaType::ImageIndex),
        Kind { layers: Some(_), .. } => Ok(MediaType::ImageManifest),
        _ => Err(Problem::NotAnImage { what: "a document of an unknown kind".to_owned() }),
    }
}

/// The variant of an index that this host runs.
pub(super) fn choose(index: &Fetched) -> Result<Descriptor, Problem> {
    let parsed: ImageIndex = serde_json::from_slice(&index.bytes)
        .map_err(|error| Problem::Answer { what: "an index", source: error.into() })?;
    match for_this_host(parsed.manifests()).first() {
        Some(entry) => Ok((*entry).clone()),
        None => Err(Problem::NoPlatform {
            platform: format!("linux/{}", Arch::default()),
            present: platforms(parsed.manifests()),
        }),
    }
}

/// What a document is to be followed to; `None` for a manifest.
pub(super) fn next(document: &Fetched) -> Result<Option<Descriptor>, Problem> {
    if is_index(&document.descriptor) { choose(document).map(Some) } else { Ok(None) }
}

/// The manifest of an image.
pub(super) fn manifest(document: &Fetched) -> Result<ImageManifest, Problem> {
    let media_type = document.descriptor.media_type();
    if !is_manifest(&document.descriptor) {
        return Err(Problem::NotAnImage { what: media_type.to_string() });
    }
    let manifest: ImageManifest = serde_json::from_slice(&document.bytes)
        .map_err(|error| Problem::Answer { what: "a manifest", source: error.into() })?;
    // Registries have much else in this form: charts, signatures, policies.
    let config = manifest.config().media_type();
    if *config != MediaType::ImageConfig && config.as_ref() != DOCKER_CONFIG {
        return Err(Problem::NotAnImage { what: config.to_string() });
    }
    Ok(manifest)
}
