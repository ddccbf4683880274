//! Commands about clusters that are booted ahead.

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use super::{Bootstrap, ClusterName, Output, PodNetwork, boolean, given_path};
use crate::{candidates, duration};

/// `pool`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Pool {
    /// What to do with standby clusters.
    #[command(subcommand)]
    pub(crate) command: Option<PoolCommand>,
}

/// What can be done with standby clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Boot clusters ahead, for later creates to take
    ///
    /// Each is a whole cluster with keys, addresses and ports of its own, checked and then frozen: it holds memory and uses
    /// no processor. `kiln create cluster` takes one of its name when configuration, image and proxy are the same, which
    /// takes less than a second. Those that are there count; those that no such create could take are removed.
    Fill(PoolFill),
    /// List standby clusters
    #[command(visible_alias = "list")]
    Ls(PoolLs),
    /// Remove standby clusters
    Drain(PoolDrain),
}

/// `pool fill`
#[derive(Debug, Args)]
pub(crate) struct PoolFill {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// How many there are to be
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) count: u32,
    /// Cluster configuration, kind.x-k8s.io/v1alpha4 ("-" reads it from standard input)
    #[arg(long, value_name = "FILE")]
    config: Option<OsString>,
    /// Image of all nodes, in place of the configuration's
    #[arg(long, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    image: Option<String>,
    /// How long the nodes may take to become Ready
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    pub(crate) wait: Duration,
    /// Who makes the pod network: Kiln itself, or the manifest that the node image brings
    #[arg(long, value_enum, value_name = "WHO", default_value = "kiln")]
    pub(crate) pod_network: PodNetwork,
    /// How the control planes come up: from a template, or by kubeadm alone
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    pub(crate) bootstrap: Bootstrap,
}

impl PoolFill {
    /// The configuration file, where one was given; `-` is standard input.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref().and_then(given_path)
    }

    /// The image, where one was given.
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref().filter(|image| !image.is_empty())
    }
}

/// `pool ls`
#[derive(Debug, Args)]
pub(crate) struct PoolLs {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `pool drain`
#[derive(Debug, Args)]
pub(crate) struct PoolDrain {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// Remove those of every name
    #[arg(short = 'A', long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) all: bool,
}
