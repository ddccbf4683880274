//! The measurements for people and for programs.

use std::io::{Write, stderr, stdout};

use serde_json::{Value, json};

use crate::{
    Result,
    bars::{self, Row},
    boot::{Boot, Boots},
    load,
    load::Load,
    many::Many,
    pull::Pull,
    shape::Shape,
    throughput::Throughput,
    transfer,
};

type Figure = (&'static str, &'static str, usize, fn(&Boot) -> Option<f64>);

/// Name, unit, digits after the point, value.
const FIGURES: [Figure; 11] = [
    ("create has ended", "s", 1, |boot| Some(boot.created_seconds)),
    ("API ready", "s", 1, |boot| Some(boot.api_seconds)),
    ("first node Ready", "s", 1, |boot| Some(boot.node_seconds)),
    ("all nodes Ready", "s", 1, |boot| Some(boot.nodes_seconds)),
    ("CoreDNS 2/2 Ready", "s", 1, |boot| Some(boot.dns_seconds)),
    ("pod's lookup answered", "s", 1, |boot| Some(boot.pod_seconds)),
    ("CPU to the end", "CPU-s", 1, |boot| boot.cpu_seconds),
    ("taken by other guests meanwhile", "CPU-s", 1, |boot| boot.stolen_seconds),
    ("memory, what can be given back left out", "MiB", 0, |boot| boot.memory_bytes.map(mebibytes)),
    ("disk of the cluster alone", "MiB", 1, |boot| boot.disk_bytes.map(mebibytes)),
    ("delete", "s", 2, |boot| Some(boot.delete_seconds)),
];

/// Prints minimum, median and maximum of each measurement, a table for each shape and way that Markdown takes too; how the
/// shapes compare with one node; and how all that is beside the bars.
pub(crate) fn boots(all: &[Boots], rows: &[Row]) -> Result<()> {
    for Boots { shape, way, runs, kind } in all {
        for (tool, runs) in [("", runs), ("kind: ", kind)].into_iter().filter(|(_, runs)| !runs.is_empty()) {
            let mut text = header(&format!("{tool}{shape} by {way}: {} creates", runs.len()));
            for (name, unit, digits, value) in FIGURES {
                text.push_str(&row(name, runs.iter().filter_map(value).collect(), digits, unit));
            }
            result(&text)?;
        }
    }
    comparison(all)?;
    if all.is_empty() { Ok(()) } else { result(&bars::render(rows)) }
}

fn comparison(all: &[Boots]) -> Result<()> {
    let median = |boots: &Boots| {
        let (_, median, _) = spread(boots.runs.iter().map(|boot| boot.nodes_seconds).collect())?;
        Some(median)
    };
    let mut text = String::new();
    for boots in all.iter().filter(|boots| boots.shape != Shape::ONE_NODE) {
        let one_node = all.iter().find(|one| one.shape == Shape::ONE_NODE && one.way == boots.way);
        if let (Some(many), Some(one)) = (median(boots), one_node.and_then(median)) {
            let (shape, way) = (boots.shape, boots.way);
            text.push_str(&format!("| {shape} by {way} | {many:.1} s | {:.2} |\n", many / one));
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    result(&format!("\n| all nodes Ready | median | of one node's |\n|---|--:|--:|\n{text}"))
}

/// Prints how much each way carries, and which part that is of what a plain veth pair carries to the same receiver.
pub(crate) fn throughput(measured: &Throughput) -> Result<()> {
    const GIBIBYTE: u64 = 1 << 30;
    let Throughput { pod_seconds, plain_wget_seconds, node_port_seconds, plain_seconds } = measured;
    let rates = |seconds: &[f64]| seconds.iter().copied().map(transfer::rate).collect::<Vec<_>>();
    let ways = [
        ("pod to pod of another worker, to wget", pod_seconds),
        ("plain veth pair to host, to wget", plain_wget_seconds),
        ("NodePort to host, to the benchmark", node_port_seconds),
        ("plain veth pair to host, to the benchmark", plain_seconds),
    ];
    let transfers = format!("{} transfers of {} GiB", pod_seconds.len(), transfer::SIZE / GIBIBYTE);
    let mut text = header(&transfers);
    for (name, seconds) in ways {
        text.push_str(&row(name, rates(seconds), 2, "Gbit/s"));
    }
    text.push_str("\n| of a plain veth pair's median | |\n|---|--:|\n");
    for (name, seconds, plain) in [
        ("pod to pod of another worker", pod_seconds, plain_wget_seconds),
        ("NodePort to host", node_port_seconds, plain_seconds),
    ] {
        if let (Some((_, way, _)), Some((_, plain, _))) = (spread(rates(seconds)), spread(rates(plain))) {
            text.push_str(&format!("| {name} | {:.2} |\n", way / plain));
        }
    }
    result(&text)
}

/// Prints what clusters cost that are created at once.
pub(crate) fn many(measured: &Many) -> Result<()> {
    let Many { ready_seconds, memory_bytes, disk_bytes, delete_seconds } = measured;
    let of = |bytes: &[u64]| bytes.iter().copied().map(mebibytes).collect::<Vec<_>>();
    let mut text = header(&format!("{} clusters at once, by template", ready_seconds.len()));
    text.push_str(&row("created and Ready", ready_seconds.clone(), 1, "s"));
    text.push_str(&row("memory of each, what can be given back left out", of(memory_bytes), 0, "MiB"));
    text.push_str(&row("disk of each alone", of(disk_bytes), 1, "MiB"));
    text.push_str(&format!("\nDeleting all of them takes {delete_seconds:.1} s.\n"));
    result(&text)
}

/// Prints how long an image takes into nodes, and how that compares.
pub(crate) fn load(measured: &Load) -> Result<()> {
    let Load {
        one_seconds,
        import_seconds,
        unpack_seconds,
        import_unpack_seconds,
        three_seconds,
        present_seconds,
        import_three_seconds,
    } = measured;
    let title = format!("{} images of {} MB", one_seconds.len(), load::SIZE / 1_000_000);
    let mut text = header(&title);
    for (name, seconds) in [
        ("`kiln load` into one node", one_seconds),
        ("`ctr images import --no-unpack` in it", import_seconds),
        ("`kiln load --unpack` into one node", unpack_seconds),
        ("`ctr images import` in it", import_unpack_seconds),
        ("`kiln load` into three nodes", three_seconds),
        ("`ctr images import --no-unpack` in three at once", import_three_seconds),
        ("`kiln load` of what three nodes have", present_seconds),
    ] {
        text.push_str(&row(name, seconds.clone(), 2, "s"));
    }
    text.push_str("\n| medians | |\n|---|--:|\n");
    for (name, seconds, other) in [
        ("three nodes, as a multiple of one", three_seconds, one_seconds),
        ("`ctr` in three nodes, as a multiple of one", import_three_seconds, import_seconds),
        ("three nodes, as a multiple of `ctr` in three", three_seconds, import_three_seconds),
        ("one node, as a multiple of `ctr images import --no-unpack`", one_seconds, import_seconds),
        ("unpacked, as a multiple of `ctr images import`", unpack_seconds, import_unpack_seconds),
    ] {
        if let (Some((_, one, _)), Some((_, other, _))) = (spread(seconds.clone()), spread(other.clone())) {
            text.push_str(&format!("| {name} | {:.2} |\n", one / other));
        }
    }
    result(&text)
}

/// Prints how long an image takes from a registry, and how that compares.
pub(crate) fn pull(measured: &Pull) -> Result<()> {
    let Pull { bytes, kiln_seconds, skopeo_seconds } = measured;
    let mut text = header(&format!("{} pulls of {} MB", kiln_seconds.len(), bytes / 1_000_000));
    text.push_str(&row("`kiln images pull`", kiln_seconds.clone(), 2, "s"));
    if let (Some((_, kiln, _)), Some((_, skopeo, _))) =
        (spread(kiln_seconds.clone()), spread(skopeo_seconds.clone()))
    {
        text.push_str(&row("`skopeo copy` to an OCI layout, and `sync`", skopeo_seconds.clone(), 2, "s"));
        text.push_str(&format!("\nKiln takes {:.2} times as long as skopeo.\n", kiln / skopeo));
    }
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

/// The head of a table of minima, medians and maxima.
fn header(title: &str) -> String {
    format!("\n| {title} | min | median | max | |\n|---|--:|--:|--:|---|\n")
}

/// A row of it; nothing where nothing was measured.
fn row(name: &str, values: Vec<f64>, digits: usize, unit: &str) -> String {
    spread(values).map_or_else(String::new, |(least, middle, most)| {
        format!("| {name} | {least:.digits$} | {middle:.digits$} | {most:.digits$} | {unit} |\n")
    })
}

/// The least, the middle and the largest.
pub(crate) fn spread(mut values: Vec<f64>) -> Option<(f64, f64, f64)> {
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
    fn rows_are_of_what_was_measured() {
        assert_eq!(row("delete", vec![0.5, 0.25], 2, "s"), "| delete | 0.25 | 0.38 | 0.50 | s |\n");
        assert_eq!(row("delete", Vec::new(), 2, "s"), "");
    }

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
        assert_eq!(spread(Vec::new()), None);
    }
}
