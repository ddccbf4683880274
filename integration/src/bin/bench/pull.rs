//! How long the node image takes from a registry on loopback into an empty store, beside skopeo's copy of it where that is
//! installed.
//!
//! The registry is CNCF's, and has the image in its page cache. Each pull has a state root of its own; it ends when all digests
//! are verified and everything is on the disk.

use std::{path::Path, process::Command, time::Instant};

use kiln_integration::{Registry, Tools};
use serde::Serialize;

use crate::{Result, report, site::Site};

/// What the image is called in the registry.
const NAME: &str = "bench/node:1";

/// The seconds that each way took.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Pull {
    /// Bytes of the image, as the registry has it.
    pub(crate) bytes: u64,
    /// `kiln images pull`.
    pub(crate) kiln_seconds: Vec<f64>,
    /// `skopeo copy` into an OCI layout, and then `sync`; none where it is not installed.
    pub(crate) skopeo_seconds: Vec<f64>,
}

impl Pull {
    /// Pulls the node image so many times each way.
    pub(crate) fn measure(site: &Site, times: u16) -> Result<Self> {
        let tools = Tools::open().ok_or("the registry cannot be built here")?;
        let registry = tools.registry(site.directory(), &[]);
        let name = registry.name(NAME);
        succeeded(site.kiln().command().args(["push", &site.node_image()?, &name]))?;
        let mut pull = Self::default();
        let skopeo = installed("skopeo");
        if !skopeo {
            report::tell("without skopeo: it is not installed");
        }
        // As with loading: the first round is not counted, and the ways take turns.
        for number in 0..=times {
            let kiln = pull.with_kiln(site, &name)?;
            let skopeo = skopeo.then(|| with_skopeo(site, &registry)).transpose()?;
            if number > 0 {
                pull.kiln_seconds.push(kiln);
                pull.skopeo_seconds.extend(skopeo);
                let skopeo = skopeo.map_or_else(String::new, |seconds| format!(", skopeo {seconds:.2}"));
                report::tell(&format!("pull {number} of {times}: {kiln:.2} s{skopeo}"));
            }
        }
        Ok(pull)
    }

    fn with_kiln(&mut self, site: &Site, name: &str) -> Result<f64> {
        let root = site.directory().join("pulled");
        let kiln = site.kiln().with_env("KILN_ROOT", &root);
        let seconds = timed(&root, kiln.command().args(["images", "pull", name]))?;
        let blobs = fs_err::read_dir(root.join("images/blobs/sha256"))?;
        self.bytes = blobs.map(|blob| Ok(blob?.metadata()?.len())).sum::<Result<u64>>()?;
        fs_err::remove_dir_all(root)?;
        Ok(seconds)
    }
}

fn with_skopeo(site: &Site, registry: &Registry) -> Result<f64> {
    let layout = site.directory().join("copied");
    let source = format!("docker://{}", registry.name(NAME));
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--src-tls-verify=false", &source]);
    let seconds = timed(&layout, command.arg(format!("oci:{}:node", layout.display())))?;
    fs_err::remove_dir_all(layout)?;
    Ok(seconds)
}

/// Runs a command that makes the directory `made`, and has all of it written.
fn timed(made: &Path, command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    succeeded(command)?;
    rustix::fs::syncfs(fs_err::File::open(made)?)?;
    Ok(started.elapsed().as_secs_f64())
}

fn succeeded(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr).trim()).into())
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
