//! What the answers of an API server say about it.

use std::{fmt, time::Duration};

use kiln_network::proxy::BackendState;

/// Failures in a row after which a backend that was up is down. One may be chance, and the connections that are cut
/// are many.
const FAILURES: u32 = 2;

/// Refusals in a row, [`EAGER`] apart, after which they are taken for a policy: for 10 s. One that starts refuses
/// everybody, administrators too, until it has read the rules for access; and what it answers then would go to clients.
const REFUSALS: u32 = 40;

/// From one check of a backend that is up to the next, start to start. With [`RECHECK`], [`FAILURES`] and
/// [`probe::TIMEOUT`](super::probe::TIMEOUT), one that falls silent is down within 2.8 s.
const RELAXED: Duration = Duration::from_secs(1);

/// The same for one that is not: it is waited for.
const EAGER: Duration = Duration::from_millis(250);

/// The same after a first failure.
const RECHECK: Duration = Duration::from_millis(100);

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// An answer with this status of HTTP.
    Status(u16),
    /// No answer, for this reason.
    Failure(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "it answers {status}"),
            Self::Failure(reason) => formatter.write_str(reason),
        }
    }
}

/// What is thought of one backend.
#[derive(Clone, Debug)]
pub(super) struct Health {
    state: BackendState,
    failures: u32,
    refusals: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { state: BackendState::Unknown, failures: 0, refusals: 0 }
    }
}

impl Health {
    /// Takes in the outcome of a check; returns what is to be thought now.
    pub(super) fn learn(&mut self, finding: &Finding) -> BackendState {
        self.failures = if matches!(finding, Finding::Failure(_)) { self.failures + 1 } else { 0 };
        self.refusals = if matches!(finding, Finding::Status(401 | 403)) { self.refusals + 1 } else { 0 };
        self.state = match (finding, self.state) {
            // An API server that shuts down, or has not finished to start.
            (Finding::Status(500..), _) => BackendState::Draining,
            (Finding::Status(401 | 403), state) if state != BackendState::Up && self.refusals < REFUSALS => {
                BackendState::Draining
            }
            // Without anonymous access that is the answer for good, and as good a sign of life as any.
            (Finding::Status(_), _) => BackendState::Up,
            (Finding::Failure(_), state @ (BackendState::Up | BackendState::Draining))
                if self.failures < FAILURES =>
            {
                state
            }
            (Finding::Failure(_), _) => BackendState::Down,
        };
        self.state
    }

    pub(super) fn state(&self) -> BackendState {
        self.state
    }

    /// How long after the start of the last check the next one starts, or at once when that one took longer.
    pub(super) fn pause(&self) -> Duration {
        match (self.state, self.failures) {
            (BackendState::Up, 0) => RELAXED,
            (BackendState::Up | BackendState::Draining, 1..) => RECHECK,
            _ => EAGER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::probe::TIMEOUT;

    fn learn(health: &mut Health, finding: &str) -> BackendState {
        health.learn(&match finding.parse() {
            Ok(status) => Finding::Status(status),
            Err(_) => Finding::Failure(finding.to_owned()),
        })
    }

    #[test]
    fn any_answer_but_an_error_of_the_server_is_a_sign_of_life() {
        for (status, state) in [
            ("200", BackendState::Up),
            ("404", BackendState::Up),
            ("429", BackendState::Up),
            ("500", BackendState::Draining),
            ("503", BackendState::Draining),
        ] {
            assert_eq!(learn(&mut Health::default(), status), state, "{status}");
        }
    }

    #[test]
    fn refusals_are_a_policy_when_they_last() {
        let mut health = Health::default();
        for _ in 1..REFUSALS {
            assert_eq!(learn(&mut health, "403"), BackendState::Draining);
        }
        assert_eq!(learn(&mut health, "403"), BackendState::Up);
        assert_eq!(learn(&mut health, "401"), BackendState::Up);
        assert_eq!(learn(&mut health, "500"), BackendState::Draining);
        assert_eq!(learn(&mut health, "403"), BackendState::Draining);
        assert_eq!(learn(&mut health, "200"), BackendState::Up);
    }

    #[test]
    fn one_that_never_answered_is_down_at_once() {
        let mut health = Health::default();
        assert_eq!(learn(&mut health, "refused"), BackendState::Down);
        assert_eq!(health.pause(), EAGER);
        assert_eq!(learn(&mut health, "200"), BackendState::Up);
        assert_eq!(health.pause(), RELAXED);
    }

    #[test]
    fn it_takes_two_failures_in_a_row() {
        let mut health = Health::default();
        for (finding, state, pause) in [
            ("200", BackendState::Up, RELAXED),
            ("refused", BackendState::Up, RECHECK),
            ("200", BackendState::Up, RELAXED),
            ("refused", BackendState::Up, RECHECK),
            ("500", BackendState::Draining, EAGER),
            ("refused", BackendState::Draining, RECHECK),
            ("refused", BackendState::Down, EAGER),
            ("refused", BackendState::Down, EAGER),
        ] {
            assert_eq!((learn(&mut health, finding), health.pause()), (state, pause), "{finding}");
        }
    }

    #[test]
    fn silence_is_noticed_within_three_seconds() {
        // It falls silent right after it was asked; each later check takes until its time is over.
        let noticed = RELAXED + TIMEOUT.max(RECHECK) * (FAILURES - 1) + TIMEOUT;
        assert!(noticed < Duration::from_secs(3), "{noticed:?}");
    }
}
