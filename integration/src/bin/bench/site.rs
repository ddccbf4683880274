//! Where the clusters of the benchmark are made and unmade, one at a time.

use std::{net::TcpListener, path::Path, process::Command, thread, time::Instant};

use kiln_integration::{Kiln, Running, kiln::LONG};
use tempfile::TempDir;

use crate::{Result, shape::Shape};

/// As the clusters of tests, so that what a killed run leaves is removed by the next test too.
pub(crate) const CLUSTER: &str = "it-bench";

/// The binary that is measured, and a directory for what it is told and tells.
#[derive(Debug)]
pub(crate) struct Site {
    kiln: Kiln,
    image: Option<String>,
    bootstrap: String,
    directory: TempDir,
}

impl Site {
    /// Finds the binary, and removes what a killed run may have left.
    pub(crate) fn open(image: Option<String>, bootstrap: String) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("it-bench-").tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        let kiln = Kiln::new(Kiln::locate()?, vec![("KUBECONFIG".to_owned(), kubeconfig.into())]);
        let _ = kiln.run(&["delete", "cluster", "--name", CLUSTER]);
        Ok(Self { kiln, image, bootstrap, directory })
    }

    /// The binary.
    pub(crate) fn kiln(&self) -> &Kiln {
        &self.kiln
    }

    /// A directory that ends with this.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The command that creates a cluster, and the port of 127.0.0.1 that its API will have.
    pub(crate) fn create(&self, shape: Shape) -> Result<(Command, u16)> {
        // The port is chosen here, so that the API can be asked before there is a kubeconfig for it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = self.directory().join("config.yaml");
        fs_err::write(&config, shape.config(port))?;
        let mut command = self.kiln.command();
        command.args(["create", "cluster", "--name", CLUSTER, "--config"]).arg(&config);
        command.args(["--bootstrap", &self.bootstrap]);
        if let Some(image) = &self.image {
            command.args(["--image", image]);
        }
        Ok((command, port))
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
        let (mut command, _) = self.create(Shape::TWO_WORKERS)?;
        command.args(["--wait", "5m"]);
        let created = Running::spawn(command, Vec::new()).wait(LONG);
        if created.code() == 0 { Ok(()) } else { Err(created.report().into()) }
    }

    /// Deletes the cluster; how many seconds that took.
    pub(crate) fn delete(&self) -> Result<f64> {
        let started = Instant::now();
        let deleted = self.kiln.run(&["delete", "cluster", "--name", CLUSTER]);
        let seconds = started.elapsed().as_secs_f64();
        if deleted.code() != 0 {
            return Err(deleted.report().into());
        }
        Ok(seconds)
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
