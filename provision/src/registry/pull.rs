//! Bringing an image into the store.

use std::{sync::Arc, time::Duration};

use oci_spec::image::{Arch, Os};
use tokio::{sync::Semaphore, task::JoinSet, time::interval};

use super::{
    Problem, RegistryOptions, check_name,
    document::{self, Fetched},
    download::{Blob, blocking, download},
    endpoint::endpoints,
    meter::Meter,
    session::Session,
};
use crate::{
    Error, Paths, Reporter, Result,
    image::{Digest, Image, MAX_DEPTH, Reference, Store},
};

/// Blobs that come at once. A few connections fill a line; more only make every one of them slower.
const MAX_PARALLEL: usize = 4;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(250);

/// An image that is in the store now.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The digest of what the name stands for: its manifest or an index.
    pub digest: Digest,
    /// Bytes that came from a registry.
    pub bytes: u64,
    /// Whether the name stood for the same before, and nothing was missing.
    pub was_there: bool,
}

/// Brings an image into the store, in its variant for this host, and names it. What is there already is not asked for
/// again; what was cut is continued. Dropped or killed in the middle, this leaves the store as it was but for blobs, and
/// halves of blobs, that the next pull uses.
///
/// # Errors
/// [`Error::Pull`], or what the store says.
pub async fn pull(
    paths: &Paths,
    name: &Reference,
    options: &RegistryOptions,
    reporter: &dyn Reporter,
) -> Result<Pulled> {
    check_name(name)?;
    let store = {
        let images = paths.images();
        blocking(move || Store::open(&images)).await?
    };
    let _promise = {
        let store = store.clone();
        blocking(move || store.share()).await?
    };
    let certs = paths.certs();
    let pulled = async {
        let servers = endpoints(name.domain(), options, &certs)?;
        let sessions = servers.into_iter().map(|server| Session::new(server, name.path(), "pull", options));
        let sessions = sessions.map(|session| session.map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        transfer(&store, name, &sessions, reporter).await
    };
    pulled.await.map_err(|problem| match problem {
        Problem::Store(error) => match *error {
            // The disk is full of images: which one was it?
            Error::NoSpace { what, path, source } => {
                Error::NoSpace { what: format!("{what} of image {}", name.familiar()), path, source }
            }
            error => error,
        },
        problem => Error::Pull {
            image: name.familiar(),
            registry: name.domain().to_owned(),
            source: Box::new(problem),
        },
    })
}

async fn transfer(
    store: &Store,
    name: &Reference,
    sessions: &[Arc<Session>],
    reporter: &dyn Reporter,
) -> Result<Pulled, Problem> {
    reporter.step(&format!("asking {}", name.domain()));
    // The digest wins over the tag, as it does in every other tool.
    let pinned = name.digest();
    let reference =
        pinned.map_or_else(|| name.tag().unwrap_or_default().to_owned(), |digest| digest.to_string());
    let able: Vec<_> =
        sessions.iter().filter(|session| pinned.is_some() || session.endpoint.resolves).cloned().collect();
    let (top, from) = first(&able, &reference, pinned, reporter).await?;
    // Who had the name is asked for the rest; then those who follow it.
    let from = &able[from..];
    let mut documents = vec![top];
    while let Some(descriptor) = document::next(&documents[documents.len() - 1])? {
        if documents.len() > MAX_DEPTH as usize {
            let source = "its indexes are nested too deeply".into();
            return Err(Problem::Answer { what: "an index", source });
        }
        let digest = Digest::try_from(descriptor.digest())?;
        documents.push(match store.has_blob(&digest) {
            true => {
                let (store, digest) = (store.clone(), digest);
                let bytes = blocking(move || store.read_blob(&digest)).await?;
                Fetched { descriptor, bytes }
            }
            false => {
                let (mut fetched, _) = first(from, &digest.to_string(), Some(digest), reporter).await?;
                // With the media type that the index promises, which the digest covers.
                fetched.descriptor = descriptor;
                fetched
            }
        });
    }
    let manifest = document::manifest(&documents[documents.len() - 1])?;
    let mut blobs: Vec<Blob> = Vec::new();
    for descriptor in [manifest.config()].into_iter().chain(manifest.layers()) {
        let blob = Blob { digest: Digest::try_from(descriptor.digest())?, size: descriptor.size() };
        if !store.has_blob(&blob.digest) && !blobs.contains(&blob) {
            blobs.push(blob);
        }
    }
    let digest = Digest::try_from(documents[0].descriptor.digest())?;
    let before = names(store, name)?;
    let was_there = blobs.is_empty() && before == Some(digest);
    let total = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let meter = Meter::new(total);
    all(store, from, blobs, &meter, reporter).await?;

    let (store, name) = (store.clone(), name.clone());
    let image = blocking(move || -> Result<Image> {
        for document in &documents {
            store.put_blob(&document.bytes)?;
        }
        // It must be usable before it has the name.
        let image = store.read_image(&name, &documents[0].descriptor)?;
        store.tag(&name, &documents[0].descriptor)?;
        Ok(image)
    })
    .await?;
    let (os, architecture) = (image.config.os(), image.config.architecture());
    if (os, architecture) != (&Os::Linux, &Arch::default()) {
        let text = format!(
            "Image {:?} is for {os}/{architecture}: it only runs where that is emulated",
            image.name.familiar()
        );
        reporter.message(0, &text);
    }
    Ok(Pulled { image, digest, bytes: meter.total_moved(), was_there })
}

/// What a name stands for so far.
fn names(store: &Store, name: &Reference) -> Result<Option<Digest>, Problem> {
    let descriptor = store.descriptor(name)?;
    Ok(descriptor.map(|descriptor| Digest::try_from(descriptor.digest())).transpose()?)
}

/// A document from the first server that has it, and which one that is.
async fn first(
    sessions: &[Arc<Session>],
    reference: &str,
    expected: Option<Digest>,
    reporter: &dyn Reporter,
) -> Result<(Fetched, usize), Problem> {
    let mut last = Problem::NotFound { message: String::new() };
    for (number, session) in sessions.iter().enumerate() {
        match document::fetch(session, reference, expected).await {
            Ok(fetched) => return Ok((fetched, number)),
            Err(problem) => {
                if session.endpoint.mirrored.is_some() {
                    reporter.message(1, &format!("mirror {}: {problem}", session.host()));
                }
                last = problem;
            }
        }
    }
    Err(last)
}

/// Brings blobs into the store, several at once.
async fn all(
    store: &Store,
    sessions: &[Arc<Session>],
    blobs: Vec<Blob>,
    meter: &Meter,
    reporter: &dyn Reporter,
) -> Result<(), Problem> {
    let permits = Arc::new(Semaphore::new(MAX_PARALLEL));
    // Dropped with this future, they end.
    let mut tasks = JoinSet::new();
    let digests: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    for blob in blobs {
        let (sessions, store, meter) = (sessions.to_vec(), store.clone(), meter.clone());
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            download(&sessions, blob, &store, &meter).await
        });
    }
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(problem))) => {
                    if is_full(&problem) {
                        // Nor are the other halves of any use, but their space is.
                        tasks.shutdown().await;
                        digests.iter().for_each(|digest| store.discard_partial(digest));
                    }
                    return Err(problem);
                }
                Some(Err(error)) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
            },
            // The clock is what is shown here: a chunk may come thousands of times in a second.
            _ = tick.tick() => reporter.step(&meter.text()),
        }
    }
}

/// Whether the disk is full.
fn is_full(problem: &Problem) -> bool {
    matches!(problem, Problem::Store(error) if matches!(**error, Error::NoSpace { .. }))
}
