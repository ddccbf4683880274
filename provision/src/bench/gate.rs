//! Holding boots against those of an earlier day.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{MEASURES, Series, Spread, Tool, spread};
use crate::{Error, Result};

/// What an earlier `kiln bench boot -o json` has printed, as far as it is compared with.
#[derive(Clone, Debug)]
pub struct Baseline(Vec<Entry>);

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    tool: String,
    summary: BTreeMap<String, Option<Spread>>,
}

/// A figure that has become worse than it may.
#[derive(Clone, Debug, PartialEq)]
pub struct Slower {
    /// What got worse, for people.
    pub title: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// Its median in the baseline.
    pub before: f64,
    /// Its median now.
    pub now: f64,
}

impl Baseline {
    /// Reads a baseline.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Damaged`] when it is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path).map_err(Error::file("read the baseline"))?;
        Self::parse(&text).map_err(|source| Error::Damaged { path: path.to_owned(), source: source.into() })
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }
}

/// The figures of Kiln's boots whose median is more than `factor` times that of the baseline. One that the baseline does not
/// have, or had as nothing, is not compared.
#[must_use]
pub fn slower(baseline: &Baseline, all: &[Series], factor: f64) -> Vec<Slower> {
    let kiln = Tool::Kiln.to_string();
    let Some(before) = baseline.0.iter().find(|entry| entry.tool == kiln) else { return Vec::new() };
    let Some(now) = all.iter().find(|series| series.tool == Tool::Kiln) else { return Vec::new() };
    let compare = |measure: &super::Measure| {
        let before = before.summary.get(measure.name)?.as_ref()?.median;
        let now = spread(measure, &now.runs)?.median;
        let worse = before > 0.0 && now > before * factor;
        worse.then_some(Slower { title: measure.title, unit: measure.unit, before, now })
    };
    MEASURES.iter().filter(|measure| measure.gated).filter_map(compare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Boot;

    const BASELINE: &str = r#"[
        { "tool": "kind", "summary": { "created": { "min": 1, "median": 1, "max": 1 } } },
        { "tool": "kiln", "image": "x", "summary": {
            "created": { "min": 9, "median": 10, "max": 11 },
            "api": { "min": 5, "median": 5, "max": 5 },
            "pod": { "min": 0, "median": 0, "max": 0 },
            "cpu": null,
            "disk": { "min": 1, "median": 1, "max": 1 } } } ]"#;

    fn boots(created: &[f64]) -> Vec<Series> {
        let boot = |created: &f64| Boot {
            created_seconds: *created,
            api_seconds: 5.0,
            pod_seconds: 20.0,
            cpu_seconds: Some(9.0),
            disk_bytes: Some(1 << 30),
            ..Boot::default()
        };
        vec![Series { tool: Tool::Kiln, runs: created.iter().map(boot).collect() }]
    }

    #[test]
    fn a_median_may_grow_by_the_factor_and_no_more() {
        let baseline = Baseline::parse(BASELINE).unwrap();
        assert!(slower(&baseline, &boots(&[11.0, 8.0, 99.0]), 1.1).is_empty());
        let worse = slower(&baseline, &boots(&[11.1, 11.2, 8.0]), 1.1);
        assert_eq!(worse, [Slower { title: "create returned", unit: "s", before: 10.0, now: 11.1 }]);
        assert_eq!(slower(&baseline, &boots(&[6.0]), 0.5).len(), 2, "the API too");
        assert!(slower(&baseline, &[], 1.1).is_empty());
    }

    #[test]
    fn what_is_no_baseline_is_refused() {
        for text in ["", "{}", "[{}]", "[{\"tool\": 1, \"summary\": {}}]"] {
            assert!(Baseline::parse(text).is_err(), "{text}");
        }
        let missing = Baseline::read(Path::new("/nonexistent/baseline.json")).unwrap_err();
        assert!(matches!(missing, Error::File { .. }));
    }
}
