//! Stopping all processes of a container at once, and letting them go on.
//!
//! v2 has `cgroup.freeze` in every directory, v1 the controller `freezer`. A hybrid host has both, and then processes are
//! stopped by the one that nodes have always been in: v1's.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    Cgroup, Error, Result,
    cgroup::visit,
    hierarchy::{Hierarchy, Kind, hierarchies},
};

/// How long processes may take to stop. One that is in the middle of a write to a slow disk takes that long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The freezer of a cgroup.
enum Freezer {
    /// `freezer.state`: kernel's `Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst`.
    V1(PathBuf),
    /// `cgroup.freeze`: kernel's `Documentation/admin-guide/cgroup-v2.rst`.
    V2(PathBuf),
}

impl Freezer {
    fn of(cgroup: &Cgroup) -> Result<Self> {
        let hierarchies = hierarchies()?;
        let legacy = |hierarchy: &&Hierarchy| matches!(&hierarchy.kind, Kind::Legacy(controllers) if controllers.iter().any(|name| name == "freezer"));
        if let Some(hierarchy) = hierarchies.iter().find(legacy) {
            return Ok(Self::V1(hierarchy.join(&cgroup.path())));
        }
        match hierarchies.iter().find(|hierarchy| hierarchy.is_unified()) {
            Some(hierarchy) => Ok(Self::V2(hierarchy.join(&cgroup.path()))),
            None => Err(Error::NoCgroups),
        }
    }

    fn freeze(&self) -> std::io::Result<()> {
        match self {
            Self::V1(directory) => fs_err::write(directory.join("freezer.state"), "FROZEN"),
            Self::V2(directory) => fs_err::write(directory.join("cgroup.freeze"), "1"),
        }
    }

    fn is_frozen(&self) -> std::io::Result<bool> {
        match self {
            Self::V1(directory) => {
                Ok(fs_err::read_to_string(directory.join("freezer.state"))?.trim() == "FROZEN")
            }
            Self::V2(directory) => {
                let events = fs_err::read_to_string(directory.join("cgroup.events"))?;
                Ok(events.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    fn thaw(&self) -> std::io::Result<()> {
        match self {
            Self::V1(directory) => visit(directory, &mut thaw_v1),
            Self::V2(directory) => visit(directory, &mut |directory| {
                // Gone meanwhile: the next look finds out.
                let _ = fs_err::write(directory.join("cgroup.freeze"), "0");
            }),
        }
    }
}

fn thaw_v1(directory: &Path) {
    let state = directory.join("freezer.state");
    if fs_err::read_to_string(&state).is_ok_and(|state| state.trim() != "THAWED") {
        // Gone meanwhile, or below a frozen one: the next look finds out.
        let _ = fs_err::write(&state, "THAWED");
    }
}

impl Cgroup {
    /// Stops every process in it and below, and those that come into it. Returns when all have stopped. They keep their
    /// memory, use no processor time, and find the clocks gone on when they are [thawed](Self::thaw).
    ///
    /// # Errors
    /// [`Error::Unfreezable`], and then they all run; [`Error::File`] when there is no such cgroup.
    pub fn freeze(&self) -> Result<()> {
        let freezer = Freezer::of(self)?;
        let failed = |source| Error::file("freeze a cgroup")(source);
        let deadline = Instant::now() + TIMEOUT;
        let mut pause = Duration::from_millis(1);
        loop {
            // Again each time: on v1 a process that was started meanwhile is stopped by the next write only.
            freezer.freeze().map_err(failed)?;
            if freezer.is_frozen().map_err(failed)? {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.thaw()?;
                let (cgroup, seconds) = (self.path().display().to_string(), TIMEOUT.as_secs());
                return Err(Error::Unfreezable { cgroup, seconds });
            }
            // v1 has no event for it; it is a matter of milliseconds.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether every process in it and below is stopped.
    ///
    /// # Errors
    /// [`Error::File`] when there is no such cgroup.
    pub fn is_frozen(&self) -> Result<bool> {
        Freezer::of(self)?.is_frozen().map_err(Error::file("read the state of a cgroup"))
    }

    /// Lets the processes in it and below go on, whoever stopped them: runc freezes a pod for a moment while it sets up its
    /// devices, and may itself be killed in that moment. One that is not there is fine.
    ///
    /// # Errors
    /// [`Error::File`] when a directory cannot be listed.
    pub fn thaw(&self) -> Result<()> {
        Freezer::of(self)?.thaw().map_err(Error::file("thaw a cgroup"))
    }
}
