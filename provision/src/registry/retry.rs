//! Trying again, not too often and not too long.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How failures that may pass are met: a busy registry, an error of its own, a lost connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often something is tried in a row without any progress.
    pub attempts: u32,
    /// How long the first pause is; each that follows is twice as long as the one before.
    pub pause: Duration,
    /// No pause is longer, even if the registry asks for it: it is an error then.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, pause: Duration::from_millis(400), longest: Duration::from_secs(60) }
    }
}

/// Tries of a connection that is refused, or of a name that is not known: mostly that does not change.
const CONNECTION_ATTEMPTS: u32 = 3;

impl Retry {
    /// The pause after `failures` failures in a row; `None` when they are enough. `asked` is what the registry wants.
    pub(super) fn after(&self, failures: u32, asked: Option<Duration>) -> Option<Duration> {
        if failures >= self.attempts || asked.is_some_and(|asked| asked > self.longest) {
            return None;
        }
        let doubled = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        // Up to a quarter more, so that those who failed together do not come back together.
        let random = u32::try_from(RandomState::new().hash_one(failures) % 256).unwrap_or(0);
        Some(asked.unwrap_or(doubled + doubled / 1024 * random))
    }

    /// The same for a connection that did not come about.
    pub(super) fn after_connecting(&self, failures: u32) -> Option<Duration> {
        self.after(failures, None).filter(|_| failures < CONNECTION_ATTEMPTS)
    }
}

/// The pause that an answer asks for: in seconds, or until a time.
pub(super) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let retry = Retry { attempts: 4, pause: Duration::from_secs(1), longest: Duration::from_secs(3) };
        let pauses: Vec<_> = (1..5).map(|failures| retry.after(failures, None)).collect();
        for (pause, seconds) in pauses.iter().zip([1, 2, 3]) {
            let seconds = Duration::from_secs(seconds);
            let pause = pause.expect("another try");
            assert!(pause >= seconds && pause <= seconds + seconds / 4, "{pause:?}");
        }
        assert_eq!(pauses[3], None);
    }

    #[test]
    fn what_the_registry_asks_for_counts_within_limits() {
        let retry = Retry::default();
        assert_eq!(retry.after(1, Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(retry.after(1, Some(Duration::from_secs(3600))), None);
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            asked_pause(&headers)
        };
        assert_eq!(headers("5"), Some(Duration::from_secs(5)));
        assert_eq!(headers("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(headers("soon"), None);
        assert_eq!(asked_pause(&HeaderMap::new()), None);
    }
}
