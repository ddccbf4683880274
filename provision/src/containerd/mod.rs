//! A client of the containerd inside a node.
//!
//! Its socket is reached through `/proc/PID/root`, so nothing is executed and no mount namespace is entered. Images
//! go in through the content, images, snapshots and diff services, which every containerd has; the newer Transfer
//! service leaves images that Kubernetes does not see in containerd 1.7 (containerd #12820).

mod blob;
mod host;
mod import;
mod link;
mod list;
mod pending;
mod presence;
mod ready;
mod supply;
mod unpack;
pub(crate) mod workshop;

use std::{fmt, path::PathBuf, time::Duration};

use containerd_client::{
    Client,
    tonic::{Request, Status},
};
use kiln_runtime::Process;

pub use blob::{Blob, BlobData};
pub(crate) use host::HostContainerd;
pub use import::{ImportImage, ImportLayer, ImportOptions, Imported};
pub use list::NodeImage;
pub(crate) use supply::Supply;

use crate::{Error, Result};

/// Where containerd listens in a node.
const SOCKET: &str = "run/containerd/containerd.sock";

/// The namespace that Kubernetes' images and containers live in.
const NAMESPACE: &str = "k8s.io";

/// The snapshotter that nodes use.
const SNAPSHOTTER: &str = "overlayfs";

/// A connection to the containerd of one node.
pub struct Containerd {
    client: Client,
    /// Where it has content, if links can be put there.
    blobs: Option<link::BlobDirectory>,
}

impl fmt::Debug for Containerd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Containerd").finish_non_exhaustive()
    }
}

impl Containerd {
    /// Connects to the containerd in the container of `process`.
    ///
    /// # Errors
    /// [`Error::ContainerdConnect`] when nobody listens there, [`Error::Runtime`] when the container is gone.
    pub async fn connect(process: &Process) -> Result<Self> {
        // The process id may have been reused: what it leads to is only the container's while this holds.
        let _pidfd = process.open_pidfd()?;
        let socket = socket(process);
        let client = Client::from_path(&socket)
            .await
            .map_err(|source| Error::ContainerdConnect { socket, source: source.into() })?;
        Ok(Self { client, blobs: None })
    }

    /// Waits until containerd answers, and connects. Woken by the kernel when the socket appears or the container
    /// ends.
    ///
    /// # Errors
    /// [`Error::ContainerdTimeout`] when it takes longer than `timeout`, [`Error::ContainerdGone`] when the container
    /// ends before.
    pub async fn wait_ready(process: &Process, timeout: Duration) -> Result<Self> {
        tokio::time::timeout(timeout, ready::wait(process))
            .await
            .map_err(|_| Error::ContainerdTimeout { pid: process.pid, timeout })?
    }

    /// Its version, as `v2.4.2`.
    ///
    /// # Errors
    /// [`Error::ContainerdCall`] when the call fails.
    pub async fn version(&self) -> Result<String> {
        let answer = self.client.version().version(()).await.map_err(call("ask for", "its version"))?;
        Ok(answer.into_inner().version)
    }
}

pub(crate) fn socket(process: &Process) -> PathBuf {
    process.root().join(SOCKET)
}

/// A request in Kubernetes' namespace.
fn request<T>(message: T) -> Request<T> {
    in_namespace(NAMESPACE, message)
}

/// A request in a namespace. One that cannot be told names none, which containerd refuses.
fn in_namespace<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(namespace) = namespace.parse() {
        request.metadata_mut().insert("containerd-namespace", namespace);
    }
    request
}

/// A request in Kubernetes' namespace that protects what it makes from garbage collection until the lease ends.
fn leased<T>(message: T, lease: &str) -> Request<T> {
    let mut request = request(message);
    // Leases are named by us.
    request.metadata_mut().insert("containerd-lease", lease.parse().expect("an identifier of ASCII letters"));
    request
}

/// Names a failed call by what it was to do, and to what.
fn call(what: &'static str, object: impl Into<String>) -> impl FnOnce(Status) -> Error {
    let object = object.into();
    move |source| Error::ContainerdCall { what, object, source: Box::new(source) }
}
