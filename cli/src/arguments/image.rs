//! Commands about images: images, build.

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;

use super::{ClusterName, Output};
use crate::candidates;

/// `images`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Images {
    /// What to do with images.
    #[command(subcommand)]
    pub(crate) command: Option<ImagesCommand>,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// List the images of nodes, or the node images of this host
    #[command(visible_alias = "list")]
    Ls(ImagesLs),
}

/// `images ls`
#[derive(Debug, Args)]
pub(crate) struct ImagesLs {
    #[command(flatten)]
    pub(crate) name: ClusterName,
    /// Only this node (may be repeated)
    #[arg(long = "node", visible_alias = "nodes", value_name = "NODE", value_delimiter = ',',
        add = ArgValueCandidates::new(candidates::nodes))]
    pub(crate) nodes: Vec<String>,
    /// List the node images in this host's store instead
    #[arg(long, conflicts_with = "nodes")]
    pub(crate) host: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `build`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Build {
    /// What to build.
    #[command(subcommand)]
    pub(crate) command: Option<BuildCommand>,
}

/// What can be built.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildCommand {
    /// Build a node image from Debian packages and Go modules
    NodeImage(BuildNodeImage),
    /// Build the image that registries are made of, as `kiln registry create` does when it is missing
    RegistryImage(BuildRegistryImage),
}

/// `build registry-image`
#[derive(Debug, Args)]
pub(crate) struct BuildRegistryImage {
    /// Make everything anew, in place of what earlier builds kept
    #[arg(long)]
    pub(crate) no_cache: bool,
}

/// `build node-image`
#[derive(Debug, Args)]
pub(crate) struct BuildNodeImage {
    /// What kind builds from; Kiln builds from Go modules, see --kubernetes-version
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// Name of the image [default: kiln/node:VERSION]
    #[arg(long, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    pub(crate) image: Option<String>,
    /// Version of Kubernetes
    #[arg(long, value_name = "VERSION", default_value = kiln_provision::build::DEFAULT_KUBERNETES_VERSION)]
    pub(crate) kubernetes_version: String,
    /// Make everything anew, in place of what earlier builds kept
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// kind's kind of source: url, file, release, ci or source; none of them is to be had here
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) source_type: Option<String>,
    /// kind's image to build on; Kiln builds on Debian packages
    #[arg(long, value_name = "IMAGE")]
    pub(crate) base_image: Option<String>,
    /// Architecture of the image; only that of this host
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
}
