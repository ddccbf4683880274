//! The Debian root below everything else in a node.

use std::{
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    Build,
    cache::{file_error, remove},
    mirror,
    program::Program,
    recipe::{self, Key},
};
use crate::Result;

/// The release. systemd 252 in it is the last of Debian's that boots on cgroup v1 as it is.
pub(super) const RELEASE: &str = "bookworm";

/// Counts changes of what this module does to the root, which the recipe's files do not show.
const REVISION: &str = "1";

/// Where dpkg's records are, out of `/var`: they belong to the image, and each node has a `/var` of its own.
const DPKG: &str = "usr/lib/sysimage/dpkg";

/// A root of Debian.
#[derive(Debug)]
pub(super) struct Debian {
    /// Its directory.
    pub(super) root: PathBuf,
    /// What it was made from. Not the versions of the packages: those are whatever the mirror had.
    pub(super) key: String,
}

/// Installs the packages of the recipe, or finds them in the cache.
pub(super) async fn root(build: &Build<'_>) -> Result<Debian> {
    let key = Key::default()
        .with_files("debian")
        .with(RELEASE)
        .with(REVISION)
        .with(std::env::consts::ARCH)
        .finish();
    if let Some(root) = build.cache.find("debian", &key) {
        return Ok(Debian { root, key });
    }
    let scratch = build.cache.scratch()?;
    let root = scratch.path().join("root");
    install(build, &root).await?;
    let tidied = tokio::task::spawn_blocking({
        let root = root.clone();
        move || tidy(&root)
    });
    let tidying = file_error("tidy the Debian root", build.cache.root());
    tidied.await.map_err(io::Error::other).and_then(|result| result).map_err(tidying)?;
    // mmdebstrap mounts /proc and the like in the root; they must be gone before anything is removed.
    let root = build.cache.commit(&root, "debian", &key)?;
    remove(scratch.path())?;
    Ok(Debian { root, key })
}

async fn install(build: &Build<'_>, root: &Path) -> Result<()> {
    let packages: Vec<_> = recipe::lines("debian/packages").collect();
    // A pid namespace of its own: when the build is given up, dpkg and its scripts go with it. And a mount namespace,
    // for what mmdebstrap mounts in the new root.
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    let mut program = Program::new(&build.tools.unshare, "install Debian's packages")
        .kill_when_dropped()
        .args(namespaces)
        .args([build.tools.mmdebstrap.as_os_str()])
        .args(["--mode=root", "--format=directory", "--variant=minbase", "--components=main"])
        .args([format!("--include={}", packages.join(","))])
        .args(["--aptopt=APT::Install-Recommends \"false\""])
        .args(["man", "locale", "doc"].map(|folder| format!("--dpkgopt=path-exclude=/usr/share/{folder}/*")))
        .args(["--dpkgopt=path-include=/usr/share/doc/*/copyright"])
        .env("LC_ALL", "C.UTF-8");
    for option in mirror::apt_options(build.reporter).await {
        program = program.args([format!("--aptopt={option}")]);
    }
    program = program.args([RELEASE]).args([root]).args(mirror::mirrors(RELEASE));
    program.run(build.reporter).await?;
    Ok(())
}

/// Takes out what a node does not need.
fn tidy(root: &Path) -> io::Result<()> {
    for path in recipe::lines("debian/remove") {
        match path.strip_suffix("/*") {
            Some(directory) => empty(&root.join(directory))?,
            None => remove_any(&root.join(path))?,
        }
    }
    for units in ["etc/systemd/system", "usr/lib/systemd/system"] {
        unhook_units(&root.join(units))?;
    }
    fs_err::create_dir_all(root.join("usr/lib/sysimage"))?;
    fs_err::rename(root.join("var/lib/dpkg"), root.join(DPKG))?;
    symlink(Path::new("../..").join(DPKG), root.join("var/lib/dpkg"))?;
    // Empty, and so made when a node first starts.
    fs_err::write(root.join("etc/machine-id"), "")
}

/// Removes what targets pull in, but for the units of the recipe.
fn unhook_units(units: &Path) -> io::Result<()> {
    let kept: Vec<_> = recipe::lines("debian/boot-units").collect();
    for entry in fs_err::read_dir(units)? {
        let path = entry?.path();
        let is_hook =
            path.extension().is_some_and(|extension| extension == "wants" || extension == "requires");
        if !is_hook {
            continue;
        }
        for unit in fs_err::read_dir(&path)? {
            let unit = unit?;
            if !unit.file_name().to_str().is_some_and(|name| kept.contains(&name)) {
                fs_err::remove_file(unit.path())?;
            }
        }
    }
    Ok(())
}

fn empty(directory: &Path) -> io::Result<()> {
    match fs_err::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                remove_any(&entry?.path())?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_any(path: &Path) -> io::Result<()> {
    match fs_err::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs_err::remove_dir_all(path),
        Ok(_) => fs_err::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_keeps_its_packages_and_loses_what_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let wants = root.join("usr/lib/systemd/system/sysinit.target.wants");
        for directory in ["etc/systemd/system", "var/lib/dpkg", "var/cache/apt", "dev", "usr/share/info"] {
            fs_err::create_dir_all(root.join(directory)).unwrap();
        }
        fs_err::create_dir_all(&wants).unwrap();
        for unit in ["systemd-journald.service", "systemd-binfmt.service"] {
            symlink(format!("../{unit}"), wants.join(unit)).unwrap();
        }
        fs_err::write(root.join("var/lib/dpkg/status"), "Package: x").unwrap();

        tidy(root).unwrap();

        assert_eq!(fs_err::read_to_string(root.join("var/lib/dpkg/status")).unwrap(), "Package: x");
        assert!(fs_err::symlink_metadata(root.join("var/lib/dpkg")).unwrap().is_symlink());
        assert!(wants.join("systemd-journald.service").is_symlink());
        assert!(!wants.join("systemd-binfmt.service").is_symlink());
        assert!(root.join("var/cache").exists() && !root.join("var/cache/apt").exists());
        assert!(!root.join("usr/share/info").exists());
        assert_eq!(fs_err::read_to_string(root.join("etc/machine-id")).unwrap(), "");
    }
}
