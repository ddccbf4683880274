//! Boots of clusters, measured by `kiln bench boot`.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{Result, shape::Shape};

/// How the control plane of a cluster comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// By kubeadm.
    Kubeadm,
    /// From what an earlier cluster has left.
    Template,
}

impl Way {
    /// Both, in the order of the table.
    pub(crate) const ALL: [Self; 2] = [Self::Kubeadm, Self::Template];
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kubeadm => "kubeadm",
            Self::Template => "template",
        })
    }
}

/// One boot, as `kiln bench boot -o json` tells of it. Times are from the start of the program, but for the deletion's own.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Boot {
    /// What the control plane came from.
    pub(crate) bootstrap: String,
    /// The program has ended.
    pub(crate) created_seconds: f64,
    /// The API was ready.
    pub(crate) api_seconds: f64,
    /// The first node was Ready.
    pub(crate) node_seconds: f64,
    /// All nodes were.
    pub(crate) nodes_seconds: f64,
    /// Both CoreDNS pods were Ready.
    pub(crate) dns_seconds: f64,
    /// A pod had resolved a Service.
    pub(crate) pod_seconds: f64,
    /// Processor time up to the last mark.
    pub(crate) cpu_seconds: Option<f64>,
    /// Processor time that the hypervisor gave to others meanwhile.
    pub(crate) stolen_seconds: Option<f64>,
    /// What the nodes then held in memory and could not give back at once.
    pub(crate) memory_bytes: Option<u64>,
    /// What the cluster then held on the disk.
    pub(crate) disk_bytes: Option<u64>,
    /// Deleting it.
    pub(crate) delete_seconds: f64,
}

impl Boot {
    /// The marks in one line.
    pub(crate) fn line(&self) -> String {
        format!(
            "created {:.1} s, node {:.1}, all nodes {:.1}, CoreDNS {:.1}, pod {:.1}; {:.1} CPU-s, {:.1} stolen",
            self.created_seconds,
            self.node_seconds,
            self.nodes_seconds,
            self.dns_seconds,
            self.pod_seconds,
            self.cpu_seconds.unwrap_or_default(),
            self.stolen_seconds.unwrap_or_default()
        )
    }
}

/// What `kiln bench boot -o json` prints of one tool, as far as it is used.
#[derive(Debug, Deserialize)]
struct Series {
    tool: String,
    runs: Vec<Boot>,
}

/// One boot of Kiln's, and one of kind's where that was compared with.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) kiln: Boot,
    pub(crate) kind: Option<Boot>,
}

impl Pair {
    /// Takes the boots out of what was printed.
    ///
    /// # Errors
    /// When it is not about a boot of Kiln's that came up as it was to.
    pub(crate) fn parse(text: &str, shape: Shape, way: Way) -> Result<Self> {
        let all: Vec<Series> = serde_json::from_str(text)?;
        let mut pair = Self { kiln: Boot::default(), kind: None };
        for series in all {
            let [boot] =
                <[Boot; 1]>::try_from(series.runs).map_err(|runs| format!("{} boots", runs.len()))?;
            match series.tool.as_str() {
                "kiln" => pair.kiln = boot,
                _ => pair.kind = Some(boot),
            }
        }
        if pair.kiln.bootstrap != way.to_string() {
            let came = &pair.kiln.bootstrap;
            return Err(format!("{shape} was to come up by {way}, and did so by {came:?}").into());
        }
        Ok(pair)
    }
}

/// All boots of one shape, in one way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Boots {
    pub(crate) shape: Shape,
    pub(crate) way: Way,
    pub(crate) runs: Vec<Boot>,
    /// Those of kind in between.
    pub(crate) kind: Vec<Boot>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"[
        {"tool": "kiln", "image": "x", "nodes": 1, "summary": {}, "runs": [{
            "bootstrap": "template", "created_seconds": 6.5, "api_seconds": 3.0, "node_seconds": 4.0, "nodes_seconds": 4.0,
            "dns_seconds": 5.0, "pod_seconds": 7.0, "cpu_seconds": 6.9, "stolen_seconds": 0.1, "memory_bytes": 1, "disk_bytes": null,
            "delete_seconds": 0.3}]}]"#;

    #[test]
    fn boots_are_read_and_must_have_come_up_as_asked() {
        let pair = Pair::parse(PRINTED, Shape::ONE_NODE, Way::Template).expect("a boot");
        assert_eq!((pair.kiln.created_seconds, pair.kiln.disk_bytes), (6.5, None));
        assert!(pair.kind.is_none());
        for (text, way) in [(PRINTED, Way::Kubeadm), ("[]", Way::Template), ("", Way::Template)] {
            assert!(Pair::parse(text, Shape::ONE_NODE, way).is_err(), "{text}");
        }
    }
}
