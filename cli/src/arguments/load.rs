//! Commands that bring images into nodes: load.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCandidates;
use kiln_provision::cluster::{LoadOptions, LoadSource};

use super::{ClusterName, boolean};
use crate::candidates;

/// `load`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Load {
    /// What to load.
    #[command(subcommand)]
    pub(crate) command: Option<LoadCommand>,
}

/// What can be loaded.
#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Load images of this host: of Docker, Podman or containerd, if there is one, or of Kiln's own store
    DockerImage(LoadDockerImage),
    /// Load the images of archives, as "docker save" and tools for OCI images write them
    ImageArchive(LoadImageArchive),
    /// Load the images of OCI image layouts
    OciLayout(LoadOciLayout),
}

/// Which nodes get the images, and how.
#[derive(Debug, Args)]
pub(crate) struct LoadTarget {
    #[command(flatten)]
    name: ClusterName,
    /// Only these nodes (may be repeated) [default: all of the cluster]
    #[arg(long, visible_alias = "node", value_name = "NODE", value_delimiter = ',',
        add = ArgValueCandidates::new(candidates::nodes))]
    nodes: Vec<String>,
    /// Unpack the images now, not when their first container starts
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    unpack: bool,
}

impl LoadTarget {
    /// The same for the library.
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            cluster: self.name.or_default().to_owned(),
            nodes: self.nodes.iter().filter(|node| !node.is_empty()).cloned().collect(),
            unpack: self.unpack,
        }
    }
}

/// `load docker-image`
#[derive(Debug, Args)]
pub(crate) struct LoadDockerImage {
    /// The images, by name
    #[arg(required = true, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    images: Vec<String>,
    #[command(flatten)]
    pub(crate) target: LoadTarget,
}

impl LoadDockerImage {
    /// Where the images come from.
    pub(crate) fn sources(&self) -> Vec<LoadSource> {
        self.images.iter().cloned().map(LoadSource::Name).collect()
    }
}

/// `load image-archive`
#[derive(Debug, Args)]
pub(crate) struct LoadImageArchive {
    /// The archives, plain or compressed with gzip or zstd ("-" reads one from standard input)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    pub(crate) target: LoadTarget,
}

impl LoadImageArchive {
    /// Where the images come from.
    pub(crate) fn sources(&self) -> Vec<LoadSource> {
        let source = |file: &OsString| match file.as_os_str() {
            file if file == OsStr::new("-") => LoadSource::StandardInput,
            file => LoadSource::Archive(PathBuf::from(file)),
        };
        self.files.iter().map(source).collect()
    }
}

/// `load oci-layout`
#[derive(Debug, Args)]
pub(crate) struct LoadOciLayout {
    /// The directories, with "index.json" and "blobs" in each
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) target: LoadTarget,
}

impl LoadOciLayout {
    /// Where the images come from.
    pub(crate) fn sources(&self) -> Vec<LoadSource> {
        self.directories.iter().cloned().map(LoadSource::Layout).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn load(line: &str) -> (Vec<LoadSource>, LoadOptions) {
        let arguments = Arguments::try_parse_from(line.split(' ')).expect(line);
        let Some(Command::Load(Load { command: Some(command) })) = arguments.command else {
            panic!("{line}");
        };
        match command {
            LoadCommand::DockerImage(arguments) => (arguments.sources(), arguments.target.options()),
            LoadCommand::ImageArchive(arguments) => (arguments.sources(), arguments.target.options()),
            LoadCommand::OciLayout(arguments) => (arguments.sources(), arguments.target.options()),
        }
    }

    #[test]
    fn images_go_to_all_nodes_of_the_default_cluster() {
        let (sources, options) = load("kiln load docker-image a:1 b");
        assert_eq!(sources, ["a:1", "b"].map(|name| LoadSource::Name(name.to_owned())));
        let all = LoadOptions { cluster: "kind".to_owned(), nodes: Vec::new(), unpack: false };
        assert_eq!(options, all);
    }

    #[test]
    fn nodes_are_lists_that_may_be_repeated() {
        for line in [
            "kiln load image-archive x.tar -n dev --nodes a,b --nodes=c --unpack",
            "kiln load image-archive --name dev --unpack=true --node a --node b,c x.tar",
        ] {
            let (sources, options) = load(line);
            assert_eq!(sources, [LoadSource::Archive("x.tar".into())], "{line}");
            assert_eq!(options.cluster, "dev", "{line}");
            assert_eq!(options.nodes, ["a", "b", "c"], "{line}");
            assert!(options.unpack, "{line}");
        }
        assert_eq!(load("kiln load oci-layout d --nodes=").1.nodes, [""; 0]);
    }

    #[test]
    fn a_dash_is_standard_input() {
        let (sources, _) = load("kiln load image-archive ./- -");
        assert_eq!(sources, [LoadSource::Archive("./-".into()), LoadSource::StandardInput]);
        assert_eq!(load("kiln load oci-layout -").0, [LoadSource::Layout("-".into())]);
    }

    #[test]
    fn something_must_be_named() {
        for line in ["kiln load docker-image", "kiln load image-archive", "kiln load oci-layout --unpack"] {
            let _ = Arguments::try_parse_from(line.split(' ')).expect_err(line);
        }
    }
}
