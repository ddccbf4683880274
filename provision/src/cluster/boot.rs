//! Waiting for a node's systemd to have booted, without asking it again and again.
//!
//! systemd tells its supervisor that it has reached its default target, when it was started with `NOTIFY_SOCKET`
//! (sd_notify(3)). A node gets a socket of the host's, mounted at [`INSIDE`]. Two things depend on waiting: containerd is
//! up, and on cgroup v2 systemd has moved out of the node's root cgroup, so that nothing else may be started there any
//! more.

use std::{path::PathBuf, time::Duration};

use kiln_runtime::Process;
use tokio::{io::unix::AsyncFd, net::UnixDatagram};

use crate::{Error, Result, trace};

/// Where the socket is inside a node. `/run` is the node's own file system in memory.
pub(super) const INSIDE: &str = "/run/host/notify";

/// A node boots in half a second; a machine that swaps may need a hundred times that.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The host's end of the socket that a node's systemd reports to.
#[derive(Debug)]
pub(super) struct BootNotice {
    socket: UnixDatagram,
    path: PathBuf,
}

impl BootNotice {
    /// Makes the socket, before the node is launched. `directory` exists.
    pub(super) fn open(directory: &std::path::Path) -> Result<Self> {
        let path = directory.join("notify.sock");
        // A socket's address holds 108 bytes and the directory's name is the user's: go through a descriptor.
        let directory =
            fs_err::File::open(directory).map_err(Error::file("open the node's run-time directory"))?;
        let short = format!("/proc/self/fd/{}/notify.sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
        let socket = UnixDatagram::bind(short).map_err(Error::file("make the node's notification socket"))?;
        Ok(Self { socket, path })
    }

    /// Where the socket is on the host.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Returns when systemd has booted.
    ///
    /// # Errors
    /// [`Error::NodeEnded`] when the node's init ends first, [`Error::NodeBoot`] when neither happens in a minute.
    pub(super) async fn booted(&self, node: &str, process: &Process) -> Result<()> {
        let ended = || Error::NodeEnded { node: node.to_owned() };
        let pidfd = process.open_pidfd().map_err(|_| ended())?;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; a pidfd that is owned stays the same descriptor"
        )]
        let pidfd = AsyncFd::new(pidfd).map_err(Error::file("watch the node's init"))?;
        let ready = async {
            let mut message = [0_u8; 4096];
            loop {
                let length = self
                    .socket
                    .recv(&mut message)
                    .await
                    .map_err(Error::file("read the node's notification"))?;
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == "READY=1") {
                    trace::mark(node, "systemd booted");
                    return Ok(());
                }
            }
        };
        tokio::select! {
            ready = ready => ready,
            _ = pidfd.readable() => Err(ended()),
            () = tokio::time::sleep(TIMEOUT) => {
                Err(Error::NodeBoot { node: node.to_owned(), seconds: TIMEOUT.as_secs() })
            }
        }
    }
}
