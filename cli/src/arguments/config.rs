//! Commands about configuration files.

use std::{ffi::OsString, path::Path, path::PathBuf};

use clap::{Args, Subcommand};

use super::given_path;

/// `config`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Config {
    /// What to do with a configuration.
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,
}

/// What can be done with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show what a configuration makes of each node, without making anything
    Render(ConfigRender),
    /// Check a configuration, and whether this host could run it
    Validate(ConfigValidate),
    /// Print a configuration to begin with
    Init(ConfigInit),
    /// Print the JSON Schema of configurations, for editors
    Schema,
}

/// `config init`
#[derive(Debug, Args)]
pub(crate) struct ConfigInit {
    /// Every field, with its default in a comment
    #[arg(long)]
    pub(crate) full: bool,
}

/// `config render`
#[derive(Debug, Args)]
pub(crate) struct ConfigRender {
    /// Cluster configuration, kind.x-k8s.io/v1alpha4 ("-" reads it from standard input)
    #[arg(long, value_name = "FILE")]
    config: Option<OsString>,
    /// Version of Kubernetes that the nodes would run
    #[arg(long, value_name = "VERSION", default_value = kiln_provision::build::DEFAULT_KUBERNETES_VERSION)]
    pub(crate) kubernetes_version: String,
    /// Write nodes.json, NODE/kubeadm.yaml and NODE/containerd.toml here, in place of printing them
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// containerd's configuration in the image, for the patches to apply to
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
}

impl ConfigRender {
    /// The configuration file, where one was given; `-` is standard input.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref().and_then(given_path)
    }
}

/// `config validate`
#[derive(Debug, Args)]
pub(crate) struct ConfigValidate {
    /// Cluster configuration, kind.x-k8s.io/v1alpha4 ("-" reads it from standard input)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: PathBuf,
}
