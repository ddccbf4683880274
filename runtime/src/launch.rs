//! Starting a container, as seen by the caller.

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{ContainerSpec, Error, Process, Result, exit::write_atomically, helper};

/// What the caller asks of the monitor.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    pub(crate) spec: ContainerSpec,
    /// Where the network namespace can be opened.
    pub(crate) netns: String,
}

/// What the monitor answers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Answer {
    Launched(Process),
    Failed(String),
}

/// Where the helper's log messages and panics go, in the container's run-time directory. It is locked (flock(2)) for as
/// long as somebody is launching: the lock belongs to the open file, which the helper has as its standard error until
/// it becomes the watcher, and so outlives a caller that is killed.
pub(crate) const LOG: &str = "launch.log";

/// The record of a running container in its run-time directory.
pub(crate) const PROCESS: &str = "process.json";

/// Starts a container in the given network namespace, and returns once its init has been executed.
///
/// The container outlives the caller. Blocks for about 20 ms. When this fails, or the caller is killed meanwhile,
/// [`remove`](crate::remove) clears what there is.
///
/// # Errors
/// [`Error::Launch`] with the runtime's own words, [`Error::SpawnHelper`], [`Error::NoCgroups`], [`Error::File`].
pub fn launch(spec: &ContainerSpec, netns: BorrowedFd<'_>) -> Result<Process> {
    fs_err::create_dir_all(&spec.directory)
        .map_err(Error::file("make the container's run-time directory"))?;
    spec.cgroup.prepare()?;
    let log = fs_err::File::create(spec.directory.join(LOG)).map_err(Error::file("make the launch log"))?;
    rustix::fs::flock(&log, FlockOperation::NonBlockingLockExclusive)
        .map_err(Error::system("lock the launch log"))?;

    let (mut ours, theirs) = UnixStream::pair().map_err(Error::system("make a socket pair"))?;
    let program = helper::program();
    let mut child = Command::new(&program)
        .arg(helper::MONITOR)
        // Nothing of the caller's environment concerns the container; LISTEN_FDS would even change its descriptors.
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(log.into_parts().0)
        .spawn()
        .map_err(|source| Error::SpawnHelper { program, source })?;

    let netns = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
    let answer = converse(&mut ours, &Request { spec: spec.clone(), netns });
    match answer {
        Ok(Some(Answer::Launched(process))) => {
            let record =
                serde_json::to_vec(&process).map_err(|e| Error::file("encode a process")(e.into()))?;
            write_atomically(&spec.directory.join(PROCESS), &record)?;
            Ok(process)
        }
        Ok(Some(Answer::Failed(message))) => {
            // It has said its last word and exits; reap it, or it stays a zombie as long as the caller lives.
            let _ = child.wait();
            Err(Error::Launch { id: spec.id.clone(), message, log: last_errors(&spec.directory) })
        }
        Ok(None) | Err(_) => {
            let _ = child.wait();
            Err(Error::HelperSilent { id: spec.id.clone(), log: last_errors(&spec.directory) })
        }
    }
}

fn converse(socket: &mut UnixStream, request: &Request) -> std::io::Result<Option<Answer>> {
    serde_json::to_writer(&mut *socket, request)?;
    socket.flush()?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&answer)?)) }
}

/// The last lines of the helper's log: enough for the cause, not a whole trace.
fn last_errors(directory: &Path) -> String {
    let text = fs_err::read_to_string(directory.join(LOG)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
