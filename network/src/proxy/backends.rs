//! Where connections go, and in which order.

use std::{
    fmt,
    future::{Future, pending},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

/// What is known of a backend. The order is that in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// It serves.
    Up,
    /// It answers, but asks to be left alone. Connections that exist go on.
    Draining,
    /// It has not been asked yet.
    Unknown,
    /// It does not answer. Becoming so cuts the connections to it.
    Down,
}

impl fmt::Display for BackendState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
            Self::Down => "down",
        })
    }
}

/// The backends of a proxy with the state of each. Clones share them.
#[derive(Clone, Debug)]
pub struct Backends {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    backends: Vec<Backend>,
    /// Counts connections, so that each starts with another backend.
    turn: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    state: watch::Sender<BackendState>,
}

impl Backends {
    /// Backends that nothing is known of yet; an address that is named twice counts once.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let mut backends: Vec<Backend> = Vec::new();
        for address in addresses {
            if backends.iter().all(|backend| backend.address != address) {
                backends.push(Backend { address, state: watch::Sender::new(BackendState::Unknown) });
            }
        }
        Self { shared: Arc::new(Shared { backends, turn: AtomicUsize::new(0) }) }
    }

    /// Says what is known of a backend now. Returns whether that is news; of an address that is no backend nothing is.
    pub fn set(&self, address: SocketAddr, state: BackendState) -> bool {
        let replace = |old: &mut BackendState| std::mem::replace(old, state) != state;
        self.find(address).is_some_and(|backend| backend.state.send_if_modified(replace))
    }

    /// What is known of a backend; `None` for an address that is none.
    #[must_use]
    pub fn state(&self, address: SocketAddr) -> Option<BackendState> {
        self.find(address).map(|backend| *backend.state.borrow())
    }

    /// The backends in the order in which the next connection tries them: by state, and in turns among equals. Those
    /// that are down come last but they do come: one of them may be up again since it was last asked.
    pub(super) fn next_order(&self) -> Vec<&Backend> {
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<_> =
            self.shared.backends.iter().map(|backend| (*backend.state.borrow(), backend)).collect();
        order.sort_by_key(|(state, _)| *state);
        for equals in order.chunk_by_mut(|(one, _), (other, _)| one == other) {
            equals.rotate_left(turn % equals.len());
        }
        order.into_iter().map(|(_, backend)| backend).collect()
    }

    fn find(&self, address: SocketAddr) -> Option<&Backend> {
        self.shared.backends.iter().find(|backend| backend.address == address)
    }
}

impl Backend {
    /// Completes when the backend goes down, from the call on. One that is down has to come up first.
    pub(super) fn goes_down(&self) -> impl Future<Output = ()> + use<> {
        let mut state = self.state.subscribe();
        async move {
            while state.changed().await.is_ok() {
                if *state.borrow_and_update() == BackendState::Down {
                    return;
                }
            }
            // Nobody can tell any more.
            pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 6443))
    }

    fn order(backends: &Backends) -> Vec<u8> {
        let last = |backend: &&Backend| match backend.address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!("no backend has one"),
        };
        backends.next_order().iter().map(last).collect()
    }

    #[test]
    fn equals_take_turns() {
        let backends = Backends::new([1, 2, 3].map(address));
        for last in [1, 2, 3] {
            backends.set(address(last), BackendState::Up);
        }
        assert_eq!([order(&backends), order(&backends)], [[1, 2, 3], [2, 3, 1]]);
        assert_eq!([order(&backends), order(&backends)], [[3, 1, 2], [1, 2, 3]]);
    }

    #[test]
    fn the_healthy_come_first_and_all_are_tried() {
        let backends = Backends::new([1, 2, 3, 4].map(address));
        backends.set(address(1), BackendState::Down);
        backends.set(address(2), BackendState::Draining);
        backends.set(address(4), BackendState::Up);
        assert_eq!(order(&backends), [4, 2, 3, 1]);
        backends.set(address(4), BackendState::Down);
        let (one, other) = (order(&backends), order(&backends));
        assert_eq!((&one[..2], &other[..2]), (&[2, 3][..], &[2, 3][..]));
        assert_ne!(one[2..], other[2..], "those that are down take turns too");
    }

    #[test]
    fn only_news_is_news() {
        let backends = Backends::new([1, 1].map(address));
        assert_eq!(backends.state(address(1)), Some(BackendState::Unknown));
        assert!(backends.set(address(1), BackendState::Up));
        assert!(!backends.clone().set(address(1), BackendState::Up));
        assert!(!backends.set(address(2), BackendState::Up));
        assert_eq!(backends.state(address(2)), None);
        assert_eq!(order(&backends), [1]);
    }

    #[test]
    fn going_down_is_told_once() {
        let backends = Backends::new([address(1)]);
        let backend = backends.find(address(1)).unwrap();
        let mut early = Box::pin(backend.goes_down());
        assert_eq!(early.as_mut().now_or_never(), None);
        backends.set(address(1), BackendState::Draining);
        assert_eq!(early.as_mut().now_or_never(), None);
        backends.set(address(1), BackendState::Down);
        assert_eq!(early.now_or_never(), Some(()));

        // A connection that was made all the same is not cut for what was known before.
        let mut late = Box::pin(backend.goes_down());
        assert_eq!(late.as_mut().now_or_never(), None);
        backends.set(address(1), BackendState::Up);
        backends.set(address(1), BackendState::Down);
        assert_eq!(late.now_or_never(), Some(()));
    }
}
