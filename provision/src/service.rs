//! The hidden sub-commands that serve a cluster: processes of one thread that run until they are told to stop.
//!
//! All are Kiln's own binary, since it is the one program that is certain to be there: the balancer is all that its
//! container holds.

use std::{
    env,
    error::Error as StdError,
    ffi::{OsStr, OsString},
    future::Future,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::de::DeserializeOwned;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{Error, Result, agent, balancer, cluster::Cancel, hold, proxy};

/// Keeps the network of the node that it runs on.
pub(crate) const NETWORK_AGENT: &str = "__network-agent";
/// Balances among the API servers of a cluster.
pub(crate) const BALANCE: &str = "__balance";
/// Serves ports of the host that the kernel cannot translate.
pub(crate) const PROXY: &str = "__proxy";
/// Holds packets for name servers that cannot be reached yet.
pub(crate) const HOLD: &str = "__hold";

/// What a container manager sends to an init that is systemd to shut it down, `SIGRTMIN+3` by the GNU C library's count.
const HALT: i32 = 37;

/// Runs a hidden sub-command when the program was started as one; `None` when it was not. To be called in `main` before
/// anything makes a thread.
#[must_use]
pub fn run_service() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    let name = args.next()?;
    let is = |service: &str| name == OsStr::new(service);
    let text = |argument: Option<OsString>| argument.map(|text| text.to_string_lossy().into_owned());
    if is(BALANCE) {
        let file = args.next().map(PathBuf::from);
        Some(run(|cancel| async move { balancer::main(file, cancel).await }, log))
    } else if is(PROXY) {
        let ports = text(args.next());
        // Its parent reads standard output until it knows what has become of the proxy.
        Some(run(|cancel| async move { proxy::main(ports, cancel).await }, proxy::answer))
    } else if is(HOLD) {
        let argument = text(args.next());
        Some(run(|cancel| async move { hold::main(argument, cancel).await }, log))
    } else if is(NETWORK_AGENT) {
        Some(run(agent::serve, log))
    } else {
        None
    }
}

/// What a service was told on its command line, as JSON. `what` completes "failed to …".
///
/// # Errors
/// [`Error::Service`] when there is nothing, or something else.
pub(crate) fn told<T: DeserializeOwned>(argument: Option<String>, what: &'static str) -> Result<T> {
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "nothing was given");
    argument
        .ok_or_else(missing)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .map_err(Error::service(what))
}

/// Writes one line to standard error, with the time: the log of a service.
pub(crate) fn log(line: &str) {
    let line = format!("{:.3} {line}\n", jiff::Timestamp::now());
    // Nobody can be told when that fails, and the service matters more.
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Runs a service until it ends or a signal asks for that. What is wrong with it goes to `tell`.
fn run<F: Future<Output = Result<()>>>(service: impl FnOnce(Cancel) -> F, tell: fn(&str)) -> ExitCode {
    raise_descriptor_limit();
    let served = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::service("start the event loop"))
        .and_then(|runtime| {
            runtime.block_on(async {
                let cancel = Cancel::new();
                // First of all: the kernel ignores signals to the init of a container that it has no handler for.
                let mut signals = Signals::new().map_err(Error::service("install signal handlers"))?;
                let stop = cancel.clone();
                tokio::spawn(async move {
                    signals.next().await;
                    stop.trigger();
                });
                service(cancel).await
            })
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {}", explain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// A connection takes two descriptors, and 1024 is the usual limit. What the hard limit allows is for programs that do
/// not use select(2).
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // The proxy waits when it is at the limit, so it may as well stay where it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// An error with its causes, in one line.
pub(crate) fn explain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some crates' messages hold that of their cause.
        if !text.ends_with(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}

#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    halt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            halt: signal(SignalKind::from_raw(HALT))?,
        })
    }

    async fn next(&mut self) {
        // No stream ends while the runtime lives.
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.halt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_their_errors() {
        let error = Error::PodAccess { source: Box::new(io::Error::other("no token")) };
        assert_eq!(explain(&error), "this pod's access to the API cannot be used: no token");
    }

    #[test]
    fn a_service_that_fails_says_so_with_its_exit_code() {
        let failure =
            |_| async { Err(Error::Variable { name: "NODE_NAME", problem: "is not set".to_owned() }) };
        assert_eq!(run(failure, log), ExitCode::FAILURE);
        assert_eq!(run(|_| async { Ok(()) }, log), ExitCode::SUCCESS);
    }

    #[test]
    fn other_programs_are_no_services() {
        assert_eq!(run_service(), None);
    }
}
