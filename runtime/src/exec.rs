//! Running commands inside a container.

use std::{
    ffi::{CString, OsString},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Command, ExitCode},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::SignalFd,
    },
};
use rustix::process::{Pid, PidfdFlags, Signal as RawSignal, getppid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Process, Result,
    cgroup::join_cgroups_of,
    error::chain,
    helper,
    namespace::{Ended, Side, default_signals, enter, fork, reap},
    terminal::{Relay, Terminal},
    user::become_user,
};

/// A command to run in a container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct ExecSpec {
    /// Command and arguments; the command is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment, `KEY=VALUE`. `PATH` is added when it is missing.
    pub env: Vec<String>,
    /// Working directory inside; `/` when there is none.
    pub cwd: Option<PathBuf>,
    /// Whether the command gets a terminal of its own, relayed to the caller's standard input and output.
    pub tty: bool,
    /// `NAME`, `UID` or `UID:GID`, as the container knows them; root when there is none.
    pub user: Option<String>,
}

/// Exit codes for a command that did not run, as shells use them.
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

#[derive(Debug, Deserialize, Serialize)]
struct Request {
    process: Process,
    spec: ExecSpec,
}

/// A host command that runs `spec` in the container. Its standard streams are the command's, and its exit code too:
/// 127 when there is no such command, 126 when it could not be executed, 128 + N when signal N ended it. When the
/// host command or whoever started it is killed, what runs inside is killed too.
///
/// # Errors
/// [`Error::NotRunning`] when the container is not running.
pub fn exec_command(process: &Process, spec: &ExecSpec) -> Result<Command> {
    if !process.is_alive() {
        return Err(Error::NotRunning { pid: process.pid });
    }
    let request = Request { process: process.clone(), spec: spec.clone() };
    let request = serde_json::to_string(&request).map_err(|e| Error::system("encode a command")(e))?;
    let mut command = Command::new(helper::program());
    command.args([helper::EXEC, &request]);
    Ok(command)
}

/// Entry point of the hidden sub-command.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let request = args.next().and_then(|text| serde_json::from_str::<Request>(&text.to_string_lossy()).ok());
    let Some(request) = request else {
        return ExitCode::from(CANNOT_EXECUTE);
    };
    match run(&request) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(CANNOT_EXECUTE)
        }
    }
}

/// The helper has no other way to tell: its standard error is the command's.
fn complain(error: &dyn std::error::Error) {
    let text = format!("kiln: {}\n", chain(error));
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
}

fn run(request: &Request) -> Result<u8> {
    let parent = getppid().and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let init = request.process.open_pidfd()?;
    // Blocked before the fork and read from a descriptor after it, so that none is lost between the two.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).map_err(Error::system("block signals"))?;
    let signal_fd = SignalFd::new(&signals).map_err(Error::system("receive signals"))?;

    join_cgroups_of(request.process.pid)?;
    enter(&init)?;
    let terminal = if request.spec.tty { Some(Terminal::open()?) } else { None };
    match fork()? {
        Side::Child => {
            let error = become_command(&request.spec, terminal);
            complain(&error);
            let missing = matches!(&error, Error::System { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
            // Exits at once: nothing of the parent's may run twice.
            rustix_exit(if missing { NOT_FOUND } else { CANNOT_EXECUTE })
        }
        Side::Parent { child } => attend(child, parent.as_ref(), signal_fd, terminal),
    }
}

fn rustix_exit(code: u8) -> ! {
    #[expect(clippy::exit, reason = "a forked child that did not become another program")]
    std::process::exit(i32::from(code))
}

/// In the child: set up the process and execute the command. Returns only the error.
fn become_command(spec: &ExecSpec, terminal: Option<Terminal>) -> Error {
    let prepare = || -> Result<(CString, Vec<CString>, Vec<CString>)> {
        // With the helper gone nobody would ever end or reap it.
        rustix::process::set_parent_process_death_signal(Some(RawSignal::KILL))
            .map_err(Error::system("follow the helper"))?;
        if let Some(terminal) = terminal {
            terminal.take()?;
        }
        let cwd = spec.cwd.clone().unwrap_or_else(|| PathBuf::from("/"));
        if let Some(user) = &spec.user {
            become_user(user)?;
        }
        rustix::process::chdir(&cwd).map_err(Error::system("enter the working directory"))?;
        let mut env = spec.env.clone();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(format!("PATH={}", crate::oci::DEFAULT_PATH));
        }
        let name =
            spec.args.first().ok_or_else(|| Error::system("run a command")(nul("no command was given")))?;
        let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        Ok((c_string(&find(name, path)?)?, c_strings(&spec.args)?, c_strings(&env)?))
    };
    let (program, args, env) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    if let Err(error) = default_signals() {
        return error;
    }
    match nix::unistd::execve(&program, &args, &env) {
        Ok(never) => match never {},
        Err(error) => Error::system("execute the command")(error),
    }
}

/// `execvpe` by hand: the C library's searches the caller's `PATH`, not the one the command gets.
fn find(name: &str, path: &str) -> Result<String> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let candidates = path.split(':').map(|directory| format!("{directory}/{name}"));
    for candidate in candidates {
        if rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK).is_ok() {
            return Ok(candidate);
        }
    }
    let source =
        std::io::Error::new(std::io::ErrorKind::NotFound, format!("{name} is not in the container's PATH"));
    Err(Error::system("find the command")(source))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::system("run a command")(nul("an argument contains a NUL byte")))
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>> {
    texts.iter().map(|text| c_string(text)).collect()
}

fn nul(reason: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidInput, reason.to_owned())
}

/// In the parent: relay signals and terminal until the command has ended.
fn attend(child: i32, parent: Option<&OwnedFd>, signals: SignalFd, terminal: Option<Terminal>) -> Result<u8> {
    let pid = Pid::from_raw(child).ok_or(Error::NotRunning { pid: child })?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::system("watch the command"))?;
    let mut relay = terminal.map(Terminal::relay).transpose()?;
    loop {
        let (ended, orphaned, signalled) = {
            let mut fds = vec![
                PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            if let Some(parent) = parent {
                fds.push(PollFd::new(parent.as_fd(), PollFlags::POLLIN));
            }
            let first_of_relay = fds.len();
            if let Some(relay) = &relay {
                fds.extend(relay.poll_fds());
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(Error::system("wait for the command")(error)),
            }
            let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
            let orphaned = parent.is_some() && ready(2);
            let input = ready(first_of_relay);
            let output = ready(first_of_relay + 1);
            let states = (ready(0), orphaned, ready(1));
            drop(fds);
            if let Some(relay) = &mut relay {
                relay.forward(input, output);
            }
            states
        };
        if orphaned {
            let _ = pidfd_send_signal(&pidfd, RawSignal::KILL);
        }
        if signalled {
            forward_signal(&signals, &pidfd, relay.as_ref());
        }
        if ended {
            break;
        }
    }
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    drop(relay);
    Ok(match reap(child)? {
        Ended::Exited(code) => u8::try_from(code & 0xff).unwrap_or(CANNOT_EXECUTE),
        Ended::Killed(signal) => u8::try_from(128 + signal).unwrap_or(CANNOT_EXECUTE),
    })
}

fn forward_signal(signals: &SignalFd, pidfd: &OwnedFd, relay: Option<&Relay>) {
    let Ok(Some(info)) = signals.read_signal() else {
        return;
    };
    let number = i32::try_from(info.ssi_signo).unwrap_or_default();
    if number == Signal::SIGWINCH as i32 {
        if let Some(relay) = relay {
            relay.resize();
        }
        return;
    }
    // Typed at a terminal (sent by the kernel), it reached the command too, which is in the same process group; only
    // what another process sent to the helper is passed on.
    if info.ssi_pid != 0
        && let Some(signal) = RawSignal::from_named_raw(number)
    {
        let _ = pidfd_send_signal(pidfd, signal);
    }
}
