//! Wrong command lines, and help.
//!
//! clap's own errors are long, span several lines and end the program with 2. Here they become failures like any
//! other: a line in the words of kind's flag library, which scripts look for, a hint, status 1. A group without a
//! sub-command, or with one that does not exist, shows the group's help on standard output and fails, as kind has it.

use std::{
    error::Error as _,
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use clap::{
    Command, CommandFactory,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{arguments::Arguments, failure::Failure, shell::Shell};

/// What a group says that was called without a command of its own.
const SUBCOMMAND_REQUIRED: &str = "Subcommand is required";

/// The group whose choices are values to clap, not commands.
const COMPLETION: &str = "completion";

/// Does what a command line asks for that clap did not accept: help, the version, or an error.
///
/// # Errors
/// When the command line is wrong.
pub(crate) fn explain(shell: &Shell, error: &clap::Error, args: &[OsString]) -> Result<ExitCode, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp => {
            shell.styled_result(&error.render())?;
            Ok(ExitCode::SUCCESS)
        }
        ErrorKind::DisplayVersion => {
            shell.result(&format!("{}\n", version_line(args)))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let path = path_of(args, context(error, ContextKind::InvalidSubcommand).as_deref());
            if is_misspelt_choice(error, &path) {
                shell.styled_result(&help(args, &path))?;
            }
            Err(failure(error, args, &path))
        }
    }
}

/// Shows the help of the command that was called without one of its choices.
///
/// # Errors
/// Always.
pub(crate) fn missing(shell: &Shell, args: &[OsString]) -> Result<ExitCode, Failure> {
    shell.styled_result(&help(args, &path_of(args, None)))?;
    Err(Failure::new(SUBCOMMAND_REQUIRED).with_hint("the help above lists them"))
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

/// Whether it was called as kind: by that name, or one that a download has, such as `kind-linux-amd64`.
pub(crate) fn is_kind(args: &[OsString]) -> bool {
    let name = program(args);
    name.strip_prefix("kind").is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
}

/// What the program is called in the sentences that scripts compare: `kind`, or `kiln`.
pub(crate) fn brand(args: &[OsString]) -> &'static str {
    if is_kind(args) { "kind" } else { "kiln" }
}

/// What `--version` prints.
fn version_line(args: &[OsString]) -> String {
    let own = env!("CARGO_PKG_VERSION");
    // Tools that drive kind want a certain version of it at least.
    if is_kind(args) {
        format!("kind version {KIND_VERSION} (kiln {own})")
    } else {
        format!("kiln version {own}")
    }
}

/// The version of kind whose command line and configurations these are.
pub(crate) const KIND_VERSION: &str = "0.33.0";

/// The commands, with the names in usage lines as the user typed them.
pub(crate) fn definition(args: &[OsString]) -> Command {
    let mut command = Arguments::command().bin_name(program(args));
    command.build();
    command
}

/// The command that the words of a command line lead to, as far as they do; `wrong` is the word that leads nowhere.
fn path_of(args: &[OsString], wrong: Option<&str>) -> Vec<String> {
    let root = definition(args);
    let mut command = &root;
    let mut path = Vec::new();
    for word in args.iter().skip(1).take_while(|arg| *arg != "--").filter_map(|arg| arg.to_str()) {
        if let Some(found) = command.find_subcommand(word) {
            path.push(found.get_name().to_owned());
            command = found;
        } else if wrong == Some(word) {
            break;
        }
    }
    path
}

fn spell(first: &str, path: &[String]) -> String {
    let mut words = vec![first.to_owned()];
    words.extend_from_slice(path);
    words.join(" ")
}

/// Whether a group was called with a choice that it does not have.
fn is_misspelt_choice(error: &clap::Error, path: &[String]) -> bool {
    match error.kind() {
        ErrorKind::InvalidSubcommand => !path.is_empty(),
        ErrorKind::InvalidValue => path == [COMPLETION],
        _ => false,
    }
}

fn failure(error: &clap::Error, args: &[OsString], path: &[String]) -> Failure {
    let text = error.render().to_string();
    let (message, tip) = split(&text);
    if is_misspelt_choice(error, path) {
        let word = context(error, ContextKind::InvalidSubcommand)
            .or_else(|| context(error, ContextKind::InvalidValue))
            .unwrap_or_default();
        let tip = tip.map(|tip| format!("; {tip}")).unwrap_or_default();
        return Failure::new(SUBCOMMAND_REQUIRED).with_hint(format!("there is no \"{word}\"{tip}"));
    }
    let command = spell(brand(args), path);
    let failure = Failure::new(in_words_of_kind(error, &command).unwrap_or(message));
    match tip {
        Some(tip) => failure.with_hint(tip),
        None => failure.with_hint(format!("\"{} --help\" tells how it is used", spell(&program(args), path))),
    }
}

/// What is wrong, as kind's flag library puts it; `None` where it has no words for it.
fn in_words_of_kind(error: &clap::Error, command: &str) -> Option<String> {
    let argument = context(error, ContextKind::InvalidArg);
    // "--wait <DURATION>"
    let flag = argument.as_deref().and_then(|argument| argument.split_whitespace().next());
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = context(error, ContextKind::InvalidSubcommand)?;
            Some(format!("unknown command \"{word}\" for \"{command}\""))
        }
        ErrorKind::UnknownArgument => {
            let argument = argument?;
            Some(match argument.strip_prefix('-') {
                None => format!("unknown command \"{argument}\" for \"{command}\""),
                Some(letters) if !letters.starts_with('-') => {
                    format!("unknown shorthand flag: '{letters}' in -{letters}")
                }
                Some(_) => format!("unknown flag: {argument}"),
            })
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let flag = flag.filter(|flag| flag.starts_with('-'))?;
            let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
            let reason = match (error.source(), error.get(ContextKind::ValidValue)) {
                (Some(reason), _) => reason.to_string(),
                (None, Some(ContextValue::Strings(possible))) if !value.is_empty() => {
                    format!("it is one of {}", possible.join(", "))
                }
                _ => return Some(format!("flag needs an argument: {flag}")),
            };
            Some(format!("invalid argument \"{value}\" for \"{flag}\" flag: {reason}"))
        }
        _ => None,
    }
}

/// A word that clap's error is about.
fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
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
        let wrong = context(&error, ContextKind::InvalidSubcommand);
        failure(&error, &args, &path_of(&args, wrong.as_deref()))
    }

    #[test]
    fn errors_are_kinds_with_a_hint() {
        for (line, message, hint) in [
            (
                "kiln get nods",
                "Subcommand is required",
                "there is no \"nods\"; a similar subcommand exists: 'nodes'",
            ),
            (
                "kiln completion tcsh",
                "Subcommand is required",
                "there is no \"tcsh\"; a similar value exists: 'zsh'",
            ),
            ("kind xyzzy", "unknown command \"xyzzy\" for \"kind\"", "\"kind --help\" tells how it is used"),
            (
                "kind xyzzy create cluster",
                "unknown command \"xyzzy\" for \"kind\"",
                "\"kind --help\" tells how it is used",
            ),
            (
                "/usr/bin/kind create cluster extra",
                "unknown command \"extra\" for \"kind create cluster\"",
                "\"kind create cluster --help\" tells how it is used",
            ),
            (
                "./kind-linux-amd64 get clusters extra",
                "unknown command \"extra\" for \"kind get clusters\"",
                "\"kind-linux-amd64 get clusters --help\" tells how it is used",
            ),
            (
                "kiln get nodes --bogus",
                "unknown flag: --bogus",
                "\"kiln get nodes --help\" tells how it is used",
            ),
            (
                "kiln get nodes -x",
                "unknown shorthand flag: 'x' in -x",
                "\"kiln get nodes --help\" tells how it is used",
            ),
            (
                "kiln get nodes --name",
                "flag needs an argument: --name",
                "\"kiln get nodes --help\" tells how it is used",
            ),
            (
                "kiln create cluster --wait=-1s",
                "invalid argument \"-1s\" for \"--wait\" flag: a duration cannot be negative",
                "\"kiln create cluster --help\" tells how it is used",
            ),
            (
                "kiln get nodes -o 7",
                "invalid argument \"7\" for \"--output\" flag: it is one of text, wide, json, yaml",
                "\"kiln get nodes --help\" tells how it is used",
            ),
        ] {
            let failure = failed(line);
            assert_eq!(failure.message().as_deref(), Some(message), "{line}");
            assert_eq!(failure.hint(), Some(hint), "{line}");
            assert_eq!(failure.code(), 1, "{line}");
        }
        let missing = failed("kiln exec -i");
        let message = missing.message().expect("message");
        assert!(message.contains("<NODE>") && !message.contains('\n'), "{message}");
    }

    #[test]
    fn words_lead_to_a_command() {
        assert_eq!(path_of(&args("kiln -v 3 images --host list"), None), ["images", "ls"]);
        assert_eq!(path_of(&args("kiln exec -- get nodes"), None), ["exec"]);
        assert!(path_of(&args("kiln foo get nodes"), Some("foo")).is_empty());
        assert!(path_of(&args("kiln"), None).is_empty());
    }

    #[test]
    fn the_name_it_is_called_by_tells_who_it_is() {
        for (called, kind) in [
            ("kind", true),
            ("/usr/local/bin/kind", true),
            ("kind-v0.33.0", true),
            ("kind_linux", true),
            ("kiln", false),
            ("kindly", false),
            ("kind2", false),
            ("", false),
        ] {
            assert_eq!(is_kind(&args(called)), kind, "{called}");
        }
        assert_eq!(version_line(&args("kiln")), format!("kiln version {}", env!("CARGO_PKG_VERSION")));
        assert!(version_line(&args("kind")).starts_with(&format!("kind version {KIND_VERSION} (kiln ")));
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
