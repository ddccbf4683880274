//! Commands that run something in a node: exec, ps, kubectl.

use std::path::PathBuf;

use clap::Args;
use clap_complete::engine::ArgValueCandidates;

use super::ClusterName;
use crate::candidates;

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The node, such as kind-control-plane
    #[arg(add = ArgValueCandidates::new(candidates::nodes))]
    pub(crate) node: String,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable for the command; a name alone takes this shell's value
    #[arg(short, long = "env", value_name = "NAME=VALUE")]
    pub(crate) environment: Vec<String>,
    /// Directory to run the command in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// User to run the command as
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `ps`
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The node, such as kind-control-plane
    #[arg(add = ArgValueCandidates::new(candidates::nodes))]
    pub(crate) node: String,
}

/// `kubectl`
#[derive(Debug, Args)]
pub(crate) struct Kubectl {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// Arguments of kubectl
    #[arg(trailing_var_arg = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}
