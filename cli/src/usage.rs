//! Wrong command lines, and help.
//!
//! clap's own errors are long, span several lines and end the program with 2. Here they become failures like any
//! other: a line, a hint, status 1. A group without a sub-command, or with one that does not exist, shows the group's
//! help on standard output and fails, as kind has it.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use clap::{Command, CommandFactory, builder::StyledStr, error::ErrorKind};

use crate::{arguments::Arguments, failure::Failure, shell::Shell};

/// Does what a command line asks for that clap did not accept: help, the version, or an error.
///
/// # Errors
/// When the command line is wrong.
pub(crate) fn explain(shell: &Shell, error: &clap::Error, args: &[OsString]) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            shell.styled_result(&error.render())?;
            Ok(ExitCode::SUCCESS)
        }
        ErrorKind::InvalidSubcommand => {
            let path = path_of(args);
            if !path.is_empty() {
                shell.styled_result(&help(args, &path))?;
            }
            Err(failure(error, args, &path))
        }
        _ => Err(failure(error, args, &path_of(args))),
    }
}

/// Shows the help of the command that was called without one of its `choices`.
///
/// # Errors
/// Always.
pub(crate) fn missing(shell: &Shell, args: &[OsString], choices: &str) -> Result<ExitCode, Failure> {
    let path = path_of(args);
    shell.styled_result(&help(args, &path))?;
    Err(Failure::new(format!("\"{}\" needs one of the {choices} above", spell(args, &path))))
}

/// The help text of a command, `path` being the names that lead to it.
pub(crate) fn help(args: &[OsString], path: &[String]) -> StyledStr {
    let mut root = definition(args);
    let mut command = &mut root;
    for name in path {
        // The name was found in the same definition.
        match command.find_subcommand_mut(name) {
            Some(found) => command = found,
            None => return StyledStr::new(),
        }
    }
    command.render_help()
}

/// Whether a command line that could not be parsed has `--quiet` in it.
pub(crate) fn asks_for_quiet(args: &[OsString]) -> bool {
    args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| {
        matches!(arg.to_str(), Some("-q" | "--quiet" | "-q=true" | "--quiet=true" | "-q=1" | "--quiet=1"))
    })
}

/// The name that the program was called by: `kiln`, or that of a link to it such as `kind`.
pub(crate) fn program(args: &[OsString]) -> String {
    args.first()
        .and_then(|arg| Path::new(arg).file_name())
        .and_then(OsStr::to_str)
        .filter(|name| !name.is_empty())
        .unwrap_or("kiln")
        .to_owned()
}

/// The commands, with the names in usage lines as the user typed them.
pub(crate) fn definition(args: &[OsString]) -> Command {
    let mut command = Arguments::command().bin_name(program(args));
    command.build();
    command
}

/// The command that the words of a command line lead to, as far as they do.
fn path_of(args: &[OsString]) -> Vec<String> {
    let root = definition(args);
    let mut command = &root;
    let mut path = Vec::new();
    for word in args.iter().skip(1).take_while(|arg| *arg != "--").filter_map(|arg| arg.to_str()) {
        if let Some(found) = command.find_subcommand(word) {
            path.push(found.get_name().to_owned());
            command = found;
        }
    }
    path
}

fn spell(args: &[OsString], path: &[String]) -> String {
    let mut words = vec![program(args)];
    words.extend_from_slice(path);
    words.join(" ")
}

fn failure(error: &clap::Error, args: &[OsString], path: &[String]) -> Failure {
    let text = error.render().to_string();
    let (message, tip) = split(&text);
    let failure = Failure::new(message);
    match tip {
        Some(tip) => failure.with_hint(tip),
        None => failure.with_hint(format!("\"{} --help\" tells how it is used", spell(args, path))),
    }
}

/// Takes what went wrong and the first tip out of clap's error text; drops usage and the pointer to help.
fn split(text: &str) -> (String, Option<String>) {
    let mut message = Vec::new();
    let mut tip = None;
    for line in text.lines().map(str::trim) {
        if let Some(found) = line.strip_prefix("tip: ") {
            tip.get_or_insert_with(|| found.to_owned());
        } else if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        } else if !line.is_empty() {
            message.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    (message.join(" "), tip)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn failed(line: &str) -> Failure {
        let args = args(line);
        let error = Arguments::try_parse_from(&args).expect_err(line);
        failure(&error, &args, &path_of(&args))
    }

    #[test]
    fn errors_are_one_line_with_a_hint() {
        let misspelt = failed("kiln get nods");
        assert_eq!(misspelt.message().as_deref(), Some("unrecognized subcommand 'nods'"));
        assert_eq!(misspelt.hint(), Some("a similar subcommand exists: 'nodes'"));
        assert_eq!(misspelt.code(), 1);

        let extra = failed("/usr/bin/kind create cluster extra");
        assert!(extra.message().expect("message").contains("'extra'"), "{extra:?}");
        assert_eq!(extra.hint(), Some("\"kind create cluster --help\" tells how it is used"));

        let missing = failed("kiln exec -i");
        let message = missing.message().expect("message");
        assert!(message.contains("<NODE>") && !message.contains('\n'), "{message}");
    }

    #[test]
    fn words_lead_to_a_command() {
        assert_eq!(path_of(&args("kiln -v 3 images --host list")), ["images", "ls"]);
        assert_eq!(path_of(&args("kiln exec -- get nodes")), ["exec"]);
        assert!(path_of(&args("kiln")).is_empty());
    }

    #[test]
    fn help_is_that_of_the_group() {
        let text = help(&args("kind get"), &[String::from("get")]).to_string();
        assert!(text.contains("Usage: kind get"), "{text}");
        assert!(text.contains("kubeconfig"), "{text}");
    }

    #[test]
    fn quiet_is_found_in_broken_command_lines() {
        assert!(asks_for_quiet(&args("kiln --bogus -q")));
        assert!(!asks_for_quiet(&args("kiln --bogus exec -- -q")));
    }
}
