//! One creation and deletion of a cluster, watched from outside.

use std::{process::Stdio, time::SystemTime};

use kiln_integration::{disk, fixture};
use serde::Serialize;

use crate::{
    Result,
    marks::{self, Marks},
    shape::Shape,
    site::{CLUSTER, Site},
    usage,
};

/// The first control plane, whichever shape the cluster has.
const NODE: &str = "it-bench-control-plane";

/// What was measured. Times are from the start of `kiln create`, but for the deletion's own.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Boot {
    /// `kiln create` has ended.
    pub(crate) created_seconds: f64,
    /// The API is ready.
    pub(crate) api_seconds: f64,
    /// All nodes are Ready.
    pub(crate) nodes_seconds: f64,
    /// Both CoreDNS pods are Ready.
    pub(crate) dns_seconds: f64,
    /// A pod has got an answer about a Service.
    pub(crate) pod_seconds: f64,
    /// CPU time of the cluster up to the API's mark.
    pub(crate) api_cpu_seconds: f64,
    /// CPU time of the cluster and of `kiln create` up to the last mark.
    pub(crate) cpu_seconds: f64,
    /// The part of `kiln create` in it.
    pub(crate) create_cpu_seconds: f64,
    /// The most memory at once, page cache included.
    pub(crate) peak_bytes: u64,
    /// Memory without page cache at the last mark.
    pub(crate) anonymous_bytes: Option<u64>,
    /// What the cluster's directory holds for itself at the last mark.
    pub(crate) disk_bytes: u64,
    /// By how much the file system has become fuller, by whatever cause.
    pub(crate) disk_free_bytes: u64,
    /// `kiln delete cluster`.
    pub(crate) delete_seconds: f64,
}

impl Boot {
    /// Creates a cluster, waits for all marks and deletes it.
    pub(crate) fn measure(site: &Site, runtime: &tokio::runtime::Runtime, shape: Shape) -> Result<Self> {
        let measured = runtime.block_on(create(site, shape));
        let deleted = site.delete();
        // Of two errors the first is the one to tell.
        let measured = measured?;
        Ok(Self { delete_seconds: deleted?, ..measured })
    }

    /// The marks in one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "created {:.1} s, api {:.1}, nodes {:.1}, dns {:.1}, pod {:.1}; {:.1} CPU-s; deleted in {:.2} s",
            self.created_seconds,
            self.api_seconds,
            self.nodes_seconds,
            self.dns_seconds,
            self.pod_seconds,
            self.cpu_seconds,
            self.delete_seconds
        )
    }
}

async fn create(site: &Site, shape: Shape) -> Result<Boot> {
    let (state_root, _) = fixture::roots();
    let free = disk::free_bytes(&state_root);
    let own_cpu = usage::children_cpu_seconds()?;
    let (command, port) = site.create(shape)?;
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);

    let start = SystemTime::now();
    let child = command.spawn()?;
    let peak = usage::Peak::watch(CLUSTER);
    let create = async {
        let output = child.wait_with_output().await?;
        let seconds = marks::since(start);
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("kiln create: {}\n{told}", output.status).into());
        }
        Ok::<f64, Box<dyn std::error::Error>>(seconds)
    };
    let admin = state_root.join("clusters").join(CLUSTER).join("nodes").join(NODE).join("upper");
    let admin = admin.join("etc/kubernetes/admin.conf");
    let observe = Marks::observe(start, admin, port, CLUSTER, shape.nodes());
    let (created_seconds, marks) = tokio::try_join!(create, observe)?;

    let create_cpu_seconds = usage::children_cpu_seconds()? - own_cpu;
    let cluster_cpu_seconds = usage::cpu_seconds(CLUSTER)?;
    let shared = disk::linked_files(&state_root.join("images"));
    Ok(Boot {
        created_seconds,
        api_seconds: marks.api,
        nodes_seconds: marks.nodes,
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
