//! The hidden sub-commands of the binary: single-threaded processes that may fork and change namespaces.

use std::{env, ffi::OsStr, path::PathBuf, process::ExitCode};

use crate::{exec, monitor, watch};

pub(crate) const MONITOR: &str = "__monitor";
pub(crate) const WATCH: &str = "__watch";
pub(crate) const EXEC: &str = "__exec";

/// Runs a hidden sub-command when the program was started as one; `None` when it was not. To be called first in
/// `main`, before anything makes a thread.
#[must_use]
pub fn run_helper() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    let name = args.next()?;
    let is = |helper: &str| name == OsStr::new(helper);
    if is(MONITOR) {
        Some(monitor::main())
    } else if is(WATCH) {
        Some(watch::main(args))
    } else if is(EXEC) {
        Some(exec::main(args))
    } else {
        None
    }
}

/// This program, also after its file was replaced or removed.
pub(crate) fn program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}
