//! The binary under test and the ways to call it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::running::{Finished, Running};

/// How long a command that starts no cluster may take.
pub const SHORT: Duration = Duration::from_secs(60);
/// How long a command that starts a whole cluster may take. A quiet machine needs a tenth of it.
pub const LONG: Duration = Duration::from_secs(300);

/// The binary under test with the environment it gets.
#[derive(Clone, Debug)]
pub struct Kiln {
    binary: PathBuf,
    environment: Vec<(String, OsString)>,
}

impl Kiln {
    /// The binary, with the variables of `environment` on top of ours.
    #[must_use]
    pub fn new(binary: PathBuf, environment: Vec<(String, OsString)>) -> Self {
        Self { binary, environment }
    }

    /// `KILN_BIN`, or `release/kiln` of the target directory that the running test was built in.
    ///
    /// # Errors
    /// A sentence for people when there is no such file.
    pub fn locate() -> Result<PathBuf, String> {
        let binary = match std::env::var_os("KILN_BIN") {
            Some(binary) => PathBuf::from(binary),
            None => {
                let test = std::env::current_exe()
                    .map_err(|error| format!("no path of the test itself: {error}"))?;
                let target = test.ancestors().find(|directory| {
                    directory.join("release").is_dir() && directory.join("CACHEDIR.TAG").is_file()
                });
                target.unwrap_or(Path::new("target")).join("release/kiln")
            }
        };
        if !binary.is_file() {
            return Err(format!("{} is not there: run `make build`, or set KILN_BIN", binary.display()));
        }
        std::path::absolute(&binary).map_err(|error| format!("{}: {error}", binary.display()))
    }

    /// The path of the binary.
    #[must_use]
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The same binary with one more variable.
    #[must_use]
    pub fn with_env(&self, name: &str, value: impl Into<OsString>) -> Self {
        let mut changed = self.clone();
        changed.environment.push((name.to_owned(), value.into()));
        changed
    }

    /// A plain command, for callers that set stdio themselves.
    #[must_use]
    pub fn command(&self) -> Command {
        self.prepare(Command::new(&self.binary))
    }

    /// Runs with nothing on stdin and waits at most [`SHORT`].
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Finished {
        self.start(args).wait(SHORT)
    }

    /// Runs with `input` on stdin and waits at most `limit`.
    #[track_caller]
    pub fn run_with(&self, args: &[&str], input: &[u8], limit: Duration) -> Finished {
        let mut command = self.command();
        command.args(args);
        Running::spawn(command, input.to_vec()).wait(limit)
    }

    /// Starts it in a process group of its own and returns at once.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command();
        command.args(args);
        Running::spawn(command, Vec::new())
    }

    /// Runs another program (such as `script`) with the environment of the binary under test.
    #[track_caller]
    pub fn run_other(&self, program: &str, args: &[&str], limit: Duration) -> Finished {
        let mut command = self.prepare(Command::new(program));
        command.args(args);
        Running::spawn(command, Vec::new()).wait(limit)
    }

    /// `kiln kubectl` against a cluster; `args` as for kubectl.
    #[track_caller]
    pub fn kubectl(&self, cluster: &str, args: &[&str]) -> Finished {
        self.kubectl_with(cluster, args, b"", Duration::from_secs(150))
    }

    /// `kiln kubectl` with something on stdin.
    #[track_caller]
    pub fn kubectl_with(&self, cluster: &str, args: &[&str], input: &[u8], limit: Duration) -> Finished {
        let mut all = vec!["kubectl", "--name", cluster, "--"];
        all.extend(args);
        self.run_with(&all, input, limit)
    }

    fn prepare(&self, mut command: Command) -> Command {
        // A cluster name of the developer's own shell must not reach the test.
        command.env_remove("KIND_CLUSTER_NAME").env_remove("KILN_STOP_AFTER").env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}
