//! Removing a container, whatever state it is in.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::FlockOperation,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{
    Cgroup, Error, Process, Result,
    cgroup::KILL_TIMEOUT,
    launch::{LOG, PROCESS},
    process,
};

/// How long the monitor may take to write its record once init is gone.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(2);

/// Ends a container and removes every trace of it from the host: processes, cgroups, its run-time directory (and with
/// the last process, its namespaces and mounts).
///
/// Works on a running container, on one that was never fully made because its creator was killed, and on one that
/// is gone already. Every step is tried; what went wrong is returned. `process` may be `None` when the caller never
/// got to know it.
#[must_use]
pub fn remove(process: Option<&Process>, cgroup: &Cgroup, directory: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut attempt = |result: Result<()>| errors.extend(result.err());
    // One for all steps: what cannot be killed in the first will not be in the next.
    let deadline = Instant::now() + KILL_TIMEOUT;

    let recorded = match process {
        Some(process) => Some(process.clone()),
        None => load(directory),
    };
    if let Some(process) = &recorded {
        attempt(kill_init(process, cgroup, deadline));
    }
    attempt(end_launch(cgroup, directory, deadline));
    if let Some(process) = &recorded {
        attempt(end_monitor(process));
    }
    attempt(cgroup.remove());
    let monitors = Cgroup { parent: cgroup.parent.clone(), leaf: crate::cgroup::MONITORS.to_owned() };
    if monitors.pids().is_ok_and(|pids| pids.is_empty()) {
        attempt(monitors.remove());
    }
    attempt(cgroup.remove_empty_parents());
    attempt(remove_directory(directory));
    errors
}

fn load(directory: &Path) -> Option<Process> {
    // No record, or half a one, means that there is nothing to know beyond what the cgroup tells.
    serde_json::from_slice(&fs_err::read(directory.join(PROCESS)).ok()?).ok()
}

fn kill_init(process: &Process, cgroup: &Cgroup, deadline: Instant) -> Result<()> {
    let pidfd = match process.open_pidfd() {
        Ok(pidfd) => pidfd,
        Err(Error::NotRunning { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(Error::system("kill the container's init")(error)),
    }
    // The kernel ends the others of its pid namespace first, but for those that are frozen, which it waits for.
    cgroup.kill(deadline)?;
    if process::wait_readable(&pidfd, deadline.saturating_duration_since(Instant::now()))? {
        Ok(())
    } else {
        Err(Error::Unkillable { cgroup: format!("init {}", process.pid), pids: vec![process.pid] })
    }
}

/// Kills whoever is left: a helper that is still building the container for a caller that was killed, what it has
/// started, and processes that were moved into the container's cgroup from outside.
///
/// The helper joins the cgroup only after a while, so an empty one proves nothing before it has let go of its log.
fn end_launch(cgroup: &Cgroup, directory: &Path, deadline: Instant) -> Result<()> {
    let log = match fs_err::File::open(directory.join(LOG)) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return cgroup.kill(deadline),
        Err(error) => return Err(Error::file("open the launch log")(error)),
    };
    loop {
        cgroup.kill(deadline)?;
        match rustix::fs::flock(&log, FlockOperation::NonBlockingLockExclusive) {
            // Nobody can join any more; somebody may have since the last look.
            Ok(()) => return cgroup.kill(deadline),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                // Not a blocking lock: what is being launched must be killed to get it.
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(Error::system("wait for the launch helper")(error)),
        }
    }
}

fn end_monitor(process: &Process) -> Result<()> {
    if process::boot_id()? != process.boot
        || !process::is_running(process.monitor, process.monitor_start_time)
    {
        return Ok(());
    }
    let Some(pidfd) =
        Pid::from_raw(process.monitor).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return Ok(());
    };
    if !process::wait_readable(&pidfd, MONITOR_TIMEOUT)? {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        process::wait_readable(&pidfd, MONITOR_TIMEOUT)?;
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs_err::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove the container's run-time directory")(error))
        }
        _ => Ok(()),
    }
}
