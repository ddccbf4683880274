//! Commands about images: images, push, build.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use clap_complete::engine::ArgValueCandidates;

use kiln_provision::registry::{Mirror, RegistryOptions};

use super::{ClusterName, Output, boolean};
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
    /// List the images of nodes, or those in this host's store
    #[command(visible_alias = "list")]
    Ls(ImagesLs),
    /// Pull images from registries into this host's store
    ///
    /// What is there already is not downloaded again, and what was cut is continued. Credentials are Docker's: those of
    /// ~/.docker/config.json, or of the directory that DOCKER_CONFIG names, and the helpers named there. HTTPS_PROXY,
    /// HTTP_PROXY and NO_PROXY are heeded, and SSL_CERT_FILE.
    Pull(ImagesPull),
    /// Remove images from this host's store
    ///
    /// The content goes with the last name that leads to it. What nodes stand on stays.
    #[command(visible_alias = "remove")]
    Rm(ImagesRm),
    /// Show everything about images in this host's store
    Inspect(ImagesInspect),
    /// Remove from this host's store what no name and no node uses
    Prune,
    /// Read this host's store, and check that nothing in it is damaged
    ///
    /// Blobs are compared with their digests, images must be complete, and unpacked layers are compared with their archives,
    /// file by file.
    Verify(ImagesVerify),
}

/// `images pull`
#[derive(Debug, Args)]
pub(crate) struct ImagesPull {
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Ask this server first: for the images of REGISTRY, or all of them (may be repeated)
    #[arg(long = "mirror", value_name = "[REGISTRY=]URL")]
    pub(crate) mirrors: Vec<Mirror>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// How registries are reached.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Trust the authorities in this PEM file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Speak to the registry without TLS; on loopback that happens by itself
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
        value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) plain_http: bool,
}

impl Connection {
    /// The options of the library.
    pub(crate) fn options(&self, mirrors: &[Mirror]) -> RegistryOptions {
        RegistryOptions {
            mirrors: mirrors.to_vec(),
            ca_file: self.ca_file.clone().filter(|path| !path.as_os_str().is_empty()),
            plain_http: self.plain_http,
            ..RegistryOptions::default()
        }
    }
}

/// `images rm`
#[derive(Debug, Args)]
pub(crate) struct ImagesRm {
    /// The images
    #[arg(value_name = "IMAGE", required = true, add = ArgValueCandidates::new(candidates::images))]
    pub(crate) images: Vec<String>,
    /// Also those that clusters use: the names go, what the nodes stand on stays
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true",
        value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) force: bool,
}

/// `images inspect`
#[derive(Debug, Args)]
pub(crate) struct ImagesInspect {
    /// The images
    #[arg(value_name = "IMAGE", required = true, add = ArgValueCandidates::new(candidates::images))]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `images verify`
#[derive(Debug, Args)]
pub(crate) struct ImagesVerify {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `push`
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The image in this host's store
    #[arg(value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    pub(crate) image: String,
    /// What it is to be called, registry included [default: as it is called here]
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
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
    /// List the images in this host's store instead, with what they take
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
    /// Build a node image from a release of Kubernetes, a source tree or an archive of its programs
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
    /// A version, the directory of a source tree, or the file or address of a kubernetes-server-linux-ARCH.tar.gz
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub(crate) source: Option<String>,
    /// Name of the image [default: kiln/node:VERSION]
    #[arg(long, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    pub(crate) image: Option<String>,
    #[arg(long, value_name = "VERSION", help = format!(
        "Version of Kubernetes; with a source tree, the one its programs report [default: {}]",
        kiln_provision::build::DEFAULT_KUBERNETES_VERSION,
    ))]
    pub(crate) kubernetes_version: Option<String>,
    /// Make everything anew, in place of what earlier builds kept
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// What SOURCE is: url, file, release or source, instead of what it looks like
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) source_type: Option<String>,
    /// Image of this host's store to build on, in place of Debian packages
    #[arg(long, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    pub(crate) base_image: Option<String>,
    /// Architecture of the image; only that of this host
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
}
