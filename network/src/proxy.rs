//! The userspace proxy: connections and datagrams relayed by a process, for what the kernel does not do.
//!
//! There are two such things. A load balancer has to choose among backends by their health, and to let go of one that
//! died. And packets to `[::1]` cannot be translated, since they may not leave the host.
//!
//! A backend sees the proxy's address and not its client's.

mod backends;
mod datagrams;
mod listener;
mod relay;
#[cfg(test)]
mod tests;

use std::{future::Future, io, pin::pin, time::Duration};

use nix::errno::Errno;
use tokio::{net::TcpListener, task::JoinSet, time};

pub use backends::{BackendState, Backends};
pub use datagrams::{DatagramLimits, relay_datagrams};
pub use listener::{listen, listen_datagrams};

/// How long nothing is accepted after the system could not do so.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What one listening socket may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, not 0. More of them wait in the kernel's backlog. Each takes two file descriptors and up
    /// to 32 KiB.
    pub connections: usize,
    /// How long connections may go on after the proxy was told to stop.
    pub drain: Duration,
}

/// Relays connections to `backends` until `stop` completes, and then those there are for as long as they may last.
pub async fn serve(
    listener: TcpListener,
    backends: Backends,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut relays = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            // The set's length is the bound, so what has ended leaves it before anything is accepted.
            biased;
            () = &mut stop => break,
            Some(_) = relays.join_next() => {}
            accepted = listener.accept(), if relays.len() < limits.connections => match accepted {
                Ok((client, _)) => drop(relays.spawn(relay::relay(client, backends.clone()))),
                Err(error) => after_failure(&error).await,
            }
        }
    }
    drop(listener);
    let ended = async { while relays.join_next().await.is_some() {} };
    // The rest is cut with the set.
    let _ = time::timeout(limits.drain, ended).await;
}

/// Accepting and receiving go on whatever happens: an error is either about the one connection, or passes.
async fn after_failure(error: &io::Error) {
    // accept(2): too many open files, or no memory. The connection is still in the backlog, so the next call fails at
    // once too, until somebody has closed something; the kernel does not tell when.
    let lasts = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];
    if lasts.iter().any(|errno| error.raw_os_error() == Some(*errno as i32)) {
        time::sleep(ACCEPT_PAUSE).await;
    }
}
