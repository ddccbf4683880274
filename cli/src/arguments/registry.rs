//! Commands about registries.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use kiln_provision::cluster::registry::{DEFAULT_PORT, DEFAULT_REGISTRY};

use super::{Output, boolean};
use crate::candidates;

/// `registry`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Registry {
    /// What to do with registries.
    #[command(subcommand)]
    pub(crate) command: Option<RegistryCommand>,
}

/// What can be done with registries.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Create a registry that the nodes of all clusters know
    ///
    /// Images are pushed to localhost:PORT on this host. Pods name them as localhost:PORT/IMAGE, or as NAME:5000/IMAGE. Nodes
    /// that run are told at once, those of later clusters when they are made. One that does not run any more is started again,
    /// with the images it had.
    Create(RegistryCreate),
    /// Delete registries with their images
    Delete(RegistryDelete),
    /// List registries
    #[command(visible_alias = "list")]
    Ls(RegistryLs),
}

/// `registry create`
#[derive(Debug, Args)]
pub(crate) struct RegistryCreate {
    /// The registry, by which nodes know it
    #[arg(value_name = "NAME", default_value = DEFAULT_REGISTRY)]
    pub(crate) name: String,
    /// Port of this host's 127.0.0.1 and [::1]; 0 has a free one chosen
    #[arg(long, value_name = "PORT", help = format!("Port of this host's 127.0.0.1 and [::1]; 0 has a free one chosen [default: {DEFAULT_PORT}]"))]
    pub(crate) port: Option<u16>,
    /// Be a cache of this registry, which nodes then ask first; such as https://registry-1.docker.io
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

impl RegistryCreate {
    /// What to be a cache of, where that was given.
    pub(crate) fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref().filter(|url| !url.is_empty())
    }
}

/// `registry delete`
#[derive(Debug, Args)]
pub(crate) struct RegistryDelete {
    /// The registries to delete
    #[arg(value_name = "NAME", default_value = DEFAULT_REGISTRY, conflicts_with = "all",
        add = ArgValueCandidates::new(candidates::registries))]
    pub(crate) names: Vec<String>,
    /// Delete every registry
    #[arg(short = 'A', long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) all: bool,
    /// Keep the images for the next registry of the same name
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) keep_data: bool,
}

/// `registry ls`
#[derive(Debug, Args)]
pub(crate) struct RegistryLs {
    #[command(flatten)]
    pub(crate) output: Output,
}
