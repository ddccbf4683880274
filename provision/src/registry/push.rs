//! Sending an image from the store to a registry.

use std::{sync::Arc, time::Duration};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION},
};
use tokio::{io::AsyncReadExt, sync::Semaphore, task::JoinSet, time::interval};

use super::{
    Problem, RegistryOptions,
    download::{Blob, blocking},
    endpoint::endpoints,
    meter::Meter,
    session::Session,
};
use crate::{
    Error, Paths, Reporter, Result,
    image::{Digest, Reference, Store, is_index},
};

const MAX_PARALLEL: usize = 4;
const TICK: Duration = Duration::from_millis(250);
/// Bytes of a blob that are read at a time.
const CHUNK: usize = 256 * 1024;

/// An image that a registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What it is called there.
    pub target: Reference,
    /// The digest of what that name stands for.
    pub digest: Digest,
    /// Bytes of blobs that were sent.
    pub bytes: u64,
}

/// A document to be sent after what it refers to.
struct Document {
    descriptor: Descriptor,
    digest: Digest,
    bytes: Vec<u8>,
}

/// Sends an image to where `target` says. What the registry has is not sent again. Of an index, all variants go if the
/// store has them all; otherwise only the one for this host, under the name.
///
/// # Errors
/// [`Error::NoSuchImage`], [`Error::Push`], or what the store says.
pub async fn push(
    paths: &Paths,
    name: &Reference,
    target: &Reference,
    options: &RegistryOptions,
    reporter: &dyn Reporter,
) -> Result<Pushed> {
    let (images, owned) = (paths.images(), name.clone());
    let (store, promise, documents) = blocking(move || -> Result<_> {
        let store = Store::open(&images)?;
        let promise = store.share()?;
        let documents = documents(&store, &owned)?;
        Ok((store, promise, documents))
    })
    .await?;
    if documents.1 {
        let text = format!(
            "Image {:?} has variants that are not in the store: only the one for this host is pushed",
            name.familiar()
        );
        reporter.message(0, &text);
    }
    let source = (name.domain() == target.domain() && name.path() != target.path()).then(|| name.path());
    let pushed = transfer(&store, documents.0, target, source, options, &paths.certs(), reporter).await;
    drop(promise);
    pushed.map_err(|problem| match problem {
        Problem::Store(error) => *error,
        problem => Error::Push {
            image: target.familiar(),
            registry: target.domain().to_owned(),
            source: Box::new(problem),
        },
    })
}

/// What is to be sent, in this order, and whether some of it is left out.
fn documents(store: &Store, name: &Reference) -> Result<(Vec<Document>, bool)> {
    let missing = || Error::NoSuchImage { image: name.familiar() };
    let top = store.descriptor(name)?.ok_or_else(missing)?;
    let mut whole = Vec::new();
    if collect(store, &top, &mut whole)? {
        return Ok((whole, false));
    }
    let image = store.image(name)?.ok_or_else(missing)?;
    let bytes = store.read_blob(&image.manifest)?;
    let media_type = image.manifest_type.as_str().into();
    let descriptor = Descriptor::new(media_type, bytes.len() as u64, image.manifest);
    Ok((vec![Document { descriptor, digest: image.manifest, bytes }], true))
}

/// Adds a document after those it refers to. Returns whether the store has them all.
fn collect(store: &Store, descriptor: &Descriptor, list: &mut Vec<Document>) -> Result<bool> {
    let digest = Digest::try_from(descriptor.digest())?;
    if list.iter().any(|known| known.digest == digest) {
        return Ok(true);
    }
    if !store.has_blob(&digest) {
        return Ok(false);
    }
    let bytes = store.read_blob(&digest)?;
    let invalid = |error: serde_json::Error| Error::InvalidImage {
        image: format!("manifest {digest}"),
        source: error.into(),
    };
    if is_index(descriptor) {
        let index: ImageIndex = serde_json::from_slice(&bytes).map_err(invalid)?;
        for entry in index.manifests() {
            if !collect(store, entry, list)? {
                return Ok(false);
            }
        }
    } else {
        let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(invalid)?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            if !store.has_blob(&Digest::try_from(blob.digest())?) {
                return Ok(false);
            }
        }
    }
    list.push(Document { descriptor: descriptor.clone(), digest, bytes });
    Ok(true)
}

async fn transfer(
    store: &Store,
    documents: Vec<Document>,
    target: &Reference,
    source: Option<&str>,
    options: &RegistryOptions,
    certs: &std::path::Path,
    reporter: &dyn Reporter,
) -> Result<Pushed, Problem> {
    // Mirrors have what others push.
    let server = endpoints(target.domain(), options, certs)?.pop();
    let server = server.ok_or_else(|| Problem::NotFound { message: String::new() })?;
    let session = Arc::new(Session::new(server, target.path(), "pull,push", options)?);
    let mut blobs: Vec<Blob> = Vec::new();
    for document in documents.iter().filter(|document| !is_index(&document.descriptor)) {
        let manifest: ImageManifest = serde_json::from_slice(&document.bytes)
            .map_err(|error| Problem::Answer { what: "a manifest", source: error.into() })?;
        for descriptor in manifest.layers().iter().chain([manifest.config()]) {
            let blob = Blob { digest: Digest::try_from(descriptor.digest())?, size: descriptor.size() };
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
    }
    let total = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let meter = Meter::new(total);
    let permits = Arc::new(Semaphore::new(MAX_PARALLEL));
    let mut tasks = JoinSet::new();
    for blob in blobs {
        let (session, store, meter) = (Arc::clone(&session), store.clone(), meter.clone());
        let (permits, source) = (Arc::clone(&permits), source.map(str::to_owned));
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            upload(&session, blob, &store, source.as_deref(), &meter).await
        });
    }
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok(result)) => result?,
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
            },
            _ = tick.tick() => reporter.step(&meter.text()),
        }
    }

    let last = documents.len() - 1;
    let digest = documents[last].digest;
    for (number, document) in documents.into_iter().enumerate() {
        let own = document.digest.to_string();
        // Only what the image is called by gets the tag.
        let reference = target.tag().filter(|_| number == last).unwrap_or(&own);
        put_manifest(&session, reference, &document).await?;
    }
    Ok(Pushed { target: target.clone(), digest, bytes: meter.total_moved() })
}

async fn put_manifest(session: &Session, reference: &str, document: &Document) -> Result<(), Problem> {
    let url = session.url(&format!("manifests/{reference}")).await?;
    let media_type = document.descriptor.media_type().to_string();
    let sent = session.send(Method::PUT, &url, |request| {
        request.header(CONTENT_TYPE, &media_type).body(document.bytes.clone())
    });
    let response = sent.await?;
    if !response.status().is_success() {
        return Err(session.refused(response).await);
    }
    let stored = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    match stored {
        Some(stored) if stored != document.digest.to_string() => {
            Err(Problem::Mismatch { expected: document.digest, actual: stored.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Sends a blob that the registry does not have.
async fn upload(
    session: &Session,
    blob: Blob,
    store: &Store,
    source: Option<&str>,
    meter: &Meter,
) -> Result<(), Problem> {
    let url = session.url(&format!("blobs/{}", blob.digest)).await?;
    let response = session.send(Method::HEAD, &url, |request| request).await?;
    match response.status() {
        StatusCode::OK => {
            meter.there(blob.size);
            return Ok(());
        }
        StatusCode::NOT_FOUND => {}
        _ => return Err(session.refused(response).await),
    }
    let mut url = session.url("blobs/uploads/").await?;
    if let Some(source) = source {
        // Another repository of the registry may have it; where not, this begins an upload all the same.
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", source);
    }
    let response = session.send(Method::POST, &url, |request| request.header(CONTENT_LENGTH, 0)).await?;
    match response.status() {
        StatusCode::CREATED => {
            meter.there(blob.size);
            return Ok(());
        }
        StatusCode::ACCEPTED => {}
        _ => return Err(session.refused(response).await),
    }
    let mut place = location(&response)?;
    place.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
    let path = store.blob_path(&blob.digest);
    let response = session
        .send(Method::PUT, &place, |request| {
            // What an earlier try had sent counts for nothing.
            let body = Body::wrap_stream(content(path.clone(), meter.clone()));
            request
                .header(CONTENT_LENGTH, blob.size)
                .header(CONTENT_TYPE, "application/octet-stream")
                .body(body)
        })
        .await?;
    if response.status().is_success() { Ok(()) } else { Err(session.refused(response).await) }
}

/// Where an upload goes on.
fn location(response: &Response) -> Result<Url, Problem> {
    let malformed = |source| Problem::Answer { what: "a place for an upload", source };
    let place = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let place = place.ok_or_else(|| malformed("there is none".into()))?;
    response.url().join(place).map_err(|error| malformed(error.into()))
}

/// A file, piece by piece.
fn content(
    path: std::path::PathBuf,
    meter: Meter,
) -> impl futures_util::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    futures_util::stream::try_unfold(None, move |file: Option<tokio::fs::File>| {
        let (path, meter) = (path.clone(), meter.clone());
        async move {
            let mut file = match file {
                Some(file) => file,
                None => tokio::fs::File::from_std(fs_err::File::open(path)?.into_parts().0),
            };
            let mut chunk = vec![0; CHUNK];
            let count = file.read(&mut chunk).await?;
            chunk.truncate(count);
            meter.moved(count as u64);
            Ok((count > 0).then_some((chunk, Some(file))))
        }
    })
}
