//! Commands about how long things take: trace.

use clap::{Args, Subcommand};

use super::{ClusterName, Output};

/// `trace`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Trace {
    /// What to do with traces.
    #[command(subcommand)]
    pub(crate) command: Option<TraceCommand>,
}

/// What can be done with traces.
#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Show what happened when while a cluster was created
    ///
    /// Spans and marks of every node on one clock, the processor time of each component until then, and the critical path: what
    /// the end had to wait for.
    Show(TraceShow),
}

/// `trace show`
#[derive(Debug, Args)]
#[command(mut_arg("cluster-name", |name| name.visible_alias("cluster")))]
pub(crate) struct TraceShow {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    #[command(flatten)]
    pub(crate) output: Output,
}
