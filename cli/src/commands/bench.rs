//! `bench boot`

use std::collections::BTreeMap;

use kiln_provision::{
    Error,
    bench::{self, Baseline, Boot, BootOptions, MEASURES, Measure, Origin, Series, Slower},
    build,
    cluster::Cancel,
};

use super::{Session, block_on, config};
use crate::{
    arguments::{BenchBoot, BenchFormat, Format},
    failure::{Context, Failure, require_root},
    json,
    progress::Progress,
    signal, table,
};

const FAILED: &str = "failed to measure";

/// Measures boots.
pub(super) fn boot(session: &Session, arguments: &BenchBoot) -> Result<(), Failure> {
    let config = config::load(arguments.config(), None).map_err(|failure| failure.within(FAILED))?;
    let baseline = arguments.baseline().map(Baseline::read).transpose().context(FAILED)?;
    require_root("measuring clusters")?;
    let shell = &session.shell;
    let options = BootOptions {
        program: std::env::current_exe().context("failed to find this program")?,
        name: arguments.name.clone(),
        runs: arguments.runs,
        warm_up: arguments.warm_up,
        image: arguments.image.clone().filter(|image| !image.is_empty()),
        config: arguments.config().map(std::path::absolute).transpose().context(FAILED)?,
        nodes: config.nodes.len(),
        bootstrap: arguments.bootstrap.into(),
        pod_image: arguments.pod_image.clone(),
        limit: arguments.limit,
        compare_kind: arguments.compare.is_some(),
    };
    let all = block_on(async {
        let cancel = Cancel::new();
        signal::watch(shell, &cancel)?;
        let progress = Progress::new(shell);
        let measured = bench::boot(&session.paths, &options, &progress, &cancel).await;
        drop(progress);
        measured.map_err(|error| {
            let failure = Failure::because(FAILED, &error);
            if matches!(error, Error::Interrupted) { failure.into_interrupted() } else { failure }
        })
    })?;
    let image = options.image.clone().unwrap_or_else(|| build::default_image().familiar());
    if let Some(path) = arguments.chart() {
        let title =
            format!("Boots of {image}, {} node{}", options.nodes, if options.nodes == 1 { "" } else { "s" });
        let text = bench::chart(&title, &all).context("failed to draw the chart")?;
        fs_err::write(path, text).context("failed to write the chart")?;
    }
    match arguments.format {
        BenchFormat::Text => shell.result(&render(&all))?,
        BenchFormat::Csv => shell.result(&csv(&all))?,
        BenchFormat::Json => json::print(shell, Format::Json, &items(&all, &image, options.nodes))?,
        BenchFormat::Yaml => json::print(shell, Format::Yaml, &items(&all, &image, options.nodes))?,
    }
    match (baseline, arguments.fail_over) {
        (Some(baseline), Some(factor)) => gate(&bench::slower(&baseline, &all, factor), factor),
        _ => Ok(()),
    }
}

/// Fails when something has become slower.
fn gate(slower: &[Slower], factor: f64) -> Result<(), Failure> {
    if slower.is_empty() {
        return Ok(());
    }
    let line = |worse: &Slower| {
        let Slower { title, unit, before, now } = worse;
        format!("{title} {before:.1} → {now:.1} {unit} ({:.2}x)", now / before)
    };
    let lines: Vec<String> = slower.iter().map(line).collect();
    Err(Failure::new(format!("more than {factor}x the baseline: {}", lines.join(", "))))
}

fn render(all: &[Series]) -> String {
    let mut parts = Vec::new();
    for series in all {
        let title = format!("{}: {}", series.tool, boots(&series.runs)).to_uppercase();
        let rows: Vec<_> = MEASURES.iter().filter_map(|measure| row(measure, series)).collect();
        parts.push(table::render([&title, "MIN", "MEDIAN", "MAX", ""], &rows));
    }
    if let [kiln, kind] = all {
        let rows: Vec<_> = MEASURES.iter().filter_map(|measure| ratio(measure, kiln, kind)).collect();
        parts.push(table::render(["KILN'S MEDIAN OF KIND'S", ""], &rows));
    }
    parts.join("\n")
}

/// How many boots there were, of which origin: `5 boots by kubeadm`.
fn boots(runs: &[Boot]) -> String {
    let of = |origin: Origin| {
        let count = runs.iter().filter(|boot| boot.bootstrap == origin).count();
        let plural = if count == 1 { "" } else { "s" };
        (count > 0).then(|| format!("{count} boot{plural} by {}", origin.as_str()))
    };
    let parts: Vec<String> = [Origin::Kubeadm, Origin::Template].into_iter().filter_map(of).collect();
    parts.join(", ")
}

fn row(measure: &Measure, series: &Series) -> Option<[String; 5]> {
    let spread = bench::spread(measure, &series.runs)?;
    let number = |value: f64| format!("{value:>6.2}");
    let values = [spread.min, spread.median, spread.max].map(number);
    let [least, middle, most] = values;
    Some([measure.title.to_owned(), least, middle, most, measure.unit.to_owned()])
}

fn ratio(measure: &Measure, kiln: &Series, kind: &Series) -> Option<[String; 2]> {
    let (ours, theirs) = (bench::spread(measure, &kiln.runs)?, bench::spread(measure, &kind.runs)?);
    (theirs.median > 0.0).then(|| [measure.title.to_owned(), format!("{:.2}", ours.median / theirs.median)])
}

/// A line per run: the tool, its number, what the control plane came from, and the figures; an empty field where there is none.
fn csv(all: &[Series]) -> String {
    let names: Vec<String> =
        MEASURES.iter().map(|measure| format!("{}_{}", measure.name, suffix(measure))).collect();
    let mut text = format!("tool,run,bootstrap,{}\n", names.join(","));
    for series in all {
        for (index, boot) in series.runs.iter().enumerate() {
            let value =
                |measure: &Measure| (measure.of)(boot).map(|value| format!("{value:.3}")).unwrap_or_default();
            let values: Vec<String> = MEASURES.iter().map(value).collect();
            let origin = boot.bootstrap.as_str();
            text.push_str(&format!("{},{},{origin},{}\n", series.tool, index + 1, values.join(",")));
        }
    }
    text
}

fn suffix(measure: &Measure) -> &'static str {
    match measure.unit {
        "MiB" => "mib",
        _ => "seconds",
    }
}

fn items(all: &[Series], image: &str, nodes: usize) -> Vec<json::BenchSeries> {
    let item = |series: &Series| {
        let summary: BTreeMap<_, _> =
            MEASURES.iter().map(|measure| (measure.name, bench::spread(measure, &series.runs))).collect();
        json::BenchSeries {
            tool: series.tool.to_string(),
            image: image.to_owned(),
            nodes,
            runs: series.runs.clone(),
            summary,
        }
    };
    all.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use kiln_provision::bench::Tool;

    use super::*;

    fn all() -> Vec<Series> {
        let boot = |created: f64| Boot {
            bootstrap: if created > 12.0 { Origin::Template } else { Origin::Kubeadm },
            created_seconds: created,
            api_seconds: 5.0,
            node_seconds: 5.5,
            nodes_seconds: 5.5,
            dns_seconds: 15.25,
            pod_seconds: 14.0,
            cpu_seconds: Some(10.5),
            stolen_seconds: Some(0.25),
            memory_bytes: Some(400 << 20),
            disk_bytes: Some(16 << 20),
            delete_seconds: 0.4,
        };
        vec![
            Series { tool: Tool::Kiln, runs: vec![boot(10.0), boot(12.5)] },
            Series {
                tool: Tool::Kind,
                runs: vec![Boot {
                    bootstrap: Origin::Kubeadm,
                    cpu_seconds: None,
                    stolen_seconds: None,
                    memory_bytes: None,
                    disk_bytes: None,
                    ..boot(20.0)
                }],
            },
        ]
    }

    #[test]
    fn programs_get_the_same_in_two_notations() {
        let list = items(&all(), "kiln/node:v1", 1);
        for (name, format) in [("json", Format::Json), ("yaml", Format::Yaml)] {
            insta::assert_snapshot!(name, json::render(format, &list).expect("plain data"));
        }
    }

    #[test]
    fn figures_are_told_with_their_ratio() {
        insta::assert_snapshot!(render(&all()));
    }

    #[test]
    fn every_run_is_a_line() {
        insta::assert_snapshot!(csv(&all()));
    }

    #[test]
    fn programs_get_runs_and_a_summary_that_a_gate_can_read() {
        let list = serde_json::to_value(items(&all(), "kiln/node:v1", 1)).expect("plain data");
        assert_eq!(list[0]["summary"]["created"]["median"], 11.25);
        assert_eq!(list[1]["summary"]["cpu"], serde_json::Value::Null);
        assert_eq!(list[0]["runs"][1]["created_seconds"], 12.5);
        assert_eq!(list[0]["runs"][0]["bootstrap"], "kubeadm");
        assert_eq!(list[0]["runs"][1]["bootstrap"], "template");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs_err::write(file.path(), list.to_string()).expect("it is ours");
        let baseline = Baseline::read(file.path()).expect("what was printed");
        assert!(bench::slower(&baseline, &all(), 1.0).is_empty());
        let failure = gate(&bench::slower(&baseline, &all(), 0.9), 0.9).expect_err("all are slower");
        let message = failure.message().expect("a message");
        assert!(message.contains("create returned 11.2 → 11.2 s (1.00x)"), "{message}");
        assert_eq!(failure.code(), 1);
    }
}
