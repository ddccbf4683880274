//! Work that blocks a thread, and that somebody may have to wait for.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{sync::RwLock, task::spawn_blocking};

/// Runs blocking steps of one operation. A step goes on when the future that awaits it is dropped, since a thread cannot
/// be stopped: whoever cleans up after the operation must let it end first, or it makes things that were just removed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    running: Arc<RwLock<()>>,
}

impl Steps {
    /// Runs one step on a thread for blocking work.
    pub(crate) async fn run<T: Send + 'static>(&self, step: impl FnOnce() -> T + Send + 'static) -> T {
        let guard = Arc::clone(&self.running).read_owned().await;
        let joined = spawn_blocking(move || {
            let _guard = guard;
            step()
        });
        match joined.await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down; nobody waits for the value any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Returns when no step is running.
    pub(crate) async fn settle(&self) {
        drop(self.running.write().await);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn settling_waits_for_a_step_whose_future_was_dropped() {
        let steps = Steps::default();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let step = steps.run(move || {
            let _ = started.send(());
            released.recv().is_ok()
        });
        tokio::select! {
            _ = step => panic!("it was not released"),
            _ = has_started => {}
        }
        let settled = tokio::time::timeout(Duration::from_millis(50), steps.settle()).await;
        assert!(settled.is_err(), "the step still runs");
        release.send(()).unwrap();
        steps.settle().await;
    }
}
