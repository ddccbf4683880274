//! How long clusters take to boot, measured from outside.
//!
//! A run executes the program that makes clusters, as a user would, and watches the API through the administrator's
//! kubeconfig: nothing that the program believes of itself is used. Time zero is the start of the process. Runs of two
//! tools take turns, so that a busy minute of the host is not all one's.

mod chart;
mod gate;
mod marks;
mod measure;
mod tool;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use chart::chart;
pub use gate::{Baseline, Slower, slower};
pub use measure::{Boot, MEASURES, Measure, Origin, Spread, spread};
use tool::Site;
pub use tool::Tool;

use crate::{
    Error, Paths, Reporter, Result,
    cluster::{Bootstrap, Cancel},
    state,
};

/// What to measure.
#[derive(Clone, Debug)]
pub struct BootOptions {
    /// This program: it is executed as `PROGRAM create cluster …`.
    pub program: PathBuf,
    /// The clusters' name; with kind, its own have `-kind` behind it.
    pub name: String,
    /// How many boots count.
    pub runs: u16,
    /// How many come before them, and do not.
    pub warm_up: u16,
    /// The image of all nodes, in place of the default one.
    pub image: Option<String>,
    /// How Kiln's control planes come up.
    pub bootstrap: Bootstrap,
    /// A configuration file.
    pub config: Option<PathBuf>,
    /// The nodes of that configuration that register with the API.
    pub nodes: usize,
    /// The image of the pod that resolves a Service. It is not pulled where the node has it.
    pub pod_image: String,
    /// How long a boot may take altogether.
    pub limit: Duration,
    /// Whether kind takes turns.
    pub compare_kind: bool,
}

/// The boots of one tool.
#[derive(Clone, Debug)]
pub struct Series {
    /// Who made the clusters.
    pub tool: Tool,
    /// One entry per run.
    pub runs: Vec<Boot>,
}

/// Creates and deletes clusters, one at a time. What is there of one is deleted when that fails or is cancelled.
///
/// # Errors
/// [`Error::ClusterExists`] when the name is taken, [`Error::MissingTool`] when kind cannot be compared with,
/// [`Error::Bench`] when a boot fails, [`Error::Interrupted`].
pub async fn boot(
    paths: &Paths,
    options: &BootOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Vec<Series>> {
    if state::cluster_exists(paths, &options.name)? {
        return Err(Error::ClusterExists { name: options.name.clone() });
    }
    let directory = tempfile::Builder::new()
        .prefix("kiln-bench-")
        .tempdir()
        .map_err(Error::file("make a temporary directory"))?;
    let mut sites = vec![Site::kiln(paths, options, directory.path())];
    if options.compare_kind {
        sites.push(Site::kind(options, directory.path())?);
    }
    let mut all: Vec<Series> =
        sites.iter().map(|site| Series { tool: site.tool, runs: Vec::new() }).collect();
    for number in 0..options.warm_up + options.runs {
        for (site, series) in sites.iter().zip(&mut all) {
            let measured = run(site, options, reporter, cancel).await?;
            let which = match number.checked_sub(options.warm_up) {
                Some(counted) => format!("run {} of {}", counted + 1, options.runs),
                None => format!("warm-up {} of {}", number + 1, options.warm_up),
            };
            reporter.message(0, &format!("{}, {which}: {}", site.tool, measured.line()));
            if number >= options.warm_up {
                series.runs.push(measured);
            }
        }
    }
    Ok(all)
}

/// One creation and deletion.
async fn run(
    site: &Site<'_>,
    options: &BootOptions,
    reporter: &dyn Reporter,
    cancel: &Cancel,
) -> Result<Boot> {
    reporter.step(&format!("{}: creating {}", site.tool, site.name));
    let measured = tokio::select! {
        measured = marks::measure(site, options) => measured,
        () = cancel.triggered() => Err(Error::Interrupted),
    };
    reporter.step(&format!("{}: deleting {}", site.tool, site.name));
    let started = Instant::now();
    let deleted = site.delete().await;
    let delete_seconds = started.elapsed().as_secs_f64();
    // Of two errors the first is the one to tell.
    let measured = measured?;
    deleted?;
    Ok(Boot { delete_seconds, ..measured })
}

/// Where a program is, by `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs_err::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
