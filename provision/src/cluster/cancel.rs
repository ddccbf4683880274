//! Telling a running operation to stop.

use std::sync::Arc;

use tokio::sync::watch;

/// A request to stop, shared between whoever may make it and the operation that heeds it.
#[derive(Clone, Debug)]
pub struct Cancel {
    triggered: Arc<watch::Sender<bool>>,
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel {
    /// A request that has not been made.
    #[must_use]
    pub fn new() -> Self {
        Self { triggered: Arc::new(watch::Sender::new(false)) }
    }

    /// Makes the request. The operation removes what it has made before it returns.
    pub fn trigger(&self) {
        self.triggered.send_replace(true);
    }

    /// Whether the request has been made.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.triggered.borrow()
    }

    /// Returns when the request has been made.
    pub async fn triggered(&self) {
        // The sender lives in `self`, so this cannot fail for want of one.
        let _ = self.triggered.subscribe().wait_for(|triggered| *triggered).await;
    }
}
