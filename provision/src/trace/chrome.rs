//! Traces as files: the event format of Chrome's tracing, which <https://ui.perfetto.dev> and `chrome://tracing` open.
//!
//! A node is a "process" there, and the cluster as a whole the first of them. Spans that overlap without one holding the
//! other go to "threads" of their own, since a thread's spans must nest.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ComponentCpu, Event, Kind, Recording};

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    display_time_unit: String,
    trace_events: Vec<Entry>,
    /// What the format leaves to the writer.
    other_data: Other,
}

#[derive(Debug, Serialize, Deserialize)]
struct Other {
    writer: String,
    cluster: String,
    began: Timestamp,
    components: Vec<ComponentCpu>,
}

/// An entry of the list. Times are in microseconds.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    /// `X` for a span, `i` for a moment, `M` for what only describes.
    ph: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cat: Option<String>,
    #[serde(default)]
    ts: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: usize,
    tid: usize,
    /// How far a moment's line reaches: `p`, its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    args: BTreeMap<String, serde_json::Value>,
}

/// The cluster as a whole.
const CLUSTER: usize = 1;
const PROCESS_NAME: &str = "process_name";
const SORT_INDEX: &str = "process_sort_index";

impl From<&Recording> for File {
    fn from(recording: &Recording) -> Self {
        let mut nodes: Vec<&str> = Vec::new();
        for node in recording.events.iter().filter_map(|event| event.node.as_deref()) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        let mut trace_events = Vec::new();
        let names = std::iter::once(format!("cluster {}", recording.cluster))
            .chain(nodes.iter().map(|node| (*node).to_owned()));
        for (pid, name) in (CLUSTER..).zip(names) {
            trace_events.push(describe(pid, PROCESS_NAME, "name", name.into()));
            trace_events.push(describe(pid, SORT_INDEX, "sort_index", pid.into()));
        }
        let mut lanes: BTreeMap<usize, Vec<Vec<Duration>>> = BTreeMap::new();
        for event in &recording.events {
            let at = event.node.as_deref().and_then(|node| nodes.iter().position(|known| *known == node));
            let pid = at.map_or(CLUSTER, |index| CLUSTER + 1 + index);
            let (mark, kind) = (event.kind == Kind::Mark, event.kind.as_str().to_owned());
            let tid = if mark { 0 } else { lane(lanes.entry(pid).or_default(), event) };
            trace_events.push(Entry {
                name: event.name.clone(),
                ph: if mark { "i" } else { "X" }.to_owned(),
                cat: Some(kind),
                ts: microseconds(event.start),
                dur: (!mark).then(|| microseconds(event.duration())),
                pid,
                tid,
                s: mark.then(|| "p".to_owned()),
                args: BTreeMap::new(),
            });
        }
        Self {
            display_time_unit: "ms".to_owned(),
            trace_events,
            other_data: Other {
                writer: format!("kiln {}", env!("CARGO_PKG_VERSION")),
                cluster: recording.cluster.clone(),
                began: recording.began,
                components: recording.components.clone(),
            },
        }
    }
}

impl From<File> for Recording {
    fn from(file: File) -> Self {
        let names: BTreeMap<usize, &str> = file
            .trace_events
            .iter()
            .filter(|entry| entry.name == PROCESS_NAME && entry.pid != CLUSTER)
            .filter_map(|entry| Some((entry.pid, entry.args.get("name")?.as_str()?)))
            .collect();
        let event = |entry: &Entry| {
            let start = duration(entry.ts)?;
            Some(Event {
                node: names.get(&entry.pid).map(|name| (*name).to_owned()),
                name: entry.name.clone(),
                kind: Kind::from_word(entry.cat.as_deref()?)?,
                start,
                end: start + duration(entry.dur.unwrap_or(0.0))?,
            })
        };
        Self {
            events: file.trace_events.iter().filter_map(event).collect(),
            cluster: file.other_data.cluster,
            began: file.other_data.began,
            components: file.other_data.components,
        }
    }
}

/// A trace as the text of a file.
#[must_use]
pub fn to_chrome(recording: &Recording) -> String {
    // Plain data with text as keys: there is nothing to refuse.
    let mut text = serde_json::to_string(&File::from(recording)).unwrap_or_default();
    text.push('\n');
    text
}

/// Reads the text of a file that [`to_chrome`] has written.
///
/// # Errors
/// When it is none.
pub fn from_chrome(text: &str) -> Result<Recording, serde_json::Error> {
    serde_json::from_str::<File>(text).map(Recording::from)
}

fn describe(pid: usize, name: &str, key: &str, value: serde_json::Value) -> Entry {
    Entry {
        name: name.to_owned(),
        ph: "M".to_owned(),
        cat: None,
        ts: 0.0,
        dur: None,
        pid,
        tid: 0,
        s: None,
        args: BTreeMap::from([(key.to_owned(), value)]),
    }
}

/// The first lane in which a span nests: each is the stack of the ends of the spans that are open. Spans come by their
/// beginning.
fn lane(lanes: &mut Vec<Vec<Duration>>, event: &Event) -> usize {
    for (index, open) in lanes.iter_mut().enumerate() {
        while open.last().is_some_and(|end| *end <= event.start) {
            open.pop();
        }
        if open.last().is_none_or(|end| event.end <= *end) {
            open.push(event.end);
            return index + 1;
        }
    }
    lanes.push(vec![event.end]);
    lanes.len()
}

/// With nanoseconds behind the point, so that a file says the same when it is read again.
fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

fn duration(microseconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(microseconds / 1e6).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::example as event;

    fn recording() -> Recording {
        Recording {
            cluster: "kind".to_owned(),
            began: "2026-11-24T17:12:49Z".parse().unwrap(),
            events: vec![
                event(None, "Preparing nodes", Kind::Phase, 0, 100),
                event(Some("n1"), "write files", Kind::Step, 10, 60),
                event(Some("n1"), "overlaps", Kind::Step, 30, 90),
                event(Some("n1"), "inside of the first", Kind::Exec, 35, 50),
                event(Some("n2"), "booted", Kind::Mark, 95, 95),
            ],
            components: vec![ComponentCpu {
                node: Some("n1".to_owned()),
                component: "etcd".to_owned(),
                seconds: 1.25,
            }],
        }
    }

    #[test]
    fn files_have_the_shape_that_viewers_read() {
        let file = File::from(&recording());
        insta::assert_snapshot!(serde_json::to_string_pretty(&file).unwrap());
    }

    #[test]
    fn a_trace_that_is_read_again_is_the_same() {
        assert_eq!(from_chrome(&to_chrome(&recording())).unwrap(), recording());
        assert!(from_chrome("{\"traceEvents\": []}").is_err(), "somebody else's");
    }

    #[test]
    fn spans_of_one_thread_nest() {
        let mut lanes = Vec::new();
        let spans = [(0, 10), (2, 8), (3, 4), (5, 9), (8, 10), (10, 11), (10, 12)];
        let used: Vec<_> = spans
            .iter()
            .map(|(start, end)| lane(&mut lanes, &event(None, "", Kind::Step, *start, *end)))
            .collect();
        assert_eq!(used, [1, 1, 1, 2, 1, 1, 2]);
    }
}
