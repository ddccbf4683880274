//! Versions of Kubernetes.

use std::{fmt, str::FromStr};

use crate::Error;

/// A released version, such as `v1.34.4` or `v1.35.0-rc.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KubernetesVersion {
    major: u32,
    minor: u32,
    patch: u32,
    /// `-rc.1` or empty.
    suffix: String,
}

impl KubernetesVersion {
    /// The major version, as a program reports it.
    pub(super) fn major(&self) -> u32 {
        self.major
    }

    /// The minor version, as a program reports it.
    pub(super) fn minor(&self) -> u32 {
        self.minor
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
    let (numbers, suffix) = bare.split_at(bare.find('-').unwrap_or(bare.len()));
    let mut numbers = numbers.split('.').map(number);
    let version = KubernetesVersion {
        major: numbers.next()??,
        minor: numbers.next()??,
        patch: numbers.next()??,
        suffix: suffix.to_owned(),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    // The suffix becomes part of file names and arguments.
    (numbers.next().is_none() && suffix != "-" && suffix.chars().all(allowed)).then_some(version)
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
    fn what_is_no_full_version_is_refused() {
        for text in
            ["", "v1", "v1.34", "v1.34.4.5", "latest", "v1.+3.4", "v1.34.4-", "v1.34.4-../x", "v1.34.x"]
        {
            assert!(text.parse::<KubernetesVersion>().is_err(), "{text:?}");
        }
    }
}
