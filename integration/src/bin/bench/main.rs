//! `make bench`: creates a cluster some times over and tells how long it took and what it used, seen from outside.
//!
//! Nothing of Kiln's own timing is used. Time zero is the start of the `kiln create` process. The marks:
//!
//! * *created*: the process has ended (no `--wait`);
//! * *api*: `/readyz` answered "ok" through the published port, asked every [`marks::PERIOD`];
//! * *node*: the node's Ready condition, by a watch;
//! * *dns*: both CoreDNS pods Ready, by a watch;
//! * *pod*: a pod that was made at the *node* mark got an answer for `kubernetes.default`, by the time stamp that the
//!   node's container runtime gave its line of log.

#![forbid(unsafe_code)]

mod marks;
mod report;
mod usage;

use std::{
    error::Error,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Instant, SystemTime},
};

use clap::Parser;
use kiln_integration::{Kiln, disk, fixture};
use marks::Marks;
use report::Run;
use serde_json::json;

/// As the clusters of tests, so that what a killed run leaves is removed by the next test too.
const CLUSTER: &str = "it-bench";
const NODE: &str = "it-bench-control-plane";

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Measure how long creating and deleting a cluster takes, and what it uses.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many clusters to create, one after another
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Node image, in place of the default one
    #[arg(long)]
    image: Option<String>,
    /// Write all measurements to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::tell(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("it-bench-").tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let kiln = Kiln::new(Kiln::locate()?, vec![("KUBECONFIG".to_owned(), kubeconfig.into())]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What a killed run may have left would be in the way.
    let _ = kiln.run(&["delete", "cluster", "--name", CLUSTER]);

    let mut runs = Vec::new();
    for number in 1..=arguments.runs {
        let result = runtime.block_on(measure(&kiln, arguments.image.as_deref(), directory.path()));
        let started = Instant::now();
        let deleted = kiln.run(&["delete", "cluster", "--name", CLUSTER]);
        let delete = started.elapsed().as_secs_f64();
        let mut measured = result?;
        if deleted.code() != 0 {
            return Err(deleted.report().into());
        }
        measured.delete_seconds = delete;
        report::tell(&format!("run {number} of {}: {}", arguments.runs, measured.line()));
        runs.push(measured);
    }

    report::table(&runs)?;
    let json = json!({ "machine": report::machine(), "runs": runs });
    let text = serde_json::to_string_pretty(&json)?;
    if let Some(file) = &arguments.json {
        fs_err::write(file, format!("{text}\n"))?;
    }
    report::result(&format!("\n{text}\n"))
}

async fn measure(kiln: &Kiln, image: Option<&str>, directory: &Path) -> Result<Run> {
    let (state_root, _) = fixture::roots();
    // The port is chosen here, so that the API can be asked before there is a kubeconfig for it.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config = directory.join("config.yaml");
    let text = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnetworking:\n  apiServerPort: ";
    fs_err::write(&config, format!("{text}{port}\n"))?;

    let free = disk::free_bytes(&state_root);
    let own_cpu = usage::children_cpu_seconds()?;
    let mut command = tokio::process::Command::from(kiln.command());
    command.args(["create", "cluster", "--name", CLUSTER, "--config"]).arg(&config);
    if let Some(image) = image {
        command.args(["--image", image]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);

    let start = SystemTime::now();
    let child = command.spawn()?;
    let peak = usage::Peak::watch(CLUSTER);
    let create = async {
        let output = child.wait_with_output().await?;
        let seconds = marks::since(start);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok::<f64, Box<dyn Error>>(seconds)
    };
    let admin = state_root.join("clusters").join(CLUSTER).join("nodes").join(NODE).join("upper");
    let observe = Marks::observe(start, admin.join("etc/kubernetes/admin.conf"), port, CLUSTER);
    let (created_seconds, marks) = tokio::try_join!(create, observe)?;

    let create_cpu_seconds = usage::children_cpu_seconds()? - own_cpu;
    let cluster_cpu_seconds = usage::cpu_seconds(CLUSTER)?;
    let shared = disk::linked_files(&state_root.join("images"));
    Ok(Run {
        created_seconds,
        api_seconds: marks.api,
        node_seconds: marks.node,
        dns_seconds: marks.dns,
        pod_seconds: marks.pod,
        api_cpu_seconds: marks.api_cpu,
        cpu_seconds: cluster_cpu_seconds + create_cpu_seconds,
        create_cpu_seconds,
        peak_bytes: peak.bytes().await,
        anonymous_bytes: usage::anonymous_bytes(CLUSTER),
        disk_bytes: disk::own_bytes(&state_root.join("clusters").join(CLUSTER), &shared),
        disk_free_bytes: free.saturating_sub(disk::free_bytes(&state_root)),
        delete_seconds: 0.0,
    })
}
