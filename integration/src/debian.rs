//! Programs of Debian's packages, of any release, without installing them on the host.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    fixture::{kept, or_skip},
    running::Running,
};

/// How long it may take to fetch a package with what it depends on.
const FETCH: Duration = Duration::from_secs(300);

/// The directory with the programs of a package, fetched if they are not there yet. `None` where the test may be skipped
/// for want of them.
///
/// # Panics
/// Where it may not, and they cannot be had.
#[must_use]
pub fn programs(release: &str, package: &str) -> Option<PathBuf> {
    or_skip(fetched(release, package))
}

fn fetched(release: &str, package: &str) -> Result<PathBuf, String> {
    let directory = kept("debian")?;
    let programs = directory.join(format!("{package}-{release}"));
    if programs.is_dir() {
        return Ok(programs);
    }
    let found = Command::new("mmdebstrap").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err(format!("mmdebstrap, which fetches {package}, is not there"));
    }
    let failed = |error: std::io::Error| format!("{package} cannot be kept: {error}");
    fs_err::create_dir_all(&directory).map_err(failed)?;
    let scratch = tempfile::tempdir_in(&directory).map_err(failed)?;
    let root = scratch.path().join("root");
    let mut command = Command::new("mmdebstrap");
    // Unpacked, with what the package depends on, and nothing of it run.
    command.args(["--mode=root", "--variant=extract", "--format=directory", "--components=main"]);
    command.arg(format!("--include={package}")).arg(release).arg(&root);
    let finished = Running::spawn(command, Vec::new()).wait(FETCH);
    // The programs are all of it that is kept.
    fs_err::rename(root.join("usr/bin"), &programs)
        .map_err(|error| format!("{package} of {release} cannot be had: {error}\n{}", finished.report()))?;
    Ok(programs)
}
