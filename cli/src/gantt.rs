//! A trace as a picture in text: a line per event, with a bar at its time.

use std::time::Duration;

use kiln_provision::trace::{Event, Kind, Recording};

/// The narrowest picture; a terminal that is narrower wraps it.
pub(crate) const NARROW: usize = 60;
/// The widest one, and what is taken where there is no terminal.
pub(crate) const WIDE: usize = 100;
/// Spans that took less are left out. Marks stay.
const WORTH_SHOWING: Duration = Duration::from_millis(5);
/// `   12.34  12.34  ` between a name and its bar.
const NUMBERS: usize = 18;

/// Draws the events within that many columns; the nodes one after another, below what is of the cluster as a whole.
pub(crate) fn render(recording: &Recording, width: usize) -> String {
    let shown: Vec<&Event> = recording
        .events
        .iter()
        .filter(|event| event.kind == Kind::Mark || event.duration() >= WORTH_SHOWING)
        .collect();
    let longest = shown.iter().map(|event| label(event).chars().count()).max().unwrap_or(0);
    let names = longest.min(width.saturating_sub(NUMBERS) * 2 / 5).max(4);
    let scale = Scale { end: recording.end(), columns: width.saturating_sub(names + NUMBERS).max(10) };
    let mut nodes: Vec<Option<&str>> = vec![None];
    for event in &shown {
        if !nodes.contains(&event.node.as_deref()) {
            nodes.push(event.node.as_deref());
        }
    }
    let mut text = String::new();
    for node in nodes {
        let title = node.map_or_else(|| format!("cluster {}", recording.cluster), str::to_owned);
        if node.is_some() {
            text.push('\n');
        }
        let head = format!("{:<names$}  {:>6}  {:>6}  ", cut(&title, names), "START", "TOOK");
        push(&mut text, &head, &scale.axis());
        for event in shown.iter().filter(|event| event.node.as_deref() == node) {
            let took = match event.kind {
                Kind::Mark => String::new(),
                _ => seconds(event.duration()),
            };
            let name = cut(&label(event), names);
            let line = format!("{name:<names$}  {:>6}  {took:>6}  ", seconds(event.start));
            push(&mut text, &line, &scale.bar(event));
        }
    }
    text
}

fn push(text: &mut String, line: &str, bar: &str) {
    text.push_str(format!("{line}{bar}").trim_end());
    text.push('\n');
}

/// What a line begins with. What runs inside of a command is set in.
fn label(event: &Event) -> String {
    match event.kind {
        Kind::Kubeadm => format!("    {}", event.name),
        Kind::Wait => format!("  wait: {}", event.name),
        Kind::Mark => format!("  ◆ {}", event.name),
        Kind::Phase => event.name.clone(),
        Kind::Step | Kind::Exec => format!("  {}", event.name),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// From times to columns.
struct Scale {
    end: Duration,
    columns: usize,
}

impl Scale {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "columns"
    )]
    fn column(&self, time: Duration) -> usize {
        let part = time.as_secs_f64() / self.end.as_secs_f64().max(1e-9);
        ((part * self.columns as f64) as usize).min(self.columns - 1)
    }

    fn bar(&self, event: &Event) -> String {
        let start = self.column(event.start);
        if event.kind == Kind::Mark {
            return format!("{:start$}◆", "");
        }
        let fill = match event.kind {
            Kind::Wait => "░",
            Kind::Phase => "▒",
            _ => "█",
        };
        // An end at a column's edge is not yet in that column.
        let last = self.column(event.end.saturating_sub(Duration::from_micros(1))).max(start);
        format!("{:start$}{}", "", fill.repeat(last - start + 1))
    }

    /// The seconds, with so much room between them that they can be read.
    fn axis(&self) -> String {
        const ROOM: usize = 8;
        let end = self.end.as_secs_f64();
        let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0];
        let fits = |step: &&f64| end / **step * ROOM as f64 <= self.columns as f64;
        let step = steps.iter().find(fits).copied().unwrap_or(86400.0);
        let mut line = String::new();
        let mut tick = 0.0;
        while tick < end || tick == 0.0 {
            let at = self.column(Duration::from_secs_f64(tick));
            let text = if step < 1.0 { format!("{tick:.1}") } else { format!("{tick:.0}") };
            if at + text.len() + 2 > self.columns {
                break;
            }
            let unit = if line.is_empty() { " s" } else { "" };
            line.push_str(&" ".repeat(at.saturating_sub(line.len())));
            line.push_str(&format!("{text}{unit}"));
            tick += step;
        }
        line
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn event(node: Option<&str>, name: &str, kind: Kind, start: u64, end: u64) -> Event {
        Event {
            node: node.map(str::to_owned),
            name: name.to_owned(),
            kind,
            start: Duration::from_millis(start),
            end: Duration::from_millis(end),
        }
    }

    pub(crate) fn recording() -> Recording {
        let (first, second) = (Some("kind-control-plane"), Some("kind-worker"));
        Recording {
            cluster: String::from("kind"),
            began: "2026-11-24T17:12:49Z".parse().expect("a time"),
            events: vec![
                event(None, "Preparing nodes", Kind::Phase, 20, 480),
                event(first, "write files", Kind::Step, 30, 180),
                event(second, "write files", Kind::Step, 31, 190),
                event(first, "pod rules", Kind::Step, 400, 403),
                event(first, "systemd booted", Kind::Mark, 1000, 1000),
                event(None, "Starting control-plane", Kind::Phase, 1000, 8000),
                event(first, "kubeadm init", Kind::Exec, 1000, 8000),
                event(first, "certs", Kind::Kubeadm, 1050, 2100),
                event(first, "wait-control-plane", Kind::Kubeadm, 2500, 7000),
                event(first, "etcd ready", Kind::Mark, 4900, 4900),
                event(first, "kube-apiserver listening", Kind::Mark, 6600, 6600),
                event(None, "the nodes' pod ranges and the default service account", Kind::Wait, 7000, 9500),
                event(None, "created", Kind::Mark, 10000, 10000),
            ],
            components: Vec::new(),
        }
    }

    #[test]
    fn pictures_fit_in_100_columns() {
        let text = render(&recording(), WIDE);
        assert!(text.lines().all(|line| line.chars().count() <= WIDE), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn pictures_fit_on_a_small_terminal() {
        for width in [NARROW, 80] {
            let text = render(&recording(), width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        }
        insta::assert_snapshot!(render(&recording(), 80));
    }

    #[test]
    fn nothing_recorded_is_drawn_as_nothing() {
        let empty = Recording { events: Vec::new(), ..recording() };
        assert_eq!(render(&empty, 80).lines().count(), 1);
    }
}
