//! `images pull` and `push`

use std::future::Future;

use kiln_provision::{
    Error, Outcome, Reporter,
    image::Reference,
    registry::{self, Pulled},
};

use super::{Session, block_on};
use crate::{
    arguments::{ImagesPull, Push},
    failure::Failure,
    progress::Progress,
    signal, table,
};

/// Pulls images, one after the other.
pub(super) fn pull(session: &Session, arguments: &ImagesPull) -> Result<(), Failure> {
    let names = references(&arguments.images)?;
    let options = arguments.connection.options(&arguments.mirrors);
    block_on(async {
        for name in names {
            let progress = Progress::new(&session.shell);
            let title = format!("Pulling {}", name.familiar());
            let pulling = registry::pull(&session.paths, &name, &options, &progress);
            let pulled = shown(&progress, &title, pulling).await?;
            drop(progress);
            session.shell.status(&summary(&pulled));
        }
        Ok(())
    })
}

/// Pushes an image.
pub(super) fn push(session: &Session, arguments: &Push) -> Result<(), Failure> {
    let name = Reference::try_new(&arguments.image)?;
    let target = match arguments.target.as_deref().filter(|target| !target.is_empty()) {
        Some(target) => Reference::try_new(target)?,
        None => name.clone(),
    };
    let options = arguments.connection.options(&[]);
    block_on(async {
        let progress = Progress::new(&session.shell);
        let title = format!("Pushing {}", target.familiar());
        let pushing = registry::push(&session.paths, &name, &target, &options, &progress);
        let pushed = shown(&progress, &title, pushing).await?;
        drop(progress);
        let (target, sent) = (pushed.target.familiar(), table::bytes(pushed.bytes));
        session.shell.status(&format!("Pushed {target} ({}, {sent} sent)", pushed.digest));
        Ok(())
    })
}

/// The names of images.
pub(super) fn references(images: &[String]) -> Result<Vec<Reference>, Failure> {
    Ok(images.iter().map(|image| Reference::try_new(image)).collect::<Result<_, Error>>()?)
}

/// Runs a transfer as a phase, until it ends or is interrupted: what has come by then is of use to the next one.
async fn shown<T>(
    progress: &Progress,
    title: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    progress.phase_started(title);
    let result = signal::until_interrupted(async { Ok(work.await?) }).await;
    progress.phase_ended(title, if result.is_ok() { Outcome::Done } else { Outcome::Failed });
    result
}

fn summary(pulled: &Pulled) -> String {
    let (name, digest) = (pulled.image.name.familiar(), pulled.digest);
    match pulled {
        Pulled { was_there: true, .. } => format!("{name} is up to date ({digest})"),
        Pulled { bytes, .. } => format!("Pulled {name} ({digest}, {} downloaded)", table::bytes(*bytes)),
    }
}
