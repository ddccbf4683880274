//! A trace as data.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ComponentCpu;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A phase, as progress shows it. It spans other events.
    Phase,
    /// Something that Kiln did.
    Step,
    /// Something that Kiln waited for.
    Wait,
    /// A command that ran in a node.
    Exec,
    /// A phase of kubeadm's.
    Kubeadm,
    /// A moment, without a duration.
    Mark,
}

impl Kind {
    /// The word for it in files and listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Step => "step",
            Self::Wait => "wait",
            Self::Exec => "exec",
            Self::Kubeadm => "kubeadm",
            Self::Mark => "mark",
        }
    }

    /// The kind that a word stands for.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Phase, Self::Step, Self::Wait, Self::Exec, Self::Kubeadm, Self::Mark]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

/// A span of time, or a moment in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The node it is about; `None` for the whole cluster.
    pub node: Option<String>,
    /// What it was, in a few words.
    pub name: String,
    /// What it is about.
    pub kind: Kind,
    /// When it began, from the beginning of the trace.
    pub start: Duration,
    /// When it ended; as `start` for a mark.
    pub end: Duration,
}

impl Event {
    /// How long it took.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// Everything that is known of a cluster's creation.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The cluster's name.
    pub cluster: String,
    /// When the trace began.
    pub began: Timestamp,
    /// Spans and marks, by their beginning.
    pub events: Vec<Event>,
    /// Processor time of each component, from its first process to the last look.
    pub components: Vec<ComponentCpu>,
}

impl Recording {
    /// The earliest mark of that name, of any node.
    #[must_use]
    pub fn mark(&self, name: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.kind == Kind::Mark && event.name == name)
    }

    /// When the last event ended.
    #[must_use]
    pub fn end(&self) -> Duration {
        self.events.iter().map(|event| event.end).max().unwrap_or_default()
    }
}

/// The mark at the end of a creation.
pub(crate) const CREATED: &str = "created";

/// An event, for tests; times are in milliseconds.
#[cfg(test)]
pub(super) fn example(node: Option<&str>, name: &str, kind: Kind, start: u64, end: u64) -> Event {
    Event {
        node: node.map(str::to_owned),
        name: name.to_owned(),
        kind,
        start: Duration::from_millis(start),
        end: Duration::from_millis(end),
    }
}
