//! The `kiln` program: arguments in, the terminal out, everything else is `kiln-provision`.

#![forbid(unsafe_code)]

mod app;
mod arguments;
mod candidates;
mod child;
mod commands;
mod duration;
mod failure;
mod gantt;
mod json;
mod order;
mod progress;
mod shell;
mod signal;
mod table;
mod text;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A launch helper must be single-threaded and must not have touched the terminal: nothing comes before this.
    if let Some(code) = kiln_runtime::run_helper() {
        return code;
    }
    if let Some(code) = kiln_provision::run_service() {
        return code;
    }
    app::run(std::env::args_os())
}
