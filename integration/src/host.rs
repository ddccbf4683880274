//! Changes to the host that a test makes by its programs, and takes back.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a program of the host to its end.
///
/// # Panics
/// When it does not start, or fails.
#[track_caller]
pub fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    let status = status.unwrap_or_else(|error| panic!("{program} did not start: {error}"));
    assert!(status.success(), "{program} {} failed: {status}", args.join(" "));
}

/// A path of a test's own, which is text.
///
/// # Panics
/// When it is not.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test is text")
}

/// A file system that a test has mounted, unmounted with all below it when this is dropped.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Makes the directory `target` and mounts at it; `args` are mount(8)'s, less the target.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new(args: &[&str], target: &Path) -> Self {
        fs_err::create_dir_all(target).expect("a directory of the test");
        run("mount", &[args, &[text(target)]].concat());
        Self(target.to_owned())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--recursive").arg(&self.0).status();
    }
}
