//! Network namespaces, and the sockets in them.
//!
//! Namespaces belong to threads. A thread that left its namespace must never be used for anything else, so every
//! change of namespace happens on a thread of its own that ends with its task. What such a thread opens stays in
//! the namespace after the thread is gone: a socket keeps the namespace it was made in.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    thread,
};

use nix::sched::CloneFlags;
use rtnetlink::{Handle, packet_route::RouteNetlinkMessage};
use tokio::sync::oneshot;

use crate::{Error, Result};

type Connection = rtnetlink::proto::Connection<RouteNetlinkMessage>;

/// Makes a network namespace without a name. It lives as long as the descriptor, or a process or mount in it.
///
/// Blocks for the better part of a millisecond.
pub fn new_netns() -> Result<OwnedFd> {
    let thread = thread::Builder::new().name("kiln-netns".to_owned()).spawn(|| {
        unshare().map_err(Error::CreateNetns)?;
        // Not /proc/self: that is the main thread, which is still in the old namespace.
        let file = fs_err::File::open("/proc/thread-self/ns/net").map_err(Error::CreateNetns)?;
        Ok(OwnedFd::from(file))
    });
    thread
        .map_err(Error::Thread)?
        .join()
        .map_err(|_| Error::Thread(io::Error::other("the thread panicked")))?
}

/// Puts the calling thread into a namespace for good: for a process of one thread that has nothing to do elsewhere.
///
/// # Errors
///
/// [`Error::EnterNetns`].
pub fn enter_netns(netns: &OwnedFd) -> Result<()> {
    enter(netns).map_err(Error::EnterNetns)
}

/// Runs `work` on a throw-away thread in `netns`, or in the caller's own namespace without one.
pub(crate) async fn on_thread<T, W>(netns: Option<BorrowedFd<'_>>, work: W) -> Result<T>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T> + Send + 'static,
{
    let netns = netns.map(|fd| fd.try_clone_to_owned()).transpose().map_err(Error::EnterNetns)?;
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("kiln-netns".to_owned())
        .spawn(move || {
            let entered = netns.map_or(Ok(()), |fd| enter(&fd).map_err(Error::EnterNetns));
            // Nobody is left to tell when the caller's future was dropped.
            let _ = sender.send(entered.and_then(|()| work()));
        })
        .map_err(Error::Thread)?;
    receiver.await.map_err(|_| Error::Thread(io::Error::other("the thread panicked")))?
}

/// A route netlink handle in `netns`, or in the caller's own namespace without one.
pub(crate) async fn route_handle(netns: Option<BorrowedFd<'_>>) -> Result<Handle> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle) = match netns {
        None => open_route()?,
        Some(_) => {
            let open = move || {
                // The socket registers itself with the runtime's reactor when it is made.
                let _guard = runtime.enter();
                open_route()
            };
            on_thread(netns, open).await?
        }
    };
    // Ends by itself when the last handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

fn open_route() -> Result<(Connection, Handle)> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|source| Error::OpenSocket { protocol: "route", source })?;
    Ok((connection, handle))
}

#[expect(clippy::disallowed_methods, reason = "only called on throw-away threads")]
fn unshare() -> io::Result<()> {
    Ok(nix::sched::unshare(CloneFlags::CLONE_NEWNET)?)
}

#[expect(clippy::disallowed_methods, reason = "on throw-away threads, or where it is asked for")]
fn enter(netns: &OwnedFd) -> io::Result<()> {
    Ok(nix::sched::setns(netns, CloneFlags::CLONE_NEWNET)?)
}
