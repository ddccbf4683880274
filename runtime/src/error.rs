//! What can go wrong with a container, one variant per step.

use std::{io, path::PathBuf};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Messages are lower case and leave the cause to `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed; `source` names the path.
    #[error("failed to {what}")]
    File {
        /// What was attempted, as it follows "failed to".
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("failed to {what}")]
    System {
        /// What was attempted, as it follows "failed to".
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A mount that is shared with the host could not be taken from there, or put in its place.
    #[error("failed to share the mount at {} with the container", path.display())]
    Mount {
        /// The source on the host, or the destination in the container.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The helper process could not be started.
    #[error("failed to start the helper {}", program.display())]
    SpawnHelper {
        /// The program that was to run.
        program: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Helper and caller did not understand each other, or the helper died.
    #[error("the launch helper of {id} ended without an answer{}", details(log))]
    HelperSilent {
        /// The container.
        id: String,
        /// The last lines the helper logged.
        log: String,
    },
    /// The container could not be made.
    #[error("failed to launch {id}: {message}{}", details(log))]
    Launch {
        /// The container.
        id: String,
        /// What the helper says went wrong.
        message: String,
        /// The last error lines logged while it was tried. `libcontainer` drops most causes from its errors and
        /// only logs them, in the forked child.
        log: String,
    },
    /// The specification cannot be expressed as an OCI runtime configuration.
    #[error("the specification of {id} is not valid")]
    Specification {
        /// The container.
        id: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The container's init is gone.
    #[error("process {pid} of the container is not running")]
    NotRunning {
        /// The process id init had.
        pid: i32,
    },
    /// No cgroup file system was found.
    #[error("no cgroup hierarchy is mounted on this host")]
    NoCgroups,
    /// A process of the container would not die.
    #[error("{} processes of {cgroup} are still there after SIGKILL", pids.len())]
    Unkillable {
        /// The container's cgroup.
        cgroup: String,
        /// The processes.
        pids: Vec<i32>,
    },
    /// A process of the container would not stop.
    #[error("{cgroup} is not frozen after {seconds} s")]
    Unfreezable {
        /// The container's cgroup.
        cgroup: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The user named for an exec does not exist in the container.
    #[error("no user {user:?} in the container")]
    NoSuchUser {
        /// As it was asked for.
        user: String,
    },
}

impl Error {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoCgroups => Some("mount cgroup2 at /sys/fs/cgroup".to_owned()),
            Self::Launch { log, message, .. } => {
                if log.contains("EPERM") || message.contains("EPERM") {
                    Some(
                        "nodes need real root with CAP_SYS_ADMIN; `kiln doctor` shows what is missing"
                            .to_owned(),
                    )
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    pub(crate) fn file(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, source }
    }

    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}

fn details(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{log}") }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many libraries repeat their source in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
