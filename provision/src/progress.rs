//! How a long operation tells what it is doing, without knowing who listens.

use std::fmt::Debug;

/// How a phase ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the phase was for is there.
    Done,
    /// The phase failed; the operation's error says why.
    Failed,
}

/// Receives the progress of an operation. Implementations must be cheap: they are called on the operation's path.
pub trait Reporter: Debug + Send + Sync {
    /// A phase begins; `title` is one line for people, such as `Starting control-plane 🕹️`.
    fn phase_started(&self, title: &str);

    /// The phase that began last with this title has ended.
    fn phase_ended(&self, title: &str, outcome: Outcome);

    /// What the running phase is doing or waiting for now; replaces the step before it.
    fn step(&self, text: &str);

    /// A line for people. `verbosity` 0 is always shown, higher ones only with `-v`.
    fn message(&self, verbosity: u8, text: &str);
}

/// A reporter that drops everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn phase_started(&self, _title: &str) {}

    fn phase_ended(&self, _title: &str, _outcome: Outcome) {}

    fn step(&self, _text: &str) {}

    fn message(&self, _verbosity: u8, _text: &str) {}
}
