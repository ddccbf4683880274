//! A pseudo-terminal for a command, and the relay between it and the caller's.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, unlockpt},
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

use crate::{Error, Result};

/// A pseudo-terminal of the container's own, so that its name means something inside.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// To be called inside the container's mount namespace.
    pub(crate) fn open() -> Result<Self> {
        let fail = || Error::system("open a terminal in the container");
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(fail())?;
        grantpt(&master).map_err(fail())?;
        unlockpt(&master).map_err(fail())?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)
            .map_err(fail())?;
        Ok(Self { master, slave })
    }

    /// In the child: makes it the controlling terminal and all standard streams.
    pub(crate) fn take(self) -> Result<()> {
        let fail = || Error::system("take the terminal");
        rustix::process::setsid().map_err(fail())?;
        rustix::process::ioctl_tiocsctty(&self.slave).map_err(fail())?;
        rustix::stdio::dup2_stdin(&self.slave).map_err(fail())?;
        rustix::stdio::dup2_stdout(&self.slave).map_err(fail())?;
        rustix::stdio::dup2_stderr(&self.slave).map_err(fail())
    }

    /// In the parent: the caller's terminal passes every key on unchanged until the relay is dropped.
    pub(crate) fn relay(self) -> Result<Relay> {
        let saved = if isatty(stdin()) {
            let saved = tcgetattr(stdin()).map_err(Error::system("read the terminal's settings"))?;
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw)
                .map_err(Error::system("set the terminal to raw mode"))?;
            Some(saved)
        } else {
            None
        };
        let relay = Relay { master: self.master, saved, input: true };
        relay.resize();
        Ok(relay)
    }
}

/// Copies between the caller's standard streams and the command's terminal.
#[derive(Debug)]
pub(crate) struct Relay {
    master: OwnedFd,
    saved: Option<Termios>,
    /// Whether there is more to read from the caller.
    input: bool,
}

impl Relay {
    /// What to wait for: the caller's input, then the command's output.
    pub(crate) fn poll_fds(&self) -> [PollFd<'_>; 2] {
        let wanted = if self.input { PollFlags::POLLIN } else { PollFlags::empty() };
        // Without input left, the output's descriptor takes its place with nothing to wait for: a closed standard
        // input would otherwise be ready for ever.
        let input = if self.input { stdin() } else { self.master.as_fd() };
        [PollFd::new(input, wanted), PollFd::new(self.master.as_fd(), PollFlags::POLLIN)]
    }

    /// Copies what is there, where `poll` said so.
    pub(crate) fn forward(&mut self, input: bool, output: bool) {
        let mut buffer = [0_u8; 8192];
        if input && self.input {
            match rustix::io::read(stdin(), &mut buffer) {
                Ok(0) | Err(_) => {
                    self.input = false;
                    // End of file, as a terminal says it.
                    let _ = rustix::io::write(&self.master, &[4]);
                }
                Ok(length) => write_all(self.master.as_fd(), &buffer[..length]),
            }
        }
        if output {
            // EIO means that the command has closed its side; its end is noticed by its pidfd.
            if let Ok(length) = rustix::io::read(&self.master, &mut buffer) {
                write_all(stdout(), &buffer[..length]);
            }
        }
    }

    /// Copies what the command wrote before it ended.
    pub(crate) fn drain(&mut self) {
        if rustix::io::ioctl_fionbio(&self.master, true).is_err() {
            return;
        }
        let mut buffer = [0_u8; 8192];
        while let Ok(length @ 1..) = rustix::io::read(&self.master, &mut buffer) {
            write_all(stdout(), &buffer[..length]);
        }
    }

    /// Gives the command's terminal the size of the caller's.
    pub(crate) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), OptionalActions::Now, saved);
        }
    }
}

fn write_all(fd: impl AsFd, mut data: &[u8]) {
    while !data.is_empty() {
        match rustix::io::write(&fd, data) {
            Ok(written) => data = &data[written..],
            Err(rustix::io::Errno::INTR) => {}
            // Whoever read it has gone; the command finds out by itself.
            Err(_) => return,
        }
    }
}
