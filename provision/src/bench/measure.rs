//! What a boot is measured by.

use serde::{Deserialize, Serialize};

/// What a control plane came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// kubeadm has made it.
    #[default]
    Kubeadm,
    /// What an earlier cluster has left.
    Template,
}

impl Origin {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubeadm => "kubeadm",
            Self::Template => "template",
        }
    }
}

/// Seconds of stolen time that change what a boot took.
const WORTH_TELLING: f64 = 0.1;

/// One boot. Times are in seconds from the start of the program, but for the deletion's own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// What the first control plane came from.
    pub bootstrap: Origin,
    /// The program has ended.
    pub created_seconds: f64,
    /// The API was ready.
    pub api_seconds: f64,
    /// The first node was Ready.
    pub node_seconds: f64,
    /// All nodes were.
    pub nodes_seconds: f64,
    /// Both CoreDNS pods were Ready.
    pub dns_seconds: f64,
    /// A pod that was made when all nodes were Ready had resolved a Service, by the time stamp of its own answer.
    pub pod_seconds: f64,
    /// Processor time of the program itself and of the nodes up to the last mark.
    pub cpu_seconds: Option<f64>,
    /// Processor time that others had meanwhile while this host wanted it, on all of its processors: what a hypervisor says
    /// it gave to its other guests (`steal` of proc_stat(5)).
    pub stolen_seconds: Option<f64>,
    /// What the nodes then held in memory and could not give back at once.
    pub memory_bytes: Option<u64>,
    /// What the cluster then held on the disk.
    pub disk_bytes: Option<u64>,
    /// Deleting it.
    pub delete_seconds: f64,
}

impl Boot {
    /// The marks in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let cpu = self.cpu_seconds.map(|seconds| format!("; {seconds:.1} CPU-s")).unwrap_or_default();
        let stolen = self.stolen_seconds.filter(|seconds| *seconds >= WORTH_TELLING);
        let stolen = stolen.map(|seconds| format!(", {seconds:.1} stolen")).unwrap_or_default();
        format!(
            "by {}: created {:.1} s, API {:.1}, node {:.1}, all nodes {:.1}, CoreDNS {:.1}, pod {:.1}{cpu}{stolen}",
            self.bootstrap.as_str(),
            self.created_seconds,
            self.api_seconds,
            self.node_seconds,
            self.nodes_seconds,
            self.dns_seconds,
            self.pod_seconds
        )
    }
}

/// A figure of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name in files.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// Whether a gate holds it against a baseline.
    pub gated: bool,
    /// Its value; `None` where it could not be had.
    pub of: fn(&Boot) -> Option<f64>,
}

const MEBIBYTE: f64 = 1_048_576.0;

/// All figures, in the order in which they are listed.
pub const MEASURES: [Measure; 11] = [
    Measure {
        name: "created",
        title: "create returned",
        unit: "s",
        gated: true,
        of: |boot| Some(boot.created_seconds),
    },
    Measure { name: "api", title: "API ready", unit: "s", gated: true, of: |boot| Some(boot.api_seconds) },
    Measure { name: "node", title: "node Ready", unit: "s", gated: true, of: |boot| Some(boot.node_seconds) },
    Measure {
        name: "nodes",
        title: "all nodes Ready",
        unit: "s",
        gated: true,
        of: |boot| Some(boot.nodes_seconds),
    },
    Measure {
        name: "dns",
        title: "CoreDNS Ready",
        unit: "s",
        gated: true,
        of: |boot| Some(boot.dns_seconds),
    },
    Measure {
        name: "pod",
        title: "pod resolved Service",
        unit: "s",
        gated: true,
        of: |boot| Some(boot.pod_seconds),
    },
    Measure { name: "cpu", title: "processor time", unit: "CPU-s", gated: true, of: |boot| boot.cpu_seconds },
    Measure {
        name: "stolen",
        title: "taken by other guests",
        unit: "CPU-s",
        gated: false,
        of: |boot| boot.stolen_seconds,
    },
    Measure {
        name: "memory",
        title: "memory",
        unit: "MiB",
        gated: false,
        of: |boot| boot.memory_bytes.map(|bytes| bytes as f64 / MEBIBYTE),
    },
    Measure {
        name: "disk",
        title: "disk",
        unit: "MiB",
        gated: false,
        of: |boot| boot.disk_bytes.map(|bytes| bytes as f64 / MEBIBYTE),
    },
    Measure {
        name: "delete",
        title: "delete",
        unit: "s",
        gated: false,
        of: |boot| Some(boot.delete_seconds),
    },
];

/// The least, the middle and the largest of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

/// The spread of a figure over some boots; `None` where it was never had.
#[must_use]
pub fn spread(measure: &Measure, runs: &[Boot]) -> Option<Spread> {
    let mut values: Vec<f64> = runs.iter().filter_map(measure.of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        *values.get(middle)?
    } else {
        f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?)
    };
    Some(Spread { min: *values.first()?, median, max: *values.last()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_lie_in_the_middle() {
        let of = |values: &[f64]| {
            let boot = |value: &f64| Boot { created_seconds: *value, ..Boot::default() };
            spread(&MEASURES[0], &values.iter().map(boot).collect::<Vec<_>>())
        };
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { min: 1.0, median: 2.5, max: 4.0 }));
        assert_eq!(of(&[]), None);
        assert_eq!(spread(&MEASURES[6], &[Boot::default()]), None, "not had");
    }
}
