//! Waiting for containerd to come up, woken by the kernel.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path, time::Duration};

use kiln_runtime::Process;
use rustix::{fs::inotify, io::Errno};
use tokio::{io::unix::AsyncFd, net::UnixStream};

use super::{Containerd, socket};
use crate::{Error, Result};

/// Connects as soon as containerd listens.
pub(super) async fn wait(process: &Process) -> Result<Containerd> {
    let watch = Watch::new().map_err(watching)?;
    let ended = async_fd(process.open_pidfd()?).map_err(watching)?;
    let socket = socket(process);
    let directory = socket.parent().expect("the socket is below the container's root");
    let run = directory.parent().expect("so is its directory");
    loop {
        // Watched first, tried then: what appears in between is not missed. The directory is made by containerd
        // itself, so it may be there only the second time.
        watch.add(run).map_err(watching)?;
        watch.add(directory).map_err(watching)?;
        match UnixStream::connect(&socket).await {
            Ok(_) => return Containerd::connect(process).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // The file is made by bind(2) and answers after listen(2): nothing tells when, and it is
                // microseconds.
                tokio::time::sleep(Duration::from_millis(1)).await;
                if !process.is_alive() {
                    return Err(Error::ContainerdGone { pid: process.pid });
                }
                continue;
            }
            Err(source) => return Err(Error::ContainerdConnect { socket, source: source.into() }),
        }
        tokio::select! {
            changed = watch.changed() => changed.map_err(watching)?,
            _ = ended.readable() => return Err(Error::ContainerdGone { pid: process.pid }),
        }
    }
}

/// Lets the runtime wait for a descriptor.
#[expect(
    deprecated,
    reason = "sound for an owned descriptor; what replaces it can only be called in unsafe code"
)]
fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn watching(source: io::Error) -> Error {
    Error::File { what: "watch for containerd's socket", source }
}

/// An inotify instance that tells that something was made in one of its directories.
struct Watch {
    fd: AsyncFd<OwnedFd>,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        Ok(Self { fd: async_fd(inotify::init(flags)?)? })
    }

    /// Watches a directory too, if it is there. Adding it again changes nothing.
    fn add(&self, directory: &Path) -> io::Result<()> {
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        match inotify::add_watch(self.fd.get_ref(), directory, flags) {
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when something has been made since the last call.
    async fn changed(&self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.readable().await?;
            let drained = guard.try_io(|fd| {
                let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
                let mut reader = inotify::Reader::new(fd.get_ref(), &mut buffer);
                reader.next().map(drop).map_err(io::Error::from)
            });
            match drained {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_wakes_the_waiter_and_a_missing_directory_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.add(&directory.path().join("missing")).unwrap();
        watch.add(directory.path()).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
        assert!(quiet.is_err(), "nothing was made yet");
        fs_err::write(directory.path().join("file"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    }
}
