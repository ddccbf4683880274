//! The programs of the host that a build needs, looked for before anything is made.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{component, gomod, program::Program, recipe};
use crate::{Error, Reporter, Result};

/// Where Go is put when its archive is unpacked as its documentation says; `sudo` drops it from `PATH`.
const GO_DIRECTORY: &str = "/usr/local/go/bin";

/// Go from this version on fetches the version that a module asks for.
const GO_WITH_TOOLCHAINS: gomod::Version = (1, 21, 0);

/// The programs, with the versions that what they make depends on.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) go: PathBuf,
    pub(super) go_version: String,
    pub(super) gcc: PathBuf,
    pub(super) gcc_version: String,
    pub(super) libseccomp_version: String,
    pub(super) mmdebstrap: PathBuf,
    pub(super) unshare: PathBuf,
    /// Only needed for sources that are downloaded.
    pub(super) curl: Option<PathBuf>,
    /// Variables without which Go does not know where to keep what it fetches and compiles.
    go_directories: Vec<(&'static str, OsString)>,
}

impl Tools {
    /// Looks for all of them. `cache` takes what Go keeps when the environment names no place.
    ///
    /// # Errors
    /// [`Error::MissingTools`] with everything that is missing.
    pub(super) async fn find(cache: &Path, reporter: &dyn Reporter) -> Result<Self> {
        let mut missing = Missing::default();
        let mut tools = Self::look_for_go(cache, &mut missing, reporter).await?;
        let mut need = |name: &str, package: &str| {
            let found = find_program(name, &[]);
            if found.is_none() {
                missing.add(format!("{name}, and none is in PATH"), &format!("apt-get install {package}"));
            }
            found.unwrap_or_default()
        };
        let gcc = need("gcc", "gcc libc6-dev");
        let pkg_config = need("pkg-config", "pkg-config");
        let mmdebstrap = need("mmdebstrap", "mmdebstrap");
        let unshare = need("unshare", "util-linux");

        let mut libseccomp_version = String::new();
        if !pkg_config.as_os_str().is_empty() {
            let query = Program::new(&pkg_config, "look for libseccomp").args(["--modversion", "libseccomp"]);
            match query.run(reporter).await {
                Ok(version) => version.trim().clone_into(&mut libseccomp_version),
                Err(Error::Program { .. }) => missing.add(
                    "the headers of libseccomp, and pkg-config knows none".to_owned(),
                    "apt-get install libseccomp-dev",
                ),
                Err(error) => return Err(error),
            }
        }
        missing.into_result()?;
        let gcc_version = Program::new(&gcc, "ask for the version of gcc").args(["-dumpfullversion"]);
        tools.gcc_version = gcc_version.run(reporter).await?.trim().to_owned();
        Ok(Self { gcc, libseccomp_version, mmdebstrap, unshare, curl: find_program("curl", &[]), ..tools })
    }

    /// Looks for Go alone, which is enough for a program without C; of the others nothing is known then.
    ///
    /// # Errors
    /// [`Error::MissingTools`].
    pub(super) async fn find_go(cache: &Path, reporter: &dyn Reporter) -> Result<Self> {
        let mut missing = Missing::default();
        let tools = Self::look_for_go(cache, &mut missing, reporter).await?;
        missing.into_result()?;
        Ok(tools)
    }

    async fn look_for_go(cache: &Path, missing: &mut Missing, reporter: &dyn Reporter) -> Result<Self> {
        let go_directories = go_directories(cache);
        let needed = needed_go();
        let go_cure = "get go from https://go.dev/dl/ and put its bin directory into PATH";
        let mut tools = Self { go_directories, ..Self::default() };
        let Some(go) = find_program("go", &[GO_DIRECTORY]) else {
            missing.add(format!("go ≥ {}, and none is in PATH", gomod::display(needed)), go_cure);
            return Ok(tools);
        };
        let mut program =
            Program::new(&go, "ask for the version of go").args(["env", "GOVERSION", "GOTOOLCHAIN"]);
        for (name, value) in &tools.go_directories {
            program = program.env(name, value);
        }
        let output = program.directory(Path::new("/")).run(reporter).await?;
        let mut lines = output.lines();
        lines.next().unwrap_or_default().clone_into(&mut tools.go_version);
        let fetches = lines.next().is_some_and(|toolchain| toolchain.contains("auto"));
        if !go_is_enough(&tools.go_version, fetches, needed) {
            let found = tools.go_version.trim_start_matches("go");
            missing.add(format!("go ≥ {}, and go {found} is in PATH", gomod::display(needed)), go_cure);
        }
        tools.go = go;
        Ok(tools)
    }

    /// A call of Go, protected from settings that are meant for other work.
    pub(super) fn go(&self, what: impl Into<String>) -> Program {
        let mut program = Program::new(&self.go, what)
            .env("GOFLAGS", "-buildvcs=false")
            .env("GOWORK", "off")
            .env("GO111MODULE", "on")
            .env("GOOS", "")
            .env("GOARCH", "");
        for (name, value) in &self.go_directories {
            program = program.env(name, value);
        }
        program
    }
}

/// What is missing, and where to get it.
#[derive(Debug, Default)]
struct Missing {
    missing: Vec<String>,
    cures: Vec<String>,
}

impl Missing {
    fn add(&mut self, what: String, cure: &str) {
        self.missing.push(what);
        self.cures.push(cure.to_owned());
    }

    fn into_result(self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(Error::MissingTools { missing: self.missing, cures: self.cures })
    }
}

/// The newest version of Go that a module of the recipe asks for.
fn needed_go() -> gomod::Version {
    let components = component::ALL.into_iter().chain([&component::REGISTRY]);
    let modules = components.map(|component| recipe::text(&format!("{}/go.mod", component.name)));
    modules.filter_map(gomod::go_directive).max().unwrap_or_default()
}

fn go_is_enough(version: &str, fetches_others: bool, needed: gomod::Version) -> bool {
    // Development versions are named otherwise; they are new.
    let Some(version) = version.strip_prefix("go").and_then(gomod::parse_version) else { return true };
    version >= needed || (fetches_others && version >= GO_WITH_TOOLCHAINS)
}

/// Go refuses to work without a home directory, which services and CI jobs may lack.
fn go_directories(cache: &Path) -> Vec<(&'static str, OsString)> {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let mut directories = Vec::new();
    if unset("HOME") {
        if unset("GOCACHE") && unset("XDG_CACHE_HOME") {
            directories.push(("GOCACHE", cache.join("go-build").into()));
        }
        if unset("GOPATH") {
            directories.push(("GOPATH", cache.join("go").into()));
        }
    }
    directories
}

/// Looks for a program in `PATH` and then in other directories.
fn find_program(name: &str, others: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(others.iter().map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs_err::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_path_and_elsewhere() {
        assert!(find_program("sh", &[]).is_some());
        assert!(find_program("no-such-program", &["/bin"]).is_none());
        assert!(find_program("passwd", &["/etc"]).is_none_or(|path| path != Path::new("/etc/passwd")));
    }

    #[test]
    fn an_old_go_is_enough_only_if_it_fetches_a_new_one() {
        let needed = (1, 26, 6);
        assert!(go_is_enough("go1.26.8", false, needed));
        assert!(go_is_enough("go1.27rc1", false, needed));
        assert!(!go_is_enough("go1.26.5", false, needed));
        assert!(go_is_enough("go1.22.1", true, needed));
        assert!(!go_is_enough("go1.19.8", true, needed));
    }

    #[test]
    fn the_newest_directive_of_all_modules_counts() {
        assert!(needed_go() >= (1, 26, 0));
    }
}
