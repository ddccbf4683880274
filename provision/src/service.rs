//! The hidden sub-commands of the binary that serve a cluster: processes of their own, until they are told to end.

use std::{
    error::Error as StdError,
    io::{self, Write},
    process::ExitCode,
};

use crate::{Error, Result, agent};

/// Keeps the network of the node that it runs on.
pub(crate) const NETWORK_AGENT: &str = "__network-agent";

/// Runs a service when the program was started as one; `None` when it was not. To be called in `main` before anything
/// else makes a runtime.
#[must_use]
pub fn run_service() -> Option<ExitCode> {
    let name = std::env::args_os().nth(1)?;
    match name.to_str()? {
        NETWORK_AGENT => Some(run(agent::serve())),
        _ => None,
    }
}

/// Runs a service to its end, on this thread.
fn run(service: impl Future<Output = Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map_err(Error::file("start the runtime of a service"))
        .and_then(|runtime| runtime.block_on(service));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to the service's log.
pub(crate) fn log(line: &str) {
    // A log that nobody takes is no reason to end.
    let _ = writeln!(io::stderr().lock(), "{line}");
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
        let failure = Error::Variable { name: "NODE_NAME", problem: "is not set".to_owned() };
        assert_eq!(run(async { Err(failure) }), ExitCode::FAILURE);
        assert_eq!(run(async { Ok(()) }), ExitCode::SUCCESS);
    }

    #[test]
    fn other_programs_are_no_services() {
        assert_eq!(run_service(), None);
    }
}
