//! What a monitor does while its container runs: keep the console, and notice the end.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    process::{Pid, PidfdFlags, pidfd_open},
    pty::OpenptFlags,
};
use serde::{Deserialize, Serialize};

use crate::{
    Cgroup, Error, ExitRecord, Result,
    console::ConsoleLog,
    memory,
    namespace::{Ended, reap},
};

/// A console that has been silent for so long (in milliseconds) is expected to stay so: the node has booted.
const QUIET: u16 = 5_000;

/// What the watcher is told on its command line. The console's master is its standard input.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Watched {
    pub(crate) pid: i32,
    pub(crate) console: PathBuf,
    pub(crate) exit: PathBuf,
    pub(crate) cgroup: Cgroup,
}

/// Entry point. Watches until init has ended.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let watched = args.next().and_then(|text| serde_json::from_str(&text.to_string_lossy()).ok());
    let Some(watched) = watched else {
        return ExitCode::FAILURE;
    };
    if watch(&watched).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn watch(watched: &Watched) -> Result<()> {
    let master = rustix::io::dup(rustix::stdio::stdin()).map_err(Error::system("duplicate the console"))?;
    // systemd opens its console for each message and closes it again. While nobody has it open, the master reports a
    // hang-up without end; holding the other side open keeps it quiet.
    let _slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)
        .map_err(Error::system("open the console's other side"))?;
    let pid = Pid::from_raw(watched.pid).ok_or(Error::NotRunning { pid: watched.pid })?;
    // It is a child that nobody else reaps: the number cannot have been given to another process.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::system("watch the container's init"))?;
    pump(master, &pidfd, watched)?;

    let ended = reap(watched.pid)?;
    let (code, signal) = match ended {
        Ended::Exited(code) => (Some(code), None),
        Ended::Killed(signal) => (None, Some(signal)),
    };
    let record = ExitRecord {
        code,
        signal,
        oom_kills: watched.cgroup.usage().map(|usage| usage.oom_kills).unwrap_or_default(),
        finished: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
    };
    record.save(&watched.exit)
}

/// Copies the console to its file until init has ended.
fn pump(master: OwnedFd, pidfd: &OwnedFd, watched: &Watched) -> Result<()> {
    // A console that cannot be kept is no reason to leave the node without a parent.
    let mut log = ConsoleLog::open(&watched.console).ok();
    rustix::io::ioctl_fionbio(&master, true).map_err(Error::system("make the console non-blocking"))?;
    let mut master = std::fs::File::from(master);
    let mut buffer = [0_u8; 4096];
    // Whether the memory that was needed since has been given back.
    let mut settled = false;
    loop {
        let mut fds =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(master.as_fd(), PollFlags::POLLIN)];
        let timeout = if settled { PollTimeout::NONE } else { PollTimeout::from(QUIET) };
        match poll(&mut fds, timeout) {
            Ok(0) => {
                memory::forget_code();
                settled = true;
                continue;
            }
            Ok(_) => settled = false,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Error::system("wait for the container")(error)),
        }
        let ended = fds[0].any().unwrap_or(false);
        loop {
            match master.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    if log.as_mut().is_some_and(|log| log.write(&buffer[..length]).is_err()) {
                        log = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if ended {
            return Ok(());
        }
    }
}
