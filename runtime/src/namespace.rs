//! Entering a running container. Only for helper processes: namespaces belong to the calling thread.

use std::os::fd::AsFd;

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
};
use rustix::process::{WaitOptions, waitpid};

use crate::{Error, Result};

/// Joins all of a container's namespaces but the user's. The root and working directory become the container's; the
/// pid namespace is that of children made from now on.
///
/// # Errors
/// [`Error::System`] when the kernel refuses (it takes a pidfd for this since Linux 5.8).
#[expect(clippy::disallowed_methods, reason = "helpers are processes of one thread")]
pub(crate) fn enter(pidfd: impl AsFd) -> Result<()> {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    setns(pidfd, namespaces).map_err(Error::system("enter the container's namespaces"))
}

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Parent { child: i32 },
    Child,
}

/// Splits this process in two.
///
/// # Errors
/// [`Error::System`] when the kernel has no process to give.
#[expect(unsafe_code, reason = "fork(2) has no safe wrapper")]
#[expect(clippy::disallowed_methods, reason = "helpers are processes of one thread")]
pub(crate) fn fork() -> Result<Side> {
    // SAFETY: callers run in a helper that has never made a second thread, so no lock can be held by a thread that
    // does not exist in the child.
    match unsafe { nix::unistd::fork() } {
        Ok(nix::unistd::ForkResult::Parent { child }) => Ok(Side::Parent { child: child.as_raw() }),
        Ok(nix::unistd::ForkResult::Child) => Ok(Side::Child),
        Err(error) => Err(Error::system("fork")(error)),
    }
}

/// Gives this process the signals that programs expect to start with: none blocked, whatever whoever started the helper had
/// blocked, and an end when they write to nobody, which Rust's runtime has switched off.
///
/// # Errors
/// [`Error::System`] when the kernel refuses.
#[expect(unsafe_code, reason = "signal(2) has no safe wrapper")]
pub(crate) fn default_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(Error::system("unblock signals"))?;
    // SAFETY: the default action is no function of this process, so nothing is run that may not be.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map_err(Error::system("reset a signal")).map(drop)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Killed(i32),
}

/// Reaps a child that has ended or is about to.
///
/// # Errors
/// [`Error::System`] when it is not a child of this process.
pub(crate) fn reap(child: i32) -> Result<Ended> {
    loop {
        match waitpid(rustix::process::Pid::from_raw(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(code) = status.exit_status() {
                    return Ok(Ended::Exited(code));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Ended::Killed(signal));
                }
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::system("wait for a child process")(error)),
        }
    }
}
