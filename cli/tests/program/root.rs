//! State roots of tests, and what the program says in them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use fs_err as fs;
use tempfile::TempDir;

/// A state root with clusters of which nothing but their directories is there.
pub(crate) struct Root(TempDir);

impl Root {
    pub(crate) fn new(nodes: &[(&str, &str)]) -> Self {
        let root = Self(tempfile::tempdir().expect("a directory"));
        for (cluster, node) in nodes {
            let directory = root.path().join("state/clusters").join(cluster).join("nodes").join(node);
            fs::create_dir_all(directory).expect("a directory");
        }
        root
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("a file");
        path
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(line.split(' ').filter(|word| !word.is_empty()))
            .env_clear()
            .env("KILN_ROOT", self.path().join("state"))
            .env("KUBECONFIG", self.path().join("kubeconfig"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().expect("kiln runs"))
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        self
    }
}
