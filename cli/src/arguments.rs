//! The command line, as types. One file per noun; this one has the root, the global flags and what is shared.
//!
//! Every command line of kind is one of Kiln's: the same words, flags and defaults. Three rules of kind's flag library
//! are kept because scripts use them: an empty value is as good as none (`--name ""`), a switch may be given a value
//! (`--retain=false`), and of a repeated flag the last one counts.

mod bench;
mod cluster;
mod config;
mod host;
mod image;
mod load;
mod logs;
mod node;
mod pool;
mod registry;
mod trace;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

pub(crate) use bench::{Bench, BenchBoot, BenchCommand, BenchFormat};
pub(crate) use cluster::{
    Bootstrap, Create, CreateCluster, CreateCommand, Delete, DeleteCluster, DeleteClusters, DeleteCommand,
    Export, ExportCommand, ExportKubeconfig, ExportLogs, Get, GetClusters, GetCommand, GetKubeconfig,
    GetNodes, PodNetwork, Preview,
};
pub(crate) use config::{Config, ConfigCommand, ConfigInit, ConfigRender, ConfigValidate};
pub(crate) use host::{Completion, CompletionShell, Df, Doctor, Man};
pub(crate) use image::{
    Build, BuildCommand, BuildNodeImage, BuildRegistryImage, Images, ImagesCommand, ImagesInspect, ImagesLs,
    ImagesPull, ImagesRm, ImagesVerify, Push,
};
pub(crate) use load::{Load, LoadCommand, LoadTarget};
pub(crate) use logs::{Logs, Top};
pub(crate) use node::{Copy, Exec, Kubectl, Ps, Shell};
pub(crate) use pool::{Pool, PoolCommand, PoolDrain, PoolFill, PoolLs};
pub(crate) use registry::{Registry, RegistryCommand, RegistryCreate, RegistryDelete, RegistryLs};
pub(crate) use trace::{Trace, TraceCommand, TraceShow};

use crate::candidates;

/// Makes a `--version`; what it prints is in `usage.rs`.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Local Kubernetes clusters in Linux namespaces, with no Docker and no daemon.
///
/// Kiln takes the command lines and the configuration files of kind. Creating and using clusters needs root.
#[derive(Debug, Parser)]
#[command(name = "kiln", version = VERSION, max_term_width = 100, args_override_self = true)]
pub(crate) struct Arguments {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do; nothing means help.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Flags that every command takes, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Say more: 1 what is done, 2 how, 3 and above for debugging
    #[arg(
        short,
        long,
        global = true,
        value_name = "LEVEL",
        default_value_t = 0,
        hide_default_value = true,
        allow_negative_numbers = true
    )]
    verbosity: i32,
    /// Say nothing, not even errors: only results and the exit status
    #[arg(short, long, global = true, num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", value_name = "BOOL", value_parser = boolean, hide_default_value = true)]
    pub(crate) quiet: bool,
    /// State directory [default: /var/lib/kiln]
    #[arg(long, global = true, value_name = "DIR", env = "KILN_ROOT", hide_env_values = true)]
    root: Option<OsString>,
}

impl Global {
    /// The verbosity, 0 to 255.
    pub(crate) fn verbosity(&self) -> u8 {
        u8::try_from(self.verbosity.clamp(0, 255)).unwrap_or(u8::MAX)
    }

    /// The state root that was asked for, if one was.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref().and_then(given_path)
    }
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a cluster
    Create(Create),
    /// Delete clusters
    Delete(Delete),
    /// List clusters and nodes, print a kubeconfig
    Get(Get),
    /// Write a cluster's kubeconfig or logs
    Export(Export),
    /// Run a command in a node
    Exec(Exec),
    /// Open a shell in a node
    Shell(Shell),
    /// Copy files from or to a node
    ///
    /// One side is NODE:PATH, the other a path of this host, or "-" for a tar archive on standard input or output. What is
    /// copied goes into a directory that is there, and is named by the last part of the path otherwise; "DIR/." stands for what
    /// is in DIR. Modes, owners and times are kept. Links are copied as links; sockets and devices are left out. A path of this
    /// host with a colon in it starts with "./" or "/".
    #[command(name = "cp")]
    Copy(Copy),
    /// Show the logs of a node
    ///
    /// The journal of a node that runs, or the console of any. A load balancer has only a console.
    Logs(Logs),
    /// Show what nodes use: processors, memory, processes, disk
    ///
    /// Processors are busy ones, on average over the interval. Memory is without file pages that could be taken back at once.
    /// Disk is a node's own: what it shares with the image store does not count.
    Top(Top),
    /// Show what clusters, images and the build cache take of the disk
    ///
    /// Disk is what would be free without them, each file once. Shared is what nodes have in common with the image store: it
    /// takes no space of their own.
    Df(Df),
    /// What happened when while a cluster was created
    Trace(Trace),
    /// Measure how long clusters take
    Bench(Bench),
    /// List the processes of a node
    Ps(Ps),
    /// Run the cluster's own kubectl
    ///
    /// It runs in a control-plane node, so paths name files of that node: pass manifests on standard input, as in
    /// "kiln kubectl apply -f - < FILE". Kiln's own flags go before kubectl's command.
    Kubectl(Kubectl),
    /// Load images into nodes
    Load(Load),
    /// Images in nodes and on this host
    Images(Images),
    /// Standby clusters, booted ahead for later creates to take
    Pool(Pool),
    /// Registries on this host, for the nodes of all clusters
    Registry(Registry),
    /// Push an image of this host's store to a registry
    ///
    /// What the registry has is not sent again. Credentials are Docker's, as for "kiln images pull".
    Push(Push),
    /// Build a node image, or the image of a registry
    Build(Build),
    /// Begin, check and render cluster configurations
    Config(Config),
    /// Check whether this host can run clusters
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completion(Completion),
    /// Write the manual pages
    Man(Man),
    /// Print the version
    Version,
}

/// The cluster that a command is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterName {
    /// The cluster [default: kind]
    #[arg(
        short,
        long = "name",
        value_name = "CLUSTER",
        env = "KIND_CLUSTER_NAME",
        hide_env_values = true,
        id = "cluster-name",
        add = ArgValueCandidates::new(candidates::clusters)
    )]
    name: Option<String>,
}

impl ClusterName {
    /// The name as given by flag or environment, if it was.
    pub(crate) fn given(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.is_empty())
    }

    /// The name, or the default one.
    pub(crate) fn or_default(&self) -> &str {
        self.given().unwrap_or("kind")
    }
}

/// Where the user's kubeconfig is.
#[derive(Debug, Args)]
pub(crate) struct KubeconfigPath {
    /// The kubeconfig to change [default: $KUBECONFIG or ~/.kube/config]
    #[arg(long = "kubeconfig", value_name = "FILE", id = "kubeconfig-path")]
    path: Option<OsString>,
}

impl KubeconfigPath {
    /// The file, where one was given.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref().and_then(given_path)
    }
}

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people and for line-based tools.
    #[default]
    Text,
    /// For people, with everything that is known.
    Wide,
    /// For programs; fields are only ever added.
    Json,
    /// The same as YAML.
    Yaml,
}

/// The `-o` flag of listings.
#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// How to print the result
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        id = "format"
    )]
    pub(crate) format: Format,
}

/// A path, unless it is empty.
fn given_path(value: &OsStr) -> Option<&Path> {
    (!value.is_empty()).then(|| Path::new(value))
}

/// The words that kind's flag library takes for a switch.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(String::from("a switch is either true or false")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    fn command(line: &str) -> Command {
        parse(line).expect(line).command.expect(line)
    }

    #[test]
    fn definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_go_anywhere() {
        for line in ["kiln -v 3 -q --root /x get clusters", "kiln get clusters -v=3 --quiet --root=/x"] {
            let arguments = parse(line).expect(line);
            assert_eq!(arguments.global.verbosity(), 3, "{line}");
            assert!(arguments.global.quiet, "{line}");
            assert_eq!(arguments.global.root(), Some(Path::new("/x")), "{line}");
        }
        assert_eq!(parse("kiln version -v -1").expect("negative").global.verbosity(), 0);
        assert_eq!(parse("kiln version --verbosity 1000").expect("large").global.verbosity(), 255);
    }

    #[test]
    fn switches_take_an_optional_value() {
        let retain = |line| match command(line) {
            Command::Create(Create { command: Some(CreateCommand::Cluster(cluster)) }) => cluster.retain,
            other => panic!("{other:?}"),
        };
        assert!(!retain("kiln create cluster"));
        assert!(retain("kiln create cluster --retain"));
        assert!(retain("kiln create cluster --retain=1"));
        assert!(!retain("kiln create cluster --retain=false"));
        let error = parse("kiln create cluster --retain=maybe").expect_err("not a boolean");
        assert_eq!(error.kind(), ErrorKind::ValueValidation);
    }

    #[test]
    fn switches_combine_with_other_short_flags() {
        let arguments = parse("kiln delete clusters -Aq").expect("combined");
        assert!(arguments.global.quiet);
        match arguments.command {
            Some(Command::Delete(Delete { command: Some(DeleteCommand::Clusters(clusters)) })) => {
                assert!(clusters.all);
                assert!(clusters.names.is_empty());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn empty_values_are_no_values() {
        let arguments = Arguments::try_parse_from([
            "kiln",
            "create",
            "cluster",
            "--name",
            "",
            "--config=",
            "--kubeconfig",
            "",
        ])
        .expect("empty values");
        match arguments.command {
            Some(Command::Create(Create { command: Some(CreateCommand::Cluster(cluster)) })) => {
                assert_eq!(cluster.name.given(), None);
                assert_eq!(cluster.name.or_default(), "kind");
                assert_eq!(cluster.config(), None);
                assert_eq!(cluster.kubeconfig.path(), None);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn groups_parse_without_a_sub_command() {
        for line in [
            "kiln create",
            "kiln delete",
            "kiln get",
            "kiln export",
            "kiln load",
            "kiln images",
            "kiln registry",
            "kiln build",
            "kiln config",
        ] {
            parse(line).expect(line);
        }
        let error = parse("kiln get nods").expect_err("misspelt");
        assert_eq!(error.kind(), ErrorKind::InvalidSubcommand);
        assert!(parse("kiln").expect("bare").command.is_none());
    }

    #[test]
    fn listings_take_a_format() {
        for line in ["kiln get nodes -o json", "kiln get nodes --output=json"] {
            match command(line) {
                Command::Get(Get { command: Some(GetCommand::Nodes(nodes)) }) => {
                    assert_eq!(nodes.output.format, Format::Json, "{line}");
                }
                other => panic!("{other:?}"),
            }
        }
        for format in ["text", "wide", "json", "yaml"] {
            for listing in ["get clusters", "get nodes", "images ls", "registry ls", "doctor"] {
                parse(&format!("kiln {listing} -o {format}")).expect(listing);
            }
        }
        parse("kiln images ls -o json --node a,b").expect("images");
        parse("kiln images ls --host --node a").expect_err("one or the other");
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        match command("kind create cluster --name a --retain --wait 1s -n=b --retain=false --wait=2s") {
            Command::Create(Create { command: Some(CreateCommand::Cluster(cluster)) }) => {
                assert_eq!(cluster.name.given(), Some("b"));
                assert!(!cluster.retain);
                assert_eq!(cluster.wait.as_secs(), 2);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(parse("kind -v 1 get clusters -v 2").expect("twice").global.verbosity(), 2);
    }

    #[test]
    fn names_are_given_as_kind_takes_them() {
        for line in ["-n x", "-nx", "-n=x", "--name x", "--name=x"] {
            match command(&format!("kind get nodes {line}")) {
                Command::Get(Get { command: Some(GetCommand::Nodes(nodes)) }) => {
                    assert_eq!(nodes.name.given(), Some("x"), "{line}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
