//! One test's hold on the host: nothing else tests meanwhile, and nothing of it stays.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    kiln::{Kiln, LONG},
    oracle::{Scope, Snapshot},
    running::Finished,
};

/// The names of all clusters of tests begin so: the next test removes what a killed one left.
const PREFIX: &str = "it-";
/// Tests of other target directories wait too: the oracle looks at the whole host.
const LOCK: &str = "/run/lock/kiln-integration.lock";

/// The host for one test, with a kubeconfig and a temporary directory of its own.
#[derive(Debug)]
pub struct Fixture {
    kiln: Kiln,
    scope: Scope,
    before: Snapshot,
    directory: TempDir,
    _lock: File,
}

impl Fixture {
    /// Waits for the host, removes what a killed test left and takes the snapshot that the end is compared with.
    ///
    /// `None`, with a line that says why, when this is not the place for such a test; with
    /// `KILN_REQUIRE_ROOT_TESTS=1` that is a failure instead.
    ///
    /// # Panics
    /// When the host cannot be prepared.
    #[must_use]
    pub fn open() -> Option<Self> {
        let (binary, directory, lock) = or_skip(prepare())?;
        let (state_root, run_root) = roots();
        let temporary = directory.path().join("tmp");
        fs_err::create_dir(&temporary).expect("a directory in a new directory");
        let environment: Vec<(String, OsString)> = vec![
            ("KUBECONFIG".into(), directory.path().join("kubeconfig").into()),
            ("TMPDIR".into(), temporary.clone().into()),
        ];
        let kiln = Kiln::new(binary, environment);
        remove_clusters(&kiln);
        remove_standbys(&kiln, &state_root);
        remove_registries(&kiln, &state_root);
        let scope = Scope { binary: kiln.binary().to_owned(), state_root, run_root, temporary };
        let before = Snapshot::take(&scope);
        Some(Self { kiln, scope, before, directory, _lock: lock })
    }

    /// The binary under test.
    #[must_use]
    pub fn kiln(&self) -> &Kiln {
        &self.kiln
    }

    /// A directory for the test's own files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The kubeconfig that the binary merges into.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Where the binary keeps images and clusters.
    #[must_use]
    pub fn state_root(&self) -> &Path {
        &self.scope.state_root
    }

    /// What the oracle is told.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The names that `get clusters` prints.
    #[track_caller]
    pub fn clusters(&self) -> Vec<String> {
        clusters(&self.kiln)
    }

    /// `create cluster --name NAME`, waited for.
    #[track_caller]
    pub fn create(&self, name: &str, more: &[&str]) -> Finished {
        let mut args = vec!["create", "cluster", "--name", name];
        args.extend(more);
        self.kiln.start(&args).wait(LONG)
    }

    /// `delete cluster --name NAME`, which must succeed.
    #[track_caller]
    pub fn delete(&self, name: &str) -> Finished {
        self.kiln.run(&["delete", "cluster", "--name", name]).succeeded()
    }

    /// What is on the host now and was not when the fixture was opened. Waits a little for the kernel, which frees
    /// network namespaces and what is in them some time after their last process has ended.
    #[must_use]
    pub fn leaks(&self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            let leaks = self.leaks_now();
            if leaks.is_empty() || Instant::now() > deadline {
                return leaks;
            }
            // The kernel does not tell when its deferred work is done.
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// As [`Fixture::leaks`], without waiting.
    #[must_use]
    pub fn leaks_now(&self) -> Vec<String> {
        let mut leaks = Snapshot::take(&self.scope).leaks_since(&self.before);
        let kubeconfig = fs_err::read_to_string(self.kubeconfig()).unwrap_or_default();
        let entry = format!("kind-{PREFIX}");
        leaks.extend(
            kubeconfig.lines().filter(|line| line.contains(&entry)).map(|line| format!("kubeconfig {line}")),
        );
        let lock = self.directory.path().join("kubeconfig.lock");
        leaks.extend(lock.exists().then(|| format!("file {}", lock.display())));
        leaks
    }

    /// Fails the test when anything is left of what it made.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let clusters = self.clusters();
        assert!(!clusters.iter().any(|name| name.starts_with(PREFIX)), "clusters are left: {clusters:?}");
        let leaks = self.leaks();
        assert!(leaks.is_empty(), "{} things are left:\n- {}", leaks.len(), leaks.join("\n- "));
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // After a failure only: a test that passes has deleted its clusters itself.
        if thread::panicking() {
            for name in listed(&self.kiln).unwrap_or_default().iter().filter(|name| name.starts_with(PREFIX))
            {
                eprintln!("cleaning up cluster {name}");
                let args = ["delete", "cluster", "--name", name];
                let _ = self.kiln.command().args(args).status();
            }
            remove_standbys(&self.kiln, &self.scope.state_root);
            remove_registries(&self.kiln, &self.scope.state_root);
        }
    }
}

/// The state root and the run root that the binary uses, by the same variables.
#[must_use]
pub fn roots() -> (PathBuf, PathBuf) {
    let state = std::env::var_os("KILN_ROOT").map(PathBuf::from);
    let run = std::env::var_os("KILN_RUN_ROOT").map(PathBuf::from).unwrap_or_else(|| match &state {
        Some(state) if state != Path::new("/var/lib/kiln") => state.join("run"),
        _ => PathBuf::from("/run/kiln"),
    });
    (state.unwrap_or_else(|| PathBuf::from("/var/lib/kiln")), run)
}

/// What a test cannot run without; `None`, and a line that says why, where it may be skipped.
///
/// # Panics
/// Where tests are not to be skipped, by `KILN_REQUIRE_ROOT_TESTS`.
#[track_caller]
pub(crate) fn or_skip<T>(prepared: Result<T, String>) -> Option<T> {
    prepared
        .map_err(|reason| {
            let required = std::env::var_os("KILN_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
            assert!(!required, "this test cannot run: {reason}");
            eprintln!("skipped: {reason}");
        })
        .ok()
}

/// A directory for what took long to make or to fetch: it stays in the target directory that the test was built in.
pub(crate) fn kept(name: &str) -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| format!("no path of the test itself: {error}"))?;
    let target = test.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(target.unwrap_or(Path::new("/tmp")).join(name))
}

fn prepare() -> Result<(PathBuf, TempDir, File), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    let binary = Kiln::locate()?;
    let directory = tempfile::Builder::new().prefix("it-").tempdir().map_err(|error| error.to_string())?;
    fs_err::create_dir_all("/run/lock").map_err(|error| error.to_string())?;
    let (lock, _) = fs_err::File::create(LOCK).map_err(|error| error.to_string())?.into_parts();
    lock.lock().map_err(|error| format!("{LOCK}: {error}"))?;
    Ok((binary, directory, lock))
}

#[track_caller]
fn remove_clusters(kiln: &Kiln) {
    for name in clusters(kiln).iter().filter(|name| name.starts_with(PREFIX)) {
        let _ = kiln.run(&["delete", "cluster", "--name", name]).succeeded();
    }
}

/// Removes the clusters that tests have booted ahead, of every name of theirs.
fn remove_standbys(kiln: &Kiln, state_root: &Path) {
    let entries = fs_err::read_dir(state_root.join("pool")).into_iter().flatten().flatten();
    let handles = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: BTreeSet<String> = handles
        .filter(|handle| handle.starts_with(PREFIX))
        .filter_map(|handle| Some(handle.rsplit_once('_')?.0.to_owned()))
        .collect();
    for name in names {
        eprintln!("cleaning up standbys of {name}");
        let _ = kiln.command().args(["pool", "drain", "--name", &name]).status();
    }
}

/// Removes the registries of tests, and what they have kept.
fn remove_registries(kiln: &Kiln, state_root: &Path) {
    for directory in ["registries", "registry-data"] {
        for entry in fs_err::read_dir(state_root.join(directory)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(PREFIX) {
                eprintln!("cleaning up registry {}", name.display());
                let _ = kiln.command().args(["registry", "delete"]).arg(name).status();
            }
        }
    }
}

#[track_caller]
fn clusters(kiln: &Kiln) -> Vec<String> {
    let finished = kiln.run(&["get", "clusters"]).succeeded();
    finished.stdout().lines().map(str::to_owned).collect()
}

fn listed(kiln: &Kiln) -> Option<Vec<String>> {
    let output = kiln.command().args(["get", "clusters"]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// A file or directory that belongs to the tests. Where the checkout is, cargo says when they run: it takes a test that another
/// checkout has compiled into the same target directory.
///
/// # Panics
/// When the test is not run by cargo.
#[must_use]
pub fn data(name: &str) -> PathBuf {
    let directory = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests, and sets it");
    Path::new(&directory).join("tests/data").join(name)
}
