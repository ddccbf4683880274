//! Getting one blob: continued where it was cut, hashed while it comes.

use std::sync::Arc;

use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use tokio::{task::spawn_blocking, time::sleep};

use super::{Problem, http, meter::Meter, session::Session};
use crate::{
    Error,
    image::{Digest, Partial, Store},
};

/// A blob that an image needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// How one answer ended before the blob was complete.
enum Stop {
    /// More may come with the next one.
    Cut(Option<Box<dyn std::error::Error + Send + Sync>>),
    /// It will not.
    Final(Problem),
}

impl<T: Into<Problem>> From<T> for Stop {
    fn from(problem: T) -> Self {
        Self::Final(problem.into())
    }
}

/// Brings a blob into the store from the first of the servers that sends it.
pub(super) async fn download(
    sessions: &[Arc<Session>],
    blob: Blob,
    store: &Store,
    meter: &Meter,
) -> Result<(), Problem> {
    let Some(mut partial) = take(store, blob).await? else {
        meter.there(blob.size);
        return Ok(());
    };
    meter.there(partial.size());
    if partial.size() > blob.size {
        begin_anew(&mut partial, meter)?;
    }
    let mut continued = partial.size() > 0;
    let mut last = None;
    let mut rest = sessions.iter();
    let mut next = rest.next();
    while let Some(session) = next {
        match complete(session, &mut partial, blob, meter).await {
            Ok(()) => {
                let finished = blocking(move || partial.finish()).await;
                match finished {
                    Ok(()) => return Ok(()),
                    Err(Error::DigestMismatch { expected, actual, .. }) => {
                        meter.lost(blob.size);
                        last = Some(Problem::Mismatch { expected, actual: actual.to_string() });
                        // What an earlier process has left may have been wrong: once more, and all of it.
                        if !continued {
                            next = rest.next();
                        }
                        continued = false;
                    }
                    Err(error) => return Err(error.into()),
                }
                match take(store, blob).await? {
                    Some(empty) => partial = empty,
                    None => {
                        meter.there(blob.size);
                        return Ok(());
                    }
                }
            }
            // Nobody else's blobs fit on the disk either. What has come would only take what space there is.
            Err(Problem::Store(error)) => {
                if matches!(*error, Error::NoSpace { .. }) {
                    partial.discard();
                }
                return Err(Problem::Store(error));
            }
            Err(problem) => {
                last = Some(problem);
                next = rest.next();
            }
        }
    }
    if partial.size() == 0 {
        partial.discard();
    }
    Err(last.unwrap_or(Problem::NotFound { message: String::new() }))
}

async fn take(store: &Store, blob: Blob) -> Result<Option<Partial>, Problem> {
    let store = store.clone();
    let waits = move || tracing::debug!(digest = %blob.digest, "another pull has this blob");
    Ok(blocking(move || store.partial_blob(&blob.digest, waits)).await?)
}

/// Gets all that is missing from one server.
async fn complete(
    session: &Session,
    partial: &mut Partial,
    blob: Blob,
    meter: &Meter,
) -> Result<(), Problem> {
    let mut failures = 0;
    while partial.size() < blob.size {
        let before = partial.size();
        let cause = match get(session, partial, blob, meter).await {
            Ok(()) => return Ok(()),
            Err(Stop::Final(problem)) => return Err(problem),
            Err(Stop::Cut(cause)) => cause,
        };
        // Some progress is worth another try, however often.
        failures = if partial.size() > before { 1 } else { failures + 1 };
        match session.retry().after(failures, None) {
            Some(pause) => sleep(pause).await,
            None => {
                return Err(Problem::Cut {
                    host: session.host().to_owned(),
                    digest: blob.digest,
                    done: partial.size(),
                    size: blob.size,
                    source: cause,
                });
            }
        }
    }
    Ok(())
}

/// Reads one answer to its end.
async fn get(session: &Session, partial: &mut Partial, blob: Blob, meter: &Meter) -> Result<(), Stop> {
    let url = session.url(&format!("blobs/{}", blob.digest)).await?;
    let from = partial.size();
    let sent = session.send(Method::GET, &url, |request| match from {
        0 => request,
        from => request.header(RANGE, format!("bytes={from}-")),
    });
    let mut response = sent.await?;
    match response.status() {
        StatusCode::OK => begin_anew(partial, meter)?,
        StatusCode::PARTIAL_CONTENT if from > 0 && begins_at(&response, from) => {}
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
            begin_anew(partial, meter)?;
            return Err(Stop::Cut(Some("it does not continue where the blob was cut".into())));
        }
        _ => return Err(session.refused(response).await.into()),
    }
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) if partial.size() == blob.size => return Ok(()),
            Ok(None) => return Err(Stop::Cut(None)),
            Err(error) => {
                let problem = http::failure(session.host(), error);
                return Err(Stop::Cut(Some(Box::new(problem))));
            }
        };
        if partial.size() + chunk.len() as u64 > blob.size {
            begin_anew(partial, meter)?;
            let actual = format!("more than its {} bytes", blob.size);
            return Err(Problem::Mismatch { expected: blob.digest, actual }.into());
        }
        partial.write(&chunk)?;
        meter.moved(chunk.len() as u64);
    }
}

fn begins_at(response: &Response, from: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range
        .and_then(|range| range.strip_prefix("bytes "))
        .is_some_and(|range| range.starts_with(&format!("{from}-")))
}

fn begin_anew(partial: &mut Partial, meter: &Meter) -> Result<(), Error> {
    meter.lost(partial.size());
    if partial.size() == 0 { Ok(()) } else { partial.restart() }
}

/// Runs what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(step).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down; nobody waits for the value any more.
            Err(_) => std::future::pending().await,
        },
    }
}
