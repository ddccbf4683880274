//! Whether this host can run clusters, and what to do where it cannot; before anything is touched.
//!
//! Checks only look. Where looking does not tell (overlayfs on a given disk), they try in a mount namespace of a
//! throw-away thread, which nothing outlives.

mod cgroup;
mod kernel;
mod leftovers;
mod limits;
mod network;
mod overlay;

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::{Error, Paths, Result};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Fine.
    Ok,
    /// Clusters run, but something may go wrong or was left behind.
    Warning,
    /// Clusters do not run.
    Problem,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in a word or two; unique among the findings.
    pub check: &'static str,
    /// How it came out.
    pub status: Status,
    /// What was found, as one line.
    pub detail: String,
    /// What to do about it, as one line; always there for a problem.
    pub cure: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), cure: None }
    }

    fn warning(check: &'static str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, detail: detail.into(), cure: Some(cure.into()) }
    }

    fn problem(check: &'static str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check, status: Status::Problem, detail: detail.into(), cure: Some(cure.into()) }
    }
}

/// Examines the host. Takes some ten milliseconds and blocks; findings are in the order in which to read them.
#[must_use]
pub fn examine(paths: &Paths) -> Vec<Finding> {
    let mut findings = vec![kernel::root(), kernel::version(), kernel::namespaces()];
    findings.extend(cgroup::findings());
    findings.push(overlay::finding(paths));
    findings.extend(network::findings());
    findings.extend(limits::findings(paths));
    findings.push(leftovers::finding(paths));
    findings
}

/// Checks what a new cluster cannot do without.
///
/// # Errors
/// [`Error::HostNotReady`] for the first [`Status::Problem`] of [`examine`]; its cure is the error's hint.
pub fn preflight(paths: &Paths) -> Result<()> {
    match examine(paths).into_iter().find(|finding| finding.status == Status::Problem) {
        Some(Finding { check, detail, cure, .. }) => Err(Error::HostNotReady { check, detail, cure }),
        None => Ok(()),
    }
}

/// Whether the kernel certainly has no feature of this `CONFIG_…` option and module.
pub(crate) fn kernel_lacks(option: &str, module: &str) -> bool {
    kernel::Build::of_this_kernel().feature(option, module) == kernel::Feature::Absent
}

/// The directory itself or the closest one above it that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// A number from a file of the kernel; `None` when there is none.
fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_finding_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("not/yet/made"), directory.path().join("run"));
        let findings = examine(&paths);
        let checks: BTreeSet<_> = findings.iter().map(|finding| finding.check).collect();
        assert_eq!(checks.len(), findings.len(), "{findings:#?}");
        for finding in &findings {
            assert_eq!(finding.cure.is_some(), finding.status != Status::Ok, "{finding:?}");
            for line in [Some(&finding.detail), finding.cure.as_ref()].into_iter().flatten() {
                assert!(!line.is_empty() && !line.contains('\n') && !line.ends_with('.'), "{finding:?}");
            }
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "examining leaves nothing");
    }

    #[test]
    fn preflight_reports_the_first_problem() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::new(directory.path().join("state"), directory.path().join("run"));
        let problem = examine(&paths).into_iter().find(|finding| finding.status == Status::Problem);
        match (problem, preflight(&paths)) {
            (None, Ok(())) => {}
            (Some(problem), Err(error)) => {
                assert!(error.to_string().contains(&problem.detail), "{error}");
                assert_eq!(error.hint(), problem.cure);
            }
            (problem, result) => panic!("{problem:?} but {result:?}"),
        }
    }

    #[test]
    fn the_closest_directory_is_found() {
        assert_eq!(existing(Path::new("/proc/self/no/such")), Path::new("/proc/self"));
        assert_eq!(existing(Path::new("relative/no/such")), Path::new("/"));
    }
}
