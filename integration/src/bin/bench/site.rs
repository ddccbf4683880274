//! Where the clusters of the benchmark are made and unmade, one at a time.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use kiln_integration::{Kiln, Running, kiln::LONG};
use tempfile::TempDir;

use crate::{
    Result,
    boot::{Pair, Way},
    shape::Shape,
};

/// As the clusters of tests, so that what a killed run leaves is removed by the next test too.
pub(crate) const CLUSTER: &str = "it-bench";

/// The binary that is measured, and a directory for what it is told and tells.
#[derive(Debug)]
pub(crate) struct Site {
    kiln: Kiln,
    image: Option<String>,
    directory: TempDir,
}

/// The engines that kind knows.
const ENGINES: [&str; 3] = ["docker", "podman", "nerdctl"];

impl Site {
    /// Finds the binary, and removes what a killed run may have left.
    pub(crate) fn open(image: Option<String>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("it-bench-").tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        let kiln = Kiln::new(Kiln::locate()?, vec![("KUBECONFIG".to_owned(), kubeconfig.into())]);
        let _ = kiln.run(&["delete", "cluster", "--name", CLUSTER]);
        Ok(Self { kiln, image, directory })
    }

    /// The binary.
    pub(crate) fn kiln(&self) -> &Kiln {
        &self.kiln
    }

    /// A directory that ends with this.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The node image that was named.
    pub(crate) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// The node image that clusters are made of, or one of the store's when none was named.
    pub(crate) fn node_image(&self) -> Result<String> {
        if let Some(image) = self.image() {
            return Ok(image.to_owned());
        }
        let listed = self.kiln.run(&["images", "ls", "--host", "-o", "json"]);
        let listed: serde_json::Value = serde_json::from_slice(listed.bytes())?;
        let mut names = listed.as_array().into_iter().flatten().filter_map(|image| image["name"].as_str());
        let name = names.find(|name| name.contains("kiln/node:")).ok_or("the store has no node image")?;
        Ok(name.to_owned())
    }

    /// Whether kind can be measured beside Kiln: it and an engine are in `PATH`, and it is not Kiln by that name.
    pub(crate) fn has_kind(&self) -> bool {
        let says = |program: &str| Command::new(program).arg("version").output().ok();
        let kind = says("kind").is_some_and(|said| {
            said.status.success() && !String::from_utf8_lossy(&said.stdout).contains("kiln")
        });
        kind && ENGINES.iter().any(|engine| says(engine).is_some_and(|said| said.status.success()))
    }

    /// Creates and deletes a cluster by `kiln bench boot`, after so many that do not count; and one of kind's, on request.
    pub(crate) fn boot(&self, shape: Shape, way: Way, warm_up: u16, kind: bool) -> Result<Pair> {
        let mut command = self.kiln.command();
        command.args(["bench", "boot", "--name", CLUSTER, "--runs", "1", "--warm-up", &warm_up.to_string()]);
        command
            .args(["--bootstrap", &way.to_string(), "--output", "json", "--config"])
            .arg(self.config(shape)?);
        if let Some(image) = &self.image {
            command.args(["--image", image]);
        }
        if kind {
            command.args(["--compare", "kind"]);
        }
        let boots = u32::from(warm_up + 1) * if kind { 2 } else { 1 };
        let finished = Running::spawn(command, Vec::new()).wait(LONG * boots);
        if finished.code() != 0 {
            return Err(finished.report().into());
        }
        Pair::parse(&finished.stdout(), shape, way)
    }

    /// A file with the configuration of a shape.
    fn config(&self, shape: Shape) -> Result<PathBuf> {
        let config = self.directory().join("config.yaml");
        fs_err::write(&config, shape.config())?;
        Ok(config)
    }

    /// Creates a cluster of three nodes, two of them workers, does something with it when all are Ready, and deletes it.
    pub(crate) fn with_workers<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let worked = self.create_workers().and_then(|()| work());
        let deleted = self.delete();
        // Of two errors the first is the one to tell.
        let worked = worked?;
        deleted?;
        Ok(worked)
    }

    fn create_workers(&self) -> Result<()> {
        let mut command = self.kiln.command();
        command.args(["create", "cluster", "--name", CLUSTER, "--wait", "5m", "--config"]);
        command.arg(self.config(Shape::TWO_WORKERS)?);
        if let Some(image) = &self.image {
            command.args(["--image", image]);
        }
        let created = Running::spawn(command, Vec::new()).wait(LONG);
        if created.code() == 0 { Ok(()) } else { Err(created.report().into()) }
    }

    fn delete(&self) -> Result<()> {
        let deleted = self.kiln.run(&["delete", "cluster", "--name", CLUSTER]);
        if deleted.code() == 0 { Ok(()) } else { Err(deleted.report().into()) }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A measurement that panics has not come to its end, where the cluster is deleted.
        if thread::panicking() {
            let _ = self.kiln.command().args(["delete", "cluster", "--name", CLUSTER]).status();
        }
    }
}
