//! Versions of Kubernetes.

use std::{fmt, str::FromStr};

use crate::Error;

/// A version, such as `v1.34.4`, `v1.35.0-rc.1` or, of a tree between two releases, `v1.36.0-alpha.0.12+0123456789abcd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KubernetesVersion {
    major: u32,
    minor: u32,
    patch: u32,
    /// `-rc.1` or empty, and what follows it.
    suffix: String,
}

impl KubernetesVersion {
    /// The major version, as a program reports it.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// The minor version, as a program reports it: with a plus when it is not yet a release, or more than one.
    pub(super) fn minor(&self) -> String {
        let plus = if self.suffix.starts_with('-') { "+" } else { "" };
        format!("{}{plus}", self.minor)
    }

    /// Whether there may be such a release: its name says nothing about a commit.
    pub(super) fn is_release(&self) -> bool {
        !self.suffix.contains('+')
    }

    /// The version as the tag of an image, which cannot have a plus.
    pub(super) fn tag(&self) -> String {
        self.to_string().replace('+', "_")
    }

    /// The version of the `k8s.io` modules that are released together with this version of Kubernetes: its own
    /// `go.mod` takes them from directories of its repository, which are not part of the module.
    pub(super) fn staging(&self) -> String {
        format!("v0.{}.{}{}", self.minor, self.patch, self.suffix)
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "v{}.{}.{}{}", self.major, self.minor, self.patch, self.suffix)
    }
}

impl FromStr for KubernetesVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::KubernetesVersion { version: text.to_owned(), source: None })
    }
}

fn parse(text: &str) -> Option<KubernetesVersion> {
    let bare = text.strip_prefix('v').unwrap_or(text);
    let (numbers, suffix) = bare.split_at(bare.find(['-', '+']).unwrap_or(bare.len()));
    let mut numbers = numbers.split('.').map(number);
    let version = KubernetesVersion {
        major: numbers.next()??,
        minor: numbers.next()??,
        patch: numbers.next()??,
        suffix: suffix.to_owned(),
    };
    // The suffix becomes part of file names and arguments.
    (numbers.next().is_none() && (suffix.is_empty() || is_suffix(suffix))).then_some(version)
}

/// What Semantic Versioning allows: `-` and identifiers, `+` and identifiers, or both in this order.
fn is_suffix(suffix: &str) -> bool {
    let identifiers = |text: &str, allowed: &dyn Fn(char) -> bool| {
        text.split('.').all(|part| !part.is_empty() && part.chars().all(allowed))
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let (before, after) = match suffix.split_once('+') {
        Some((before, after)) => (before, Some(after)),
        None => (suffix, None),
    };
    let before_is_good = match before.strip_prefix('-') {
        Some(before) => identifiers(before, &allowed),
        None => before.is_empty(),
    };
    before_is_good && after.is_none_or(|after| identifiers(after, &allowed))
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_with_and_without_its_letter() {
        for text in ["v1.34.4", "1.34.4"] {
            let version: KubernetesVersion = text.parse().unwrap();
            assert_eq!(version.to_string(), "v1.34.4");
            assert_eq!(version.staging(), "v0.34.4");
        }
        let candidate: KubernetesVersion = "v1.35.0-rc.1".parse().unwrap();
        assert_eq!(candidate.staging(), "v0.35.0-rc.1");
    }

    #[test]
    fn a_version_between_releases_says_so() {
        let between: KubernetesVersion = "v1.36.0-alpha.0.12+0123456789abcd-dirty".parse().unwrap();
        assert_eq!(between.to_string(), "v1.36.0-alpha.0.12+0123456789abcd-dirty");
        assert_eq!(between.tag(), "v1.36.0-alpha.0.12_0123456789abcd-dirty");
        assert_eq!((between.minor().as_str(), between.is_release()), ("36+", false));
        let release: KubernetesVersion = "v1.34.4".parse().unwrap();
        assert_eq!((release.minor().as_str(), release.is_release()), ("34", true));
        assert!(!"1.34.4+k3s1".parse::<KubernetesVersion>().unwrap().is_release());
    }

    #[test]
    fn what_is_no_full_version_is_refused() {
        for text in [
            "",
            "v1",
            "v1.34",
            "v1.34.4.5",
            "latest",
            "v1.+3.4",
            "v1.34.4-",
            "v1.34.4-../x",
            "v1.34.x",
            "v1.34.4+",
            "v1.34.4-a+b+c",
            "v1.34.4-a b",
            "v1.34.4-a..b",
        ] {
            assert!(text.parse::<KubernetesVersion>().is_err(), "{text:?}");
        }
    }
}
