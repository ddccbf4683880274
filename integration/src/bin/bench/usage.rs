//! What the processes of a cluster use, by its control groups.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

use crate::Result;

/// How often memory is looked at where the kernel keeps no maximum (cgroup v2 before Linux 5.19).
const PERIOD: Duration = Duration::from_millis(100);

/// CPU time of all processes of this one's that have ended and were waited for: `kiln` itself, that is.
pub(crate) fn children_cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// CPU time of all processes of a cluster so far.
pub(crate) fn cpu_seconds(cluster: &str) -> Result<f64> {
    // On a hybrid host two hierarchies count the same processes: the larger figure, not the sum.
    let mut most: Option<f64> = None;
    for directory in cgroups(cluster)? {
        let legacy = number(&directory.join("cpuacct.usage")).map(|nanoseconds| nanoseconds as f64 / 1e9);
        let unified =
            field(&directory.join("cpu.stat"), "usage_usec").map(|microseconds| microseconds as f64 / 1e6);
        for value in [legacy, unified].into_iter().flatten() {
            most = Some(most.map_or(value, |most| most.max(value)));
        }
    }
    most.ok_or_else(|| format!("no control group counts the CPU time of cluster {cluster}").into())
}

/// Memory that is no page cache and belongs to the cluster now.
pub(crate) fn anonymous_bytes(cluster: &str) -> Option<u64> {
    let directories = cgroups(cluster).ok()?;
    let stats = directories.iter().map(|directory| directory.join("memory.stat"));
    stats.filter_map(|stat| field(&stat, "total_rss").or_else(|| field(&stat, "anon"))).max()
}

/// The most memory that a cluster has had at once, page cache included.
#[derive(Debug)]
pub(crate) struct Peak {
    cluster: String,
    sampled: Arc<AtomicU64>,
    sampler: tokio::task::JoinHandle<()>,
}

impl Peak {
    /// Begins to look.
    pub(crate) fn watch(cluster: &str) -> Self {
        let sampled = Arc::new(AtomicU64::new(0));
        let sampler = tokio::spawn({
            let (sampled, cluster) = (Arc::clone(&sampled), cluster.to_owned());
            async move {
                loop {
                    sampled.fetch_max(memory(&cluster, CURRENT).unwrap_or(0), Ordering::Relaxed);
                    // The kernel does not tell when a maximum is reached.
                    tokio::time::sleep(PERIOD).await;
                }
            }
        });
        Self { cluster: cluster.to_owned(), sampled, sampler }
    }

    /// Stops looking: the kernel's own maximum where it keeps one, the sampled one elsewhere.
    pub(crate) async fn bytes(self) -> u64 {
        self.sampler.abort();
        memory(&self.cluster, MAXIMUM).unwrap_or_else(|| self.sampled.load(Ordering::Relaxed))
    }
}

const CURRENT: [&str; 2] = ["memory.usage_in_bytes", "memory.current"];
const MAXIMUM: [&str; 2] = ["memory.max_usage_in_bytes", "memory.peak"];

fn memory(cluster: &str, files: [&str; 2]) -> Option<u64> {
    let directories = cgroups(cluster).ok()?;
    directories.iter().flat_map(|directory| files.map(|file| number(&directory.join(file)))).flatten().max()
}

/// The cluster's directory in every hierarchy that has one.
fn cgroups(cluster: &str) -> Result<Vec<PathBuf>> {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| {
        let (place, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup").then(|| place.split(' ').nth(4)).flatten()
    });
    let directories = points.map(|point| Path::new(point).join("kiln").join(cluster));
    Ok(directories.filter(|directory| directory.is_dir()).collect())
}

fn number(file: &Path) -> Option<u64> {
    fs_err::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    let text = fs_err::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}
