//! A child process in this program's place: it has the terminal, it gets the signals, its exit status counts.

use std::{
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{Command, ExitCode, ExitStatus},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// The signals that end a program, and so are the child's to answer.
const PASSED_ON: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Runs a command and waits for it. Until then signals go to the child only; without threads in this process, that is.
///
/// # Errors
/// When the command cannot be started or waited for.
pub(crate) fn run(command: &mut Command) -> io::Result<ExitCode> {
    Ok(ExitCode::from(code(attended(command)?.0)))
}

/// Runs a command that goes on until it is interrupted, and may call that a success: here it is 128 and the signal's number,
/// as for any interrupted command.
///
/// # Errors
/// As [`run`].
pub(crate) fn follow(command: &mut Command) -> io::Result<ExitCode> {
    let (status, signal) = attended(command)?;
    Ok(ExitCode::from(followed(code(status), signal)))
}

fn followed(code: u8, signal: Option<i32>) -> u8 {
    match signal.and_then(|signal| u8::try_from(128 + signal).ok()) {
        Some(interrupted) if code == 0 => interrupted,
        _ => code,
    }
}

/// The child's status, and the last signal that came before it.
fn attended(command: &mut Command) -> io::Result<(ExitStatus, Option<i32>)> {
    // Blocked before there is a child: none is lost, and none ends this process and leaves the child behind. The child is
    // the exec helper, which blocks them as well and gives the command in the node a clean start.
    let signals: SigSet = PASSED_ON.into_iter().collect();
    signals.thread_block()?;
    let status = attend(command, &signals);
    signals.thread_unblock()?;
    status
}

fn attend(command: &mut Command, signals: &SigSet) -> io::Result<(ExitStatus, Option<i32>)> {
    let mut last = None;
    let signals = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::InvalidData)?, PidfdFlags::empty())?;
    loop {
        let mut fds =
            [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[0].any() == Some(true) {
            return Ok((child.wait()?, last));
        }
        while let Some(signal) = signals.read_signal()? {
            // The terminal sends its signals to the child as well; a second one would count as a second Ctrl-C.
            let from_terminal = signal.ssi_code == libc::SI_KERNEL;
            let number = i32::try_from(signal.ssi_signo).ok();
            last = number.or(last);
            if let Some(signal) =
                number.and_then(rustix::process::Signal::from_named_raw).filter(|_| !from_terminal)
            {
                // It may have ended just now, and then there is nobody to tell.
                let _ = pidfd_send_signal(&pidfd, signal);
            }
        }
    }
}

/// The exit status as shells give it: 128 and the signal's number for a killed child.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> io::Result<ExitCode> {
        run(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn the_exit_status_is_the_child_s() {
        for (script, expected) in [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137)] {
            let code = sh(script).expect("sh runs");
            assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)), "{script}");
        }
        run(&mut Command::new("/nonexistent/command")).expect_err("no such command");
    }

    #[test]
    fn an_interrupted_command_is_no_success() {
        assert_eq!(followed(0, None), 0);
        assert_eq!(followed(0, Some(2)), 130);
        assert_eq!(followed(3, Some(2)), 3);
        let code = follow(Command::new("sh").args(["-c", "exit 3"])).expect("sh runs");
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(3)));
    }
}
