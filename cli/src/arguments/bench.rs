//! Measuring clusters: bench.

use std::{ffi::OsString, path::Path, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;

use super::{Bootstrap, given_path};
use crate::{candidates, duration};

/// `bench`
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub(crate) struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Create and delete clusters, and tell how long they take to boot
    ///
    /// Marks are seen from outside: the end of the program, watches on the API, and the time stamp of a pod's own answer about a
    /// Service. One cluster at a time; nothing of it stays.
    Boot(BenchBoot),
}

/// `bench boot`
#[derive(Debug, Args)]
pub(crate) struct BenchBoot {
    /// How many boots count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..1000))]
    pub(crate) runs: u16,
    /// How many come before them, and do not
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(..1000))]
    pub(crate) warm_up: u16,
    /// Cluster configuration, kind.x-k8s.io/v1alpha4
    #[arg(long, value_name = "FILE")]
    config: Option<OsString>,
    /// Image of all nodes, in place of the configuration's
    #[arg(long, value_name = "IMAGE", add = ArgValueCandidates::new(candidates::images))]
    pub(crate) image: Option<String>,
    /// How Kiln's control planes come up. What each came from is part of the result
    #[arg(long, value_enum, value_name = "WAY", default_value = "auto")]
    pub(crate) bootstrap: Bootstrap,
    /// Image of the pod that resolves a Service, with sh and nslookup
    #[arg(long, value_name = "IMAGE", default_value = "docker.io/library/busybox:stable")]
    pub(crate) pod_image: String,
    /// Name of the clusters
    #[arg(short, long, value_name = "CLUSTER", default_value = "kiln-bench")]
    pub(crate) name: String,
    /// How long a boot may take, pod and all
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration::parse)]
    pub(crate) limit: Duration,
    /// Measure another tool too; the two take turns
    #[arg(long, value_enum, value_name = "TOOL")]
    pub(crate) compare: Option<Rival>,
    /// Draw a chart of the times as SVG
    #[arg(long, value_name = "FILE")]
    chart: Option<OsString>,
    /// Fail when a median is so many times that of the baseline, such as 1.1x
    #[arg(long, value_name = "FACTOR", value_parser = factor, requires = "baseline")]
    pub(crate) fail_over: Option<f64>,
    /// What an earlier run has printed with -o json
    #[arg(long, value_name = "FILE", requires = "fail_over")]
    baseline: Option<OsString>,
    /// How to print the result
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: BenchFormat,
}

impl BenchBoot {
    /// The configuration file, where one was given.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref().and_then(given_path)
    }

    /// The file for the chart, where one was given.
    pub(crate) fn chart(&self) -> Option<&Path> {
        self.chart.as_deref().and_then(given_path)
    }

    /// The baseline, where one was given.
    pub(crate) fn baseline(&self) -> Option<&Path> {
        self.baseline.as_deref().and_then(given_path)
    }
}

/// What clusters can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rival {
    /// kind, with docker, podman or nerdctl.
    Kind,
}

/// How measurements are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// A table of least, middle and largest values.
    Text,
    /// A line per run.
    Csv,
    /// For programs; also what --baseline reads.
    Json,
    /// The same as YAML.
    Yaml,
}

/// A factor with or without its `x`.
fn factor(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text);
    match number.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err(String::from("it is a factor, such as 1.1x")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn boot(line: &str) -> Option<BenchBoot> {
        match Arguments::try_parse_from(line.split(' ')).ok()?.command? {
            Command::Bench(Bench { command: Some(BenchCommand::Boot(boot)) }) => Some(boot),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_boot_is_measured_five_times_after_a_warm_up() {
        let plain = boot("kiln bench boot").expect("plain");
        assert_eq!((plain.runs, plain.warm_up, plain.limit.as_secs()), (5, 1, 300));
        assert_eq!((plain.compare, plain.format), (None, BenchFormat::Text));
        assert_eq!(plain.bootstrap, Bootstrap::Auto);
        let kubeadm = boot("kiln bench boot --bootstrap kubeadm").expect("a way");
        assert_eq!(kubeadm.bootstrap, Bootstrap::Kubeadm);
        assert!(boot("kiln bench boot --bootstrap magic").is_none());
        assert!(boot("kiln bench boot --runs 0").is_none());
        let other =
            boot("kiln bench boot --runs 20 --warm-up 0 --compare kind -o csv --chart a.svg").expect("all");
        assert_eq!((other.runs, other.warm_up, other.compare), (20, 0, Some(Rival::Kind)));
        assert_eq!(other.chart(), Some(Path::new("a.svg")));
    }

    #[test]
    fn a_gate_needs_a_factor_and_a_baseline() {
        let gate = boot("kiln bench boot --fail-over 1.1x --baseline b.json").expect("both");
        assert_eq!((gate.fail_over, gate.baseline()), (Some(1.1), Some(Path::new("b.json"))));
        for line in [
            "kiln bench boot --fail-over 1.1x",
            "kiln bench boot --baseline b.json",
            "kiln bench boot --fail-over 0x --baseline b.json",
            "kiln bench boot --fail-over fast --baseline b.json",
            "kiln bench boot --compare k3d",
        ] {
            assert!(boot(line).is_none(), "{line}");
        }
    }
}
