//! Commands about this host and this program: df, doctor, completion, man.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Output;

/// `df`
#[derive(Debug, Args)]
pub(crate) struct Df {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `completion`
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Option<CompletionShell>,
}

/// `man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to write kiln.1 and a page for each command, such as /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

/// The shells for which there is a completion script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// PowerShell
    #[value(name = "powershell")]
    PowerShell,
}
