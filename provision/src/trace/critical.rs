//! What a creation had to wait for: the chain of events that its end followed from.
//!
//! Found from the end backwards: what ended last before a moment is what that moment waited for. Of spans that hold others
//! only those inside count, and the time between them.

use std::time::Duration;

use super::{Event, Kind, Recording, event::CREATED, watch::API_READY};

/// A part of the critical path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The node it is about; `None` for the whole cluster.
    pub node: Option<String>,
    /// What was done, or what was waited for.
    pub what: String,
    /// Whether it was waited for.
    pub waited: bool,
    /// When it began.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
}

impl Segment {
    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// Two events that are no further apart followed from each other.
const TOGETHER: Duration = Duration::from_millis(2);
/// What kubeadm's wait for the control plane waits for, one after the other.
const GATES: [&str; 7] = [
    "kubelet healthy",
    "kube-apiserver started",
    "etcd started",
    "etcd ready",
    "kube-apiserver listening",
    API_READY,
    "kube-apiserver healthy",
];
/// Marks closer to each other than this are told as one.
const SHORT: Duration = Duration::from_millis(20);

/// The critical path of a creation, from its beginning to its end and then to the marks that came after it.
#[must_use]
pub fn critical_path(recording: &Recording) -> Vec<Segment> {
    let spans: Vec<&Event> = recording
        .events
        .iter()
        .filter(|event| !matches!(event.kind, Kind::Mark | Kind::Phase) && event.end > event.start)
        .collect();
    let inner: Vec<&Event> = spans.iter().copied().filter(|span| !holds_any(span, &spans)).collect();
    let created = recording.mark(CREATED).map(|mark| mark.start);
    let end = created.unwrap_or_else(|| spans.iter().map(|span| span.end).max().unwrap_or_default());
    let mut path = Vec::new();
    let mut now = end;
    while now > TOGETHER {
        let last = inner
            .iter()
            .filter(|span| span.end <= now + TOGETHER && span.start < now)
            .max_by_key(|span| (span.end, span.start));
        let until = last.map_or(Duration::ZERO, |span| span.end.min(now));
        if now.saturating_sub(until) > TOGETHER {
            path.extend(between(&spans, until, now, recording).into_iter().rev());
        }
        let Some(span) = last else { break };
        path.extend(parts(span, span.start, until, recording).into_iter().rev());
        now = span.start;
    }
    path.reverse();
    path.extend(created.into_iter().flat_map(|created| marks_after(recording, created)));
    path
}

/// Whether a span holds another one of its node.
fn holds_any(span: &Event, all: &[&Event]) -> bool {
    all.iter().any(|other| {
        !std::ptr::eq(*other, span)
            && other.node == span.node
            && span.start <= other.start
            && other.end <= span.end
            && other.duration() < span.duration()
    })
}

/// Time that no inner span accounts for: that of the innermost one around it.
fn between(spans: &[&Event], start: Duration, end: Duration, recording: &Recording) -> Vec<Segment> {
    let around = spans
        .iter()
        .filter(|span| span.start <= start + TOGETHER && end <= span.end + TOGETHER)
        .max_by_key(|span| span.start);
    match around {
        Some(span) => parts(span, start, end, recording),
        None => vec![Segment { node: None, what: "other work".to_owned(), waited: false, start, end }],
    }
}

fn whole(span: &Event, start: Duration, end: Duration) -> Segment {
    let what = match span.kind {
        Kind::Kubeadm => format!("kubeadm: {}", span.name),
        _ => span.name.clone(),
    };
    Segment { node: span.node.clone(), what, waited: span.kind == Kind::Wait, start, end }
}

/// A part of a span; kubeadm's wait for the control plane in pieces, each of which ends with a mark.
fn parts(span: &Event, start: Duration, end: Duration, recording: &Recording) -> Vec<Segment> {
    if (span.kind, span.name.as_str()) != (Kind::Kubeadm, "wait-control-plane") {
        return vec![whole(span, start, end)];
    }
    let mut parts: Vec<Segment> = Vec::new();
    let mut from = start;
    let marks = recording.events.iter().filter(|event| {
        let here = event.node.is_none() || event.node == span.node;
        let gate = event.kind == Kind::Mark && GATES.contains(&event.name.as_str());
        gate && here && start < event.start && event.start <= end
    });
    for mark in marks {
        if mark.start.saturating_sub(from) < SHORT {
            continue;
        }
        let (node, what) = (mark.node.clone(), wish(&mark.name));
        parts.push(Segment { node, what, waited: true, start: from, end: mark.start });
        from = mark.start;
    }
    if end.saturating_sub(from) > TOGETHER {
        parts.push(whole(span, from, end));
    }
    parts
}

/// The marks that come after a moment, each as what was waited for since the one before.
fn marks_after(recording: &Recording, moment: Duration) -> Vec<Segment> {
    let mut start = moment;
    let mut segments = Vec::new();
    for mark in recording.events.iter().filter(|event| event.kind == Kind::Mark && event.start > moment) {
        if mark.start.saturating_sub(start) < SHORT {
            continue;
        }
        let (node, what) = (mark.node.clone(), wish(&mark.name));
        segments.push(Segment { node, what, waited: true, start, end: mark.start });
        start = mark.start;
    }
    segments
}

/// A mark as what is waited for: `etcd ready` as `etcd to be ready`.
fn wish(mark: &str) -> String {
    const FORMS: [(&str, &str); 9] = [
        (" started", " to start"),
        (" ready", " to be ready"),
        (" listening", " to listen"),
        (" synced", " to know the Services"),
        (" serving", " to serve"),
        (" running", " to run"),
        (" Ready", " to be Ready"),
        (" registered", " to register"),
        (" admitted", " to be admitted"),
    ];
    let mark = if mark == API_READY { "kube-apiserver ready" } else { mark };
    let mark = mark.replace("kube-apiserver", "the API server");
    let mark = mark.strip_prefix("first ").map_or(mark.clone(), |rest| format!("the first {rest}"));
    if let Some(who) = mark.strip_suffix(" healthy") {
        return format!("kubeadm to see {who} healthy");
    }
    for (form, wish) in FORMS {
        if let Some(who) = mark.strip_suffix(form) {
            return format!("{who}{wish}");
        }
    }
    mark
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::example as event;

    fn path(events: Vec<Event>) -> Vec<String> {
        let mut events = events;
        events.sort_by_key(|event| (event.start, std::cmp::Reverse(event.end)));
        let recording =
            Recording { cluster: "c".to_owned(), began: Default::default(), events, components: Vec::new() };
        critical_path(&recording)
            .iter()
            .map(|segment| {
                let verb = if segment.waited { "waited for " } else { "" };
                format!("{} ms {verb}{}", segment.duration().as_millis(), segment.what)
            })
            .collect()
    }

    #[test]
    fn what_ended_last_was_waited_for() {
        let n = Some("n");
        let path = path(vec![
            event(None, "Starting control-plane", Kind::Phase, 0, 1000),
            event(n, "write files", Kind::Step, 10, 100),
            // Beside it, and done sooner.
            event(None, "publish ports", Kind::Step, 10, 60),
            event(n, "kubeadm init", Kind::Exec, 100, 900),
            event(n, "certs", Kind::Kubeadm, 150, 400),
            event(n, "wait-control-plane", Kind::Kubeadm, 400, 900),
            event(n, "etcd ready", Kind::Mark, 500, 500),
            event(n, "kube-apiserver listening", Kind::Mark, 800, 800),
            event(n, "kube-scheduler healthy", Kind::Mark, 820, 820),
            event(None, "API ready", Kind::Mark, 850, 850),
            event(n, "kube-apiserver healthy", Kind::Mark, 899, 899),
            event(n, "made schedulable", Kind::Mark, 905, 905),
            event(None, "pod ranges", Kind::Wait, 890, 1000),
            event(None, "created", Kind::Mark, 1000, 1000),
            event(None, "CoreDNS ready", Kind::Mark, 4000, 4000),
        ]);
        assert_eq!(
            path,
            [
                "10 ms other work",
                "90 ms write files",
                "50 ms kubeadm init",
                "250 ms kubeadm: certs",
                "100 ms waited for etcd to be ready",
                "300 ms waited for the API server to listen",
                "50 ms waited for the API server to be ready",
                "40 ms kubeadm: wait-control-plane",
                "110 ms waited for pod ranges",
                "3000 ms waited for CoreDNS to be ready",
            ]
        );
    }

    #[test]
    fn nothing_recorded_is_an_empty_path_and_equal_spans_do_not_hide_each_other() {
        assert!(path(Vec::new()).is_empty());
        let twice = vec![event(None, "a", Kind::Step, 0, 50), event(None, "b", Kind::Step, 0, 50)];
        assert_eq!(path(twice).len(), 1);
    }

    #[test]
    fn marks_become_wishes() {
        for (mark, words) in [
            ("etcd started", "etcd to start"),
            ("kube-apiserver healthy", "kubeadm to see the API server healthy"),
            ("all nodes Ready", "all nodes to be Ready"),
            ("node registered", "node to register"),
            ("first pod running", "the first pod to run"),
            ("CNI configured", "CNI configured"),
        ] {
            assert_eq!(wish(mark), words);
        }
    }
}
