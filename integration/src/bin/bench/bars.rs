//! The bars that boots are held against: parts of the time that kind takes on the same host.

use serde::Serialize;

use crate::{
    boot::{Boot, Boots, Way},
    report::spread,
    shape::Shape,
};

/// A limit for the ratio to kind's figure, or to the median of the same boots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    /// As it is written.
    text: &'static str,
    limit: f64,
}

impl Bar {
    const fn part(text: &'static str, limit: f64) -> Self {
        Self { text, limit }
    }
}

/// Which of several boots counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    Median,
    Best,
    /// The worst, as a multiple of the median.
    Worst,
}

/// A line of the table before anything is measured.
#[derive(Clone, Copy, Debug)]
struct Line {
    title: &'static str,
    shape: Shape,
    unit: &'static str,
    pick: Pick,
    of: fn(&Boot) -> Option<f64>,
    /// kind 0.33 on Docker, on the development host; `None` where the bar is not about kind.
    kind: Option<f64>,
    kubeadm: Option<Bar>,
    template: Option<Bar>,
}

const HALF: Bar = Bar::part("≤ 1/2", 1.0 / 2.0);
const THIRD: Bar = Bar::part("≤ 1/3", 1.0 / 3.0);
const QUARTER: Bar = Bar::part("≤ 1/4", 1.0 / 4.0);
const FIFTH: Bar = Bar::part("≤ 1/5", 1.0 / 5.0);
const SIXTH: Bar = Bar::part("≤ 1/6", 1.0 / 6.0);
const TWENTIETH: Bar = Bar::part("≤ 5 %", 1.0 / 20.0);
const NO_OUTLIERS: Bar = Bar::part("≤ 1.5", 1.5);

const MEBIBYTE: f64 = 1_048_576.0;

const LINES: [Line; 9] = [
    Line {
        title: "create → node Ready",
        shape: Shape::ONE_NODE,
        unit: "s",
        pick: Pick::Median,
        of: |boot| Some(boot.node_seconds),
        kind: Some(32.3),
        kubeadm: Some(THIRD),
        template: Some(SIXTH),
    },
    Line {
        title: "create → CoreDNS 2/2 Ready",
        shape: Shape::ONE_NODE,
        unit: "s",
        pick: Pick::Median,
        of: |boot| Some(boot.dns_seconds),
        kind: Some(34.9),
        kubeadm: Some(THIRD),
        template: Some(FIFTH),
    },
    Line {
        title: "create → a new pod has resolved a Service",
        shape: Shape::ONE_NODE,
        unit: "s",
        pick: Pick::Median,
        of: |boot| Some(boot.pod_seconds),
        kind: Some(37.0),
        kubeadm: Some(THIRD),
        template: Some(FIFTH),
    },
    Line {
        title: "the same, best boot",
        shape: Shape::ONE_NODE,
        unit: "s",
        pick: Pick::Best,
        of: |boot| Some(boot.pod_seconds),
        kind: Some(37.0),
        kubeadm: None,
        template: Some(SIXTH),
    },
    Line {
        title: "CPU-seconds to that mark",
        shape: Shape::ONE_NODE,
        unit: "CPU-s",
        pick: Pick::Median,
        of: |boot| boot.cpu_seconds,
        kind: Some(35.0),
        kubeadm: Some(HALF),
        template: Some(THIRD),
    },
    Line {
        title: "disk added per cluster",
        shape: Shape::ONE_NODE,
        unit: "MiB",
        pick: Pick::Median,
        of: |boot| boot.disk_bytes.map(|bytes| bytes as f64 / MEBIBYTE),
        kind: Some(1186.0),
        kubeadm: Some(TWENTIETH),
        template: Some(TWENTIETH),
    },
    Line {
        title: "1 + 2 nodes, all Ready",
        shape: Shape::TWO_WORKERS,
        unit: "s",
        pick: Pick::Median,
        of: |boot| Some(boot.nodes_seconds),
        kind: Some(47.9),
        kubeadm: Some(THIRD),
        template: Some(QUARTER),
    },
    Line {
        title: "3 + 2 nodes, all Ready",
        shape: Shape::HIGH_AVAILABILITY,
        unit: "s",
        pick: Pick::Median,
        of: |boot| Some(boot.nodes_seconds),
        kind: Some(123.0),
        kubeadm: Some(QUARTER),
        template: Some(FIFTH),
    },
    Line {
        title: "worst boot (pod), of the median",
        shape: Shape::ONE_NODE,
        unit: "s",
        pick: Pick::Worst,
        of: |boot| Some(boot.pod_seconds),
        kind: None,
        kubeadm: Some(NO_OUTLIERS),
        template: Some(NO_OUTLIERS),
    },
];

/// What one way of booting came to, held against its bar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Held {
    /// How many boots there were.
    pub(crate) boots: usize,
    /// The figure, in the row's unit.
    pub(crate) value: f64,
    /// Its ratio to kind's figure, or to the median.
    pub(crate) ratio: f64,
    /// The bar as it is written; `None` where there is none.
    pub(crate) bar: Option<&'static str>,
    /// Whether it is met.
    pub(crate) met: Option<bool>,
}

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    /// kind's figure.
    pub(crate) kind: Option<f64>,
    /// Whether that was measured now.
    pub(crate) kind_measured: bool,
    /// `None` where it was not measured.
    pub(crate) kubeadm: Option<Held>,
    /// `None` where it was not measured.
    pub(crate) template: Option<Held>,
}

/// Holds what was measured against the bars.
pub(crate) fn rows(all: &[Boots]) -> Vec<Row> {
    LINES.iter().map(|line| row(line, all)).collect()
}

fn row(line: &Line, all: &[Boots]) -> Row {
    let of = |way: Way| all.iter().find(|boots| boots.shape == line.shape && boots.way == way);
    let picked = |runs: &[Boot]| {
        let (best, median, worst) = spread(runs.iter().filter_map(line.of).collect())?;
        Some(match line.pick {
            Pick::Median => (median, median),
            Pick::Best => (best, median),
            Pick::Worst => (worst, median),
        })
    };
    let kinds: Vec<Boot> = Way::ALL.into_iter().filter_map(of).flat_map(|boots| boots.kind.clone()).collect();
    let measured = line.kind.and(picked(&kinds)).map(|(value, _)| value);
    let kind = measured.or(line.kind);
    let held = |way: Way, bar: Option<Bar>| {
        let runs = &of(way)?.runs;
        let (value, median) = picked(runs)?;
        let ratio = value / kind.unwrap_or(median);
        let met = bar.map(|bar| ratio <= bar.limit);
        Some(Held { boots: runs.len(), value, ratio, bar: bar.map(|bar| bar.text), met })
    };
    Row {
        title: line.title,
        unit: line.unit,
        kind,
        kind_measured: measured.is_some(),
        kubeadm: held(Way::Kubeadm, line.kubeadm),
        template: held(Way::Template, line.template),
    }
}

/// The table, which Markdown takes too.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| bar (ratio to kind) | kind | kubeadm boot | ratio | bar | met | template boot | ratio | bar | met |\n\
         |---|--:|--:|--:|--:|:-:|--:|--:|--:|:-:|\n",
    );
    for row in rows {
        let kind = row.kind.map_or_else(
            || String::from("–"),
            |kind| format!("{} {}{}", number(kind), row.unit, if row.kind_measured { "" } else { " *" }),
        );
        let cells = [&row.kubeadm, &row.template].map(|held| cells(held.as_ref(), row.unit));
        text.push_str(&format!("| {} | {kind} | {} | {} |\n", row.title, cells[0], cells[1]));
    }
    if rows.iter().any(|row| row.kind.is_some() && !row.kind_measured) {
        text.push_str(
            "\n\\* Not measured now: kind 0.33 on Docker, with the same Kubernetes and node image content, on the 2-core \
             development host.\n",
        );
    }
    text
}

fn cells(held: Option<&Held>, unit: &str) -> String {
    let Some(held) = held else { return String::from("– | – | – | –") };
    let met = match held.met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "–",
    };
    let boots = if held.boots == 1 { String::new() } else { format!(" ({} boots)", held.boots) };
    let (value, bar) = (number(held.value), held.bar.unwrap_or("–"));
    format!("{value} {unit}{boots} | {:.3} | {bar} | {met}", held.ratio)
}

/// Three or four digits.
fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boots(shape: Shape, way: Way, seconds: &[f64]) -> Boots {
        let boot = |seconds: &f64| Boot {
            bootstrap: way.to_string(),
            node_seconds: *seconds,
            nodes_seconds: *seconds,
            dns_seconds: *seconds,
            pod_seconds: *seconds,
            cpu_seconds: Some(10.0),
            disk_bytes: Some(16 << 20),
            ..Boot::default()
        };
        Boots { shape, way, runs: seconds.iter().map(boot).collect(), kind: Vec::new() }
    }

    fn find(rows: &[Row], title: &str) -> Row {
        rows.iter().find(|row| row.title == title).expect(title).clone()
    }

    #[test]
    fn bars_are_met_or_not() {
        let all = [
            boots(Shape::ONE_NODE, Way::Kubeadm, &[9.0, 10.0, 16.0]),
            boots(Shape::ONE_NODE, Way::Template, &[5.0, 7.0, 7.5]),
        ];
        let rows = rows(&all);
        let node = find(&rows, "create → node Ready");
        assert_eq!((node.kind, node.kind_measured), (Some(32.3), false));
        assert_eq!(node.kubeadm.as_ref().map(|held| (held.value, held.met)), Some((10.0, Some(true))));
        assert_eq!(
            node.template.map(|held| (held.value, held.met)),
            Some((7.0, Some(false))),
            "a sixth is 5.4"
        );
        let best = find(&rows, "the same, best boot");
        assert_eq!(best.kubeadm.map(|held| held.met), Some(None));
        assert_eq!(best.template.map(|held| (held.value, held.met)), Some((5.0, Some(true))));
        let worst = find(&rows, "worst boot (pod), of the median");
        assert_eq!(worst.kubeadm.map(|held| (held.ratio, held.met)), Some((1.6, Some(false))));
        assert!(worst.template.and_then(|held| held.met).expect("a bar"));
        assert!(find(&rows, "3 + 2 nodes, all Ready").kubeadm.is_none(), "it was not measured");
    }

    #[test]
    fn the_figures_of_a_kind_that_is_here_count() {
        let mut kubeadm = boots(Shape::ONE_NODE, Way::Kubeadm, &[10.0]);
        kubeadm.kind = boots(Shape::ONE_NODE, Way::Kubeadm, &[20.0, 22.0, 60.0]).runs;
        let node = find(&rows(&[kubeadm]), "create → node Ready");
        assert_eq!((node.kind, node.kind_measured), (Some(22.0), true));
        assert_eq!(node.kubeadm.and_then(|held| held.met), Some(false), "more than a third of 22");
    }

    #[test]
    fn the_table_says_what_was_not_measured() {
        let rows = rows(&[boots(Shape::ONE_NODE, Way::Kubeadm, &[10.0, 10.5])]);
        let table = render(&rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[3],
            "| create → node Ready | 32.3 s * | 10.2 s (2 boots) | 0.317 | ≤ 1/3 | yes | – | – | – | – |"
        );
        let worst = "| worst boot (pod), of the median | – | 10.5 s (2 boots) | 1.024 | ≤ 1.5 | yes | – | – | – | – |";
        assert_eq!(lines[11], worst);
        assert!(lines.last().expect("a note").starts_with("\\* Not measured now: kind 0.33"), "{table}");
        let columns = |line: &str| line.matches('|').count();
        assert!(lines[1..12].iter().all(|line| columns(line) == columns(lines[1])), "{table}");
    }
}
