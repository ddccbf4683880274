//! Commands about whole clusters: create, delete, get, export.

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use kiln_provision::cluster;

use super::{ClusterName, Format, KubeconfigPath, Output, boolean, given_path};
use crate::{candidates, duration};

/// `create`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Create {
    /// What to create.
    #[command(subcommand)]
    pub(crate) command: Option<CreateCommand>,
}

/// What can be created.
#[derive(Debug, Subcommand)]
pub(crate) enum CreateCommand {
    /// Create a cluster and point kubectl at it
    Cluster(CreateCluster),
}

/// `create cluster`
#[derive(Debug, Args)]
pub(crate) struct CreateCluster {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// Cluster configuration, kind.x-k8s.io/v1alpha4 ("-" reads it from standard input)
    #[arg(long, value_name = "FILE")]
    config: Option<OsString>,
    /// Image of all nodes, in place of the configuration's
    #[arg(long, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    image: Option<String>,
    /// Keep the nodes when creation fails, to look at them
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) retain: bool,
    /// How long to wait for the nodes to become Ready, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::parse)]
    pub(crate) wait: Duration,
    /// Who makes the pod network: Kiln itself, or the manifest that the node image brings
    #[arg(long, value_enum, value_name = "WHO", default_value = "kiln")]
    pub(crate) pod_network: PodNetwork,
    /// How the control plane comes up: from a template that an earlier cluster of the same image and configuration has
    /// left, or by kubeadm alone
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    pub(crate) bootstrap: Bootstrap,
    /// Write what happened when to a file, for https://ui.perfetto.dev; waits at the end as --timings does
    #[arg(long, value_name = "FILE")]
    trace: Option<OsString>,
    /// Tell at the end how long everything took, after waiting 60s at most for CoreDNS and kube-proxy [default: how long each phase
    /// took, on a terminal]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = boolean)]
    pub(crate) timings: Option<bool>,
    #[command(flatten)]
    pub(crate) kubeconfig: KubeconfigPath,
    #[command(flatten)]
    pub(crate) preview: Preview,
}

/// The flags of commands that can tell what they would do.
#[derive(Debug, Args)]
pub(crate) struct Preview {
    /// Check everything and tell what would be done, but do nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) dry_run: bool,
    /// How to print what --dry-run finds
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", id = "preview-format")]
    pub(crate) format: Option<Format>,
}

/// How the control plane comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bootstrap {
    /// From a template where there is one, otherwise by kubeadm, leaving one.
    Auto,
    /// By kubeadm in every node.
    Kubeadm,
    /// As auto, but refuse what cannot have a template.
    Template,
}

impl From<Bootstrap> for cluster::Bootstrap {
    fn from(how: Bootstrap) -> Self {
        match how {
            Bootstrap::Auto => Self::Auto,
            Bootstrap::Kubeadm => Self::Kubeadm,
            Bootstrap::Template => Self::Template,
        }
    }
}

/// Who makes the pod network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PodNetwork {
    /// Kiln, before the first kubelet starts.
    Kiln,
    /// The image's /kind/manifests/default-cni.yaml, as with kind.
    Image,
}

impl From<PodNetwork> for cluster::PodNetwork {
    fn from(who: PodNetwork) -> Self {
        match who {
            PodNetwork::Kiln => Self::Launcher,
            PodNetwork::Image => Self::Image,
        }
    }
}

impl CreateCluster {
    /// The configuration file, where one was given; `-` is standard input.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref().and_then(given_path)
    }

    /// The file for the trace, where one was given.
    pub(crate) fn trace(&self) -> Option<&Path> {
        self.trace.as_deref().and_then(given_path)
    }

    /// The image, where one was given.
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref().filter(|image| !image.is_empty())
    }
}

/// `delete`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Delete {
    /// What to delete.
    #[command(subcommand)]
    pub(crate) command: Option<DeleteCommand>,
}

/// What can be deleted.
#[derive(Debug, Subcommand)]
pub(crate) enum DeleteCommand {
    /// Delete a cluster, whatever state it is in
    Cluster(DeleteCluster),
    /// Delete several clusters
    Clusters(DeleteClusters),
}

/// `delete cluster`
#[derive(Debug, Args)]
pub(crate) struct DeleteCluster {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    #[command(flatten)]
    pub(crate) kubeconfig: KubeconfigPath,
    #[command(flatten)]
    pub(crate) preview: Preview,
}

/// `delete clusters`
#[derive(Debug, Args)]
pub(crate) struct DeleteClusters {
    /// The clusters to delete
    #[arg(value_name = "CLUSTER", add = ArgValueCandidates::new(candidates::clusters))]
    pub(crate) names: Vec<String>,
    /// Delete every cluster
    #[arg(short = 'A', long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) kubeconfig: KubeconfigPath,
    #[command(flatten)]
    pub(crate) preview: Preview,
}

/// `get`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Get {
    /// What to list or print.
    #[command(subcommand)]
    pub(crate) command: Option<GetCommand>,
}

/// What can be listed or printed.
#[derive(Debug, Subcommand)]
pub(crate) enum GetCommand {
    /// List clusters by name
    Clusters(GetClusters),
    /// List the nodes of a cluster by name
    Nodes(GetNodes),
    /// Print a cluster's kubeconfig
    Kubeconfig(GetKubeconfig),
}

/// `get clusters`
#[derive(Debug, Args)]
pub(crate) struct GetClusters {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `get nodes`
#[derive(Debug, Args)]
pub(crate) struct GetNodes {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// List the nodes of every cluster
    #[arg(short = 'A', long, visible_alias = "all", num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true", value_name = "BOOL", value_parser = boolean,
        hide_default_value = true)]
    pub(crate) all_clusters: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `get kubeconfig`
#[derive(Debug, Args)]
pub(crate) struct GetKubeconfig {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// Address the API server as pods and nodes do, not as this host does
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) internal: bool,
}

/// `export`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Export {
    /// What to write.
    #[command(subcommand)]
    pub(crate) command: Option<ExportCommand>,
}

/// What can be written.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportCommand {
    /// Add a cluster to your kubeconfig and make it the current context
    Kubeconfig(ExportKubeconfig),
    /// Write a cluster's logs to a directory
    ///
    /// Logs of nodes, pods and of Kiln itself, as kind lays them out. Keys and tokens are left out. Of nodes that do not run,
    /// what is on the disk is written.
    Logs(ExportLogs),
}

/// `export logs`
#[derive(Debug, Args)]
pub(crate) struct ExportLogs {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// The directory, made if it is missing [default: a new temporary one]
    #[arg(value_name = "DIR")]
    directory: Option<OsString>,
}

impl ExportLogs {
    /// The directory, where one was given.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref().and_then(given_path)
    }
}

/// `export kubeconfig`
#[derive(Debug, Args)]
pub(crate) struct ExportKubeconfig {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    #[command(flatten)]
    pub(crate) kubeconfig: KubeconfigPath,
    /// Address the API server as pods and nodes do, not as this host does
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) internal: bool,
}
