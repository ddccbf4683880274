//! `trace show`, and what `create cluster --timings` adds to it.

use std::time::Duration;

use kiln_provision::{
    cluster,
    trace::{ComponentCpu, Event, Kind, Recording, Segment, critical_path},
};

use super::Session;
use crate::{
    arguments::{Format, TraceShow},
    failure::{Context, Failure, require_root},
    gantt, json, table,
};

/// The smallest part of the critical path that gets a line of its own.
const WORTH_NAMING: Duration = Duration::from_millis(50);
/// The least processor time that gets a line of its own, in seconds.
const WORTH_COUNTING: f64 = 0.005;

/// Shows the trace of a cluster's creation.
pub(super) fn show(session: &Session, arguments: &TraceShow) -> Result<(), Failure> {
    require_root("reading a cluster's trace")?;
    let name = arguments.name.or_default();
    let recording = cluster::trace(&session.paths, name)
        .context(&format!("failed to read the trace of cluster {name:?}"))?
        .ok_or_else(|| {
            Failure::new(format!("cluster {name:?} has no trace"))
                .with_hint("it was made by a version that kept none, or is being made")
        })?;
    match arguments.output.format {
        format @ (Format::Json | Format::Yaml) => json::print(&session.shell, format, &[item(&recording)]),
        Format::Text | Format::Wide => session.shell.result(&render(&recording, session.shell.width())),
    }
}

fn render(recording: &Recording, width: usize) -> String {
    let width = width.clamp(gantt::NARROW, gantt::WIDE);
    format!("{}\n{}", gantt::render(recording, width), summary(recording))
}

/// Whose processor time it was, and what had to be waited for.
fn summary(recording: &Recording) -> String {
    format!("{}\n{}", components(&recording.components), path(&critical_path(recording)))
}

/// The marks, and the summary: what `create cluster --timings` tells.
pub(super) fn timings(recording: &Recording) -> String {
    let row = |event: &Event| {
        let node = event.node.clone().unwrap_or_default();
        [event.name.clone(), format!("{:>7.2}", event.start.as_secs_f64()), node]
    };
    let marks = recording.events.iter().filter(|event| event.kind == Kind::Mark).map(row);
    format!(
        "{}\n{}",
        table::render(["MARK", "SECONDS", "NODE"], &marks.collect::<Vec<_>>()),
        summary(recording)
    )
}

fn components(list: &[ComponentCpu]) -> String {
    let row = |cpu: &ComponentCpu| {
        let node = cpu.node.clone().unwrap_or_default();
        [cpu.component.clone(), format!("{:>7.2}", cpu.seconds), node]
    };
    let mut rows: Vec<_> = list.iter().filter(|cpu| cpu.seconds >= WORTH_COUNTING).map(row).collect();
    let all: f64 = list.iter().map(|cpu| cpu.seconds).sum();
    rows.push([String::from("everything"), format!("{all:>7.2}"), String::new()]);
    table::render(["COMPONENT", "CPU-SEC", "NODE"], &rows)
}

fn path(segments: &[Segment]) -> String {
    let (named, rest): (Vec<_>, Vec<_>) =
        segments.iter().partition(|segment| segment.duration() >= WORTH_NAMING);
    let row = |segment: &&Segment| {
        let node = segment.node.clone().unwrap_or_default();
        [sentence(segment), format!("{:>7.2}", segment.duration().as_secs_f64()), node]
    };
    let mut rows: Vec<_> = named.iter().map(row).collect();
    if !rest.is_empty() {
        let short: Duration = rest.iter().map(|segment| segment.duration()).sum();
        rows.push([String::from("shorter parts"), format!("{:>7.2}", short.as_secs_f64()), String::new()]);
    }
    let mut text = table::render(["CRITICAL PATH", "SECONDS", "NODE"], &rows);
    let waits = named.iter().filter(|segment| segment.waited);
    if let Some(longest) = waits.max_by_key(|segment| segment.duration()) {
        let seconds = longest.duration().as_secs_f64();
        text.push_str(&format!("\nThe longest wait: {seconds:.1} s for {}.\n", longest.what));
    }
    text
}

fn sentence(segment: &Segment) -> String {
    if segment.waited { format!("waited for {}", segment.what) } else { segment.what.clone() }
}

fn item(recording: &Recording) -> json::Trace {
    let event = |event: &Event| json::TraceEvent {
        node: event.node.clone(),
        name: event.name.clone(),
        kind: event.kind.as_str(),
        start_seconds: seconds(event.start),
        end_seconds: seconds(event.end),
    };
    let component = |cpu: &ComponentCpu| json::TraceComponent {
        node: cpu.node.clone(),
        component: cpu.component.clone(),
        cpu_seconds: cpu.seconds,
    };
    let segment = |segment: &Segment| json::TraceSegment {
        node: segment.node.clone(),
        what: segment.what.clone(),
        waited: segment.waited,
        start_seconds: seconds(segment.start),
        end_seconds: seconds(segment.end),
    };
    json::Trace {
        cluster: recording.cluster.clone(),
        began: recording.began.to_string(),
        events: recording.events.iter().map(event).collect(),
        components: recording.components.iter().map(component).collect(),
        critical_path: critical_path(recording).iter().map(segment).collect(),
    }
}

/// Seconds with microseconds: more digits would be those of the clock.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        let component = |node: Option<&str>, component: &str, seconds| ComponentCpu {
            node: node.map(str::to_owned),
            component: component.to_owned(),
            seconds,
        };
        let components = vec![
            component(None, "kiln", 0.514),
            component(Some("kind-control-plane"), "kube-apiserver", 3.1),
            component(Some("kind-control-plane"), "pause", 0.001),
        ];
        Recording { components, ..gantt::tests::recording() }
    }

    #[test]
    fn timings_end_with_the_critical_path() {
        insta::assert_snapshot!(timings(&recording()));
    }

    #[test]
    fn programs_get_events_components_and_the_path() {
        let item = serde_json::to_value(item(&recording())).expect("plain data");
        assert_eq!(item["events"][0]["kind"], "phase");
        assert_eq!(item["events"][0]["start_seconds"], 0.02);
        assert_eq!(item["components"][1]["cpu_seconds"], 3.1);
        let whole: f64 = item["critical_path"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|part| {
                part["end_seconds"].as_f64().unwrap_or(0.0) - part["start_seconds"].as_f64().unwrap_or(0.0)
            })
            .sum();
        assert!((9.9..=10.0).contains(&whole), "{item}");
    }
}
