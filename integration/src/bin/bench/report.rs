//! The measurements for people and for programs.

use std::io::{Write, stderr, stdout};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{Result, marks};

/// One creation and deletion. Times are from the start of `kiln create`, but for the deletion's own.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    /// `kiln create` has ended.
    pub(crate) created_seconds: f64,
    /// The API is ready.
    pub(crate) api_seconds: f64,
    /// The node is Ready.
    pub(crate) node_seconds: f64,
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

impl Run {
    /// The marks in one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "created {:.1} s, api {:.1}, node {:.1}, dns {:.1}, pod {:.1}; {:.1} CPU-s; deleted in {:.2} s",
            self.created_seconds,
            self.api_seconds,
            self.node_seconds,
            self.dns_seconds,
            self.pod_seconds,
            self.cpu_seconds,
            self.delete_seconds
        )
    }
}

type Row = (&'static str, &'static str, usize, fn(&Run) -> Option<f64>);

/// Name, unit, digits after the point, value.
const ROWS: [Row; 13] = [
    ("create has ended", "s", 1, |run| Some(run.created_seconds)),
    ("API ready", "s", 1, |run| Some(run.api_seconds)),
    ("node Ready", "s", 1, |run| Some(run.node_seconds)),
    ("CoreDNS 2/2 Ready", "s", 1, |run| Some(run.dns_seconds)),
    ("pod's lookup answered", "s", 1, |run| Some(run.pod_seconds)),
    ("CPU to API ready", "CPU-s", 1, |run| Some(run.api_cpu_seconds)),
    ("CPU to the end", "CPU-s", 1, |run| Some(run.cpu_seconds)),
    ("  of it kiln create", "CPU-s", 2, |run| Some(run.create_cpu_seconds)),
    ("peak memory with page cache", "MiB", 0, |run| Some(mebibytes(run.peak_bytes))),
    ("memory without page cache", "MiB", 0, |run| run.anonymous_bytes.map(mebibytes)),
    ("disk of the cluster alone", "MiB", 1, |run| Some(mebibytes(run.disk_bytes))),
    ("disk, by free space", "MiB", 1, |run| Some(mebibytes(run.disk_free_bytes))),
    ("delete", "s", 2, |run| Some(run.delete_seconds)),
];

/// Prints minimum, median and maximum of each measurement as a table that Markdown takes too.
pub(crate) fn table(runs: &[Run]) -> Result<()> {
    let mut text = format!("\n| {} creates | min | median | max | |\n|---|--:|--:|--:|---|\n", runs.len());
    for (name, unit, digits, value) in ROWS {
        let values: Vec<f64> = runs.iter().filter_map(value).collect();
        if let Some((least, middle, most)) = spread(values) {
            text.push_str(&format!(
                "| {name} | {least:.digits$} | {middle:.digits$} | {most:.digits$} | {unit} |\n"
            ));
        }
    }
    let period = marks::PERIOD.as_millis();
    text.push_str(&format!(
        "\nAPI ready is asked every {period} ms, node and CoreDNS are watched, the pod's answer has "
    ));
    text.push_str("its own time stamp.\n");
    result(&text)
}

/// The machine the measurements are of.
pub(crate) fn machine() -> Value {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "model": model.map(|(_, name)| name),
        "memory_kib": memory.and_then(|kibibytes| kibibytes.parse::<u64>().ok()),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cgroup": if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" },
        "time": jiff::Timestamp::now().to_string(),
    })
}

/// A line of progress.
pub(crate) fn tell(line: &str) {
    // Nobody may be there to read it, and that is no reason to stop.
    let _ = writeln!(stderr(), "{line}");
}

/// A part of the result.
pub(crate) fn result(text: &str) -> Result<()> {
    Ok(stdout().write_all(text.as_bytes())?)
}

fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        *values.get(middle)?
    } else {
        (values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0
    };
    Some((*values.first()?, median, *values.last()?))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
        assert_eq!(spread(Vec::new()), None);
    }
}
