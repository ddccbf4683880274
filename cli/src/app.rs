//! From the command line to an exit status.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use kiln_provision::Paths;

use crate::{
    arguments::Arguments,
    candidates,
    commands::{self, Session},
    failure::{Context, Failure},
    order,
    shell::{LogLine, Shell},
    usage,
};

/// Runs the program; the first of `args` is its name.
pub(crate) fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    if let Some(code) = candidates::answer(&args) {
        return code;
    }
    let args = order::flags_last(&args);
    let (shell, result) = match Arguments::try_parse_from(&args) {
        Ok(arguments) => {
            let shell = Shell::new(arguments.global.quiet, arguments.global.verbosity());
            log_to(&shell);
            let result = start(&shell, arguments, &args);
            (shell, result)
        }
        Err(error) => {
            let shell = Shell::new(usage::asks_for_quiet(&args), 0);
            let result = usage::explain(&shell, &error, &args);
            (shell, result)
        }
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            let failure = failure.naming(&usage::program(&args));
            shell.failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn start(shell: &Shell, arguments: Arguments, args: &[OsString]) -> Result<ExitCode, Failure> {
    let Some(command) = arguments.command else {
        shell.styled_result(&usage::help(args, &[]))?;
        return Ok(ExitCode::SUCCESS);
    };
    let session =
        Session { shell: shell.clone(), paths: paths(arguments.global.root())?, args: args.to_vec() };
    commands::run(&session, command)
}

/// The roots. Another state root brings its own run root with it, so that two installations never meet.
pub(crate) fn paths(root: Option<&Path>) -> Result<Paths, Failure> {
    let default = Paths::default();
    let absolute = |path: PathBuf| {
        std::path::absolute(&path)
            .context(&format!("failed to find out which directory {} is", path.display()))
    };
    let state = match root {
        Some(root) => absolute(root.to_path_buf())?,
        None => default.state().to_path_buf(),
    };
    let run = match std::env::var_os("KILN_RUN_ROOT").filter(|value| !value.is_empty()) {
        Some(run) => absolute(PathBuf::from(run))?,
        None if state == default.state() => default.run().to_path_buf(),
        None => state.join("run"),
    };
    Ok(Paths::new(state, run))
}

/// Shows what the libraries trace, at `-v 1` and above; `KILN_LOG` takes the place of the level, in the notation of
/// `tracing-subscriber`'s filters.
fn log_to(shell: &Shell) {
    let directives = match std::env::var("KILN_LOG") {
        Ok(directives) if !directives.is_empty() => directives,
        _ => String::from(match shell.verbosity() {
            0 => return,
            1 => "off,kiln=info,kiln_provision=info,kiln_network=info,kiln_runtime=info",
            2 => "off,kiln=debug,kiln_provision=debug,kiln_network=debug,kiln_runtime=debug",
            3..=5 => "info,kiln=trace,kiln_provision=trace,kiln_network=trace,kiln_runtime=trace",
            _ => "trace",
        }),
    };
    let writer = shell.clone();
    let installed = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(directives))
        .with_writer(move || LogLine::new(&writer))
        .with_ansi(false)
        .without_time()
        .try_init();
    if let Err(error) = installed {
        shell.warn(&format!("nothing will be traced: {error}"));
    }
}
