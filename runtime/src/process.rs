//! Processes that are remembered across runs of the program, and told from others that got their number.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A container's init and its monitor.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Init's process id, in the pid namespace of whoever launched it.
    pub pid: i32,
    /// When it started, in clock ticks since boot: process ids are reused, pairs of both are not.
    pub start_time: u64,
    /// The monitor's process id.
    pub monitor: i32,
    /// When the monitor started.
    pub monitor_start_time: u64,
    /// The boot the numbers belong to (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

impl Process {
    /// Whether init runs. A zombie does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot) && is_running(self.pid, self.start_time)
    }

    /// The container's root directory as seen from outside. Its content belongs to the container: a path below it
    /// may lead anywhere through links.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// A file descriptor that becomes readable when init ends, and never refers to another process.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when init has ended.
    pub fn open_pidfd(&self) -> Result<OwnedFd> {
        let gone = || Error::NotRunning { pid: self.pid };
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
        // Only after it is open does the check hold for what was opened.
        if self.is_alive() { Ok(pidfd) } else { Err(gone()) }
    }

    /// Sends a signal to init.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when init has ended, [`Error::System`] when the signal is refused.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pidfd = self.open_pidfd()?;
        // The C library reserves some real-time signals, so rustix only names the others; systemd's own (37 and up)
        // are among those that are free to use.
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| Error::system("name the signal")(std::io::Error::from_raw_os_error(22)))?;
        pidfd_send_signal(pidfd, signal).map_err(Error::system("signal the container's init"))
    }

    /// Waits until init has ended. Returns whether it did within `timeout`.
    ///
    /// # Errors
    /// [`Error::System`] when waiting fails.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        match self.open_pidfd() {
            Ok(pidfd) => wait_readable(&pidfd, timeout),
            Err(Error::NotRunning { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Waits until a pidfd says that its process has ended.
pub(crate) fn wait_readable(fd: impl AsFd, timeout: Duration) -> Result<bool> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Error::system("wait for a process")(error)),
        }
    }
}

/// Identifies this boot of the kernel.
pub(crate) fn boot_id() -> Result<String> {
    let text =
        fs_err::read_to_string("/proc/sys/kernel/random/boot_id").map_err(Error::file("read the boot id"))?;
    Ok(text.trim().to_owned())
}

/// Start time of a process in clock ticks since boot; `None` when there is none or it is a zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    match read_stat(pid)? {
        ('Z' | 'X', _) => None,
        (_, started) => Some(started),
    }
}

/// State and start time of a process, of a zombie too.
pub(crate) fn read_stat(pid: i32) -> Option<(char, u64)> {
    let stat = fs_err::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // proc_pid_stat(5): the second field is the command in parentheses, which may hold anything.
    let rest = &stat[stat.rfind(')')? + 2..];
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    // `state` is field 3, the start time field 22.
    Some((state, fields.nth(22 - 4)?.parse().ok()?))
}

/// Whether the process with this number is still the one that started then.
pub(crate) fn is_running(pid: i32, started: u64) -> bool {
    pid > 0 && start_time(pid) == Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_start_time_is_stable() {
        let own = i32::try_from(std::process::id()).unwrap();
        let first = start_time(own).unwrap();
        assert_eq!(start_time(own), Some(first));
        assert!(is_running(own, first));
        assert!(!is_running(own, first + 1), "another process with this number");
        assert!(!is_running(-1, first));
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        assert!(wait_readable(&pidfd, Duration::from_secs(10)).unwrap());
        assert_eq!(start_time(pid), None);
        child.wait().unwrap();
    }
}
