//! Versions of Kubernetes, and what depends on them.

use std::{fmt, str::FromStr};

use crate::Error;

/// A version of Kubernetes, such as `v1.34.4`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesVersion {
    text: String,
    major: u32,
    minor: u32,
}

/// A version of kubeadm's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApiVersion {
    /// Extra arguments are mappings; phases to skip are flags.
    V1Beta2,
    /// Phases to skip are in the file.
    V1Beta3,
    /// Extra arguments are lists.
    V1Beta4,
}

impl KubernetesVersion {
    /// Whether this is at least `1.minor`, pre-releases of it included.
    #[must_use]
    pub fn at_least(&self, minor: u32) -> bool {
        (self.major, self.minor) >= (1, minor)
    }

    /// The version of kubeadm's configuration that is written for this one. Kubernetes reads each for a long
    /// time; the newest is used only where the one before it is about to go.
    #[must_use]
    pub fn kubeadm_api(&self) -> ApiVersion {
        if self.at_least(36) {
            ApiVersion::V1Beta4
        } else if self.at_least(23) {
            ApiVersion::V1Beta3
        } else {
            ApiVersion::V1Beta2
        }
    }

    /// Whether the kubelet refuses to run on cgroups of version 1 unless it is told to:
    /// <https://github.com/kubernetes/kubernetes/pull/134298>.
    #[must_use]
    pub fn refuses_cgroup_v1(&self) -> bool {
        self.at_least(35)
    }

    /// The kubelet's cgroup driver; images for Kubernetes before 1.24 were made for the older one.
    #[must_use]
    pub fn cgroup_driver(&self) -> &'static str {
        if self.at_least(24) { "systemd" } else { "cgroupfs" }
    }
}

impl FromStr for KubernetesVersion {
    type Err = Error;

    /// Reads a version with or without a leading `v`; what follows the minor number is kept but not looked
    /// at.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let bad = || Error::KubernetesVersion { version: text.to_owned(), source: None };
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        let mut number = || {
            let part = parts.next()?;
            let end = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
            let whole = end == part.len();
            Some((part[..end].parse::<u32>().ok()?, whole))
        };
        match (number(), number()) {
            (Some((major, true)), Some((minor, _))) => Ok(Self { text: text.to_owned(), major, minor }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text)
    }
}

impl ApiVersion {
    /// The `apiVersion` of kubeadm's documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1Beta2 => "kubeadm.k8s.io/v1beta2",
            Self::V1Beta3 => "kubeadm.k8s.io/v1beta3",
            Self::V1Beta4 => "kubeadm.k8s.io/v1beta4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_choose_the_api() {
        for (text, api, driver) in [
            ("v1.22.17", ApiVersion::V1Beta2, "cgroupfs"),
            ("v1.23.0", ApiVersion::V1Beta3, "cgroupfs"),
            ("1.24", ApiVersion::V1Beta3, "systemd"),
            ("v1.35.9\n", ApiVersion::V1Beta3, "systemd"),
            ("v1.36.0-alpha.1.20+abc", ApiVersion::V1Beta4, "systemd"),
            ("v1.37.0-rc.1", ApiVersion::V1Beta4, "systemd"),
            ("v2.0.0", ApiVersion::V1Beta4, "systemd"),
        ] {
            let version: KubernetesVersion = text.parse().unwrap();
            assert_eq!((version.kubeadm_api(), version.cgroup_driver()), (api, driver), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "v", "latest", "1", "v1.", "v1.x", "1x.2", "-1.2"] {
            assert!(text.parse::<KubernetesVersion>().is_err(), "{text}");
        }
    }
}
