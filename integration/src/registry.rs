//! A real registry (CNCF's distribution) on loopback, and an independent client of registries (crane), both built from
//! their Go modules.

use std::{
    ffi::OsString,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fixture::{kept, or_skip},
    kiln::LONG,
    running::{Finished, Running},
};

/// The registry, and the version that was tested.
const REGISTRY: (&str, &str) = ("github.com/distribution/distribution/v3/cmd/registry", "v3.1.2");
/// The client.
const CRANE: (&str, &str) = ("github.com/google/go-containerregistry/cmd/crane", "v0.22.1");
/// How long a build may take on a slow machine, downloads included.
const BUILD: Duration = Duration::from_secs(900);
/// How long a registry may take to answer.
const START: Duration = Duration::from_secs(20);

/// The programs.
#[derive(Clone, Debug)]
pub struct Tools {
    registry: PathBuf,
    crane: PathBuf,
}

impl Tools {
    /// Builds what is not there yet, into the target directory that the test was built in. `None` where the test may be
    /// skipped for want of them.
    ///
    /// # Panics
    /// Where it may not, when there is no Go, or it cannot build them.
    #[must_use]
    pub fn open() -> Option<Self> {
        or_skip(Self::build())
    }

    fn build() -> Result<Self, String> {
        let directory = kept("go-tools")?;
        Ok(Self { registry: built(&directory, REGISTRY)?, crane: built(&directory, CRANE)? })
    }

    /// Starts a registry that keeps what it has in `directory`, with more variables for its configuration.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn registry(&self, directory: &Path, environment: &[(&str, &str)]) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let config = directory.join(format!("registry-{port}.yaml"));
        let data = directory.join(format!("registry-{port}"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            data.display()
        );
        fs_err::write(&config, text).expect("a file");
        let mut command = Command::new(&self.registry);
        command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut registry = Registry { child: command.spawn().expect("the registry starts"), port, data };
        let deadline = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = registry.child.try_wait().expect("a child of ours");
            assert!(ended.is_none() && Instant::now() < deadline, "the registry does not start: {ended:?}");
            // It does not tell when it listens.
            thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// Runs crane.
    #[track_caller]
    pub fn crane(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(&self.crane);
        command.args(args);
        Running::spawn(command, Vec::new()).wait(LONG)
    }
}

/// A registry that runs; it ends with this.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl Registry {
    /// The name of an image in it.
    #[must_use]
    pub fn name(&self, rest: &str) -> String {
        format!("localhost:{}/{rest}", self.port)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps the content of a blob or manifest.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.data.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, and what it was for is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn built(directory: &Path, (package, version): (&str, &str)) -> Result<PathBuf, String> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let directory = directory.join(format!("{name}-{version}"));
    let program = directory.join(name);
    if program.is_file() {
        return Ok(program);
    }
    let mut command = Command::new("go");
    command.arg("install").arg(format!("{package}@{version}"));
    let settings: [(&str, OsString); 3] =
        [("GOBIN", directory.into_os_string()), ("GOFLAGS", OsString::new()), ("CGO_ENABLED", "0".into())];
    command.envs(settings);
    let found = Command::new("go").arg("version").output();
    if !found.is_ok_and(|output| output.status.success()) {
        return Err(format!("{name} is built with Go, which is not there"));
    }
    let finished = Running::spawn(command, Vec::new()).wait(BUILD);
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{name} cannot be built: {}", finished.report()))
    }
}
