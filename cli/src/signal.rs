//! SIGINT and SIGTERM while something is being made.
//!
//! The first asks the operation to stop and to clean up after itself. The second says that this is going on. The third
//! ends the program where it stands; what is left is recorded, and `delete cluster` removes it.

use std::future::Future;

use kiln_provision::cluster::Cancel;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    failure::{Context, Failure, INTERRUPTED},
    shell::Shell,
};

/// Passes signals on to `cancel` until the runtime ends. To be called within it.
///
/// # Errors
/// When the handlers cannot be installed.
pub(crate) fn watch(shell: &Shell, cancel: &Cancel) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (shell, cancel) = (shell.clone(), cancel.clone());
    tokio::spawn(async move {
        signals.next().await;
        cancel.trigger();
        shell.status("Interrupted: stopping and cleaning up ...");
        signals.next().await;
        shell.status(
            "Still cleaning up; a third Ctrl-C quits at once and leaves the rest to \"delete cluster\".",
        );
        signals.next().await;
        shell.clear();
        std::process::exit(INTERRUPTED.into());
    });
    Ok(())
}

/// Runs an operation without an end of its own until a signal comes, which is how it is meant to end.
///
/// # Errors
/// Those of the operation.
pub(crate) async fn until_stopped(
    operation: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        result = operation => result,
        () = signals.next() => Ok(()),
    }
}

/// Runs an operation that may be dropped at any point without leaving anything behind, until a signal comes.
///
/// # Errors
/// Those of the operation, or an interruption.
pub(crate) async fn until_interrupted<T>(
    operation: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        result = operation => result,
        () = signals.next() => Err(Failure::new("interrupted").into_interrupted()),
    }
}

#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let install = |kind| signal(kind).context("failed to install a signal handler");
        Ok(Self {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        // Neither stream ends while the runtime lives.
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
