//! Whether nodes can have their roots: overlays with their changes on the disk of the state root.

use std::{io, path::Path, thread};

use fs_err as fs;
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use super::{Finding, existing};
use crate::Paths;

const CHECK: &str = "overlay";

pub(super) fn finding(paths: &Paths) -> Finding {
    let directory = existing(paths.state());
    if !rustix::process::geteuid().is_root() {
        return Finding::warning(CHECK, "not tried without root", "run doctor as root");
    }
    match try_overlay(&directory) {
        Ok(()) => Finding::ok(CHECK, format!("works on the disk of {}", directory.display())),
        Err(error) => Finding::problem(
            CHECK,
            format!("does not work in {}: {error}", directory.display()),
            "choose a directory on ext4, xfs or btrfs with --root or KILN_ROOT, and make sure the kernel has overlayfs",
        ),
    }
}

/// Mounts an overlay with its changes in a new directory below `directory` and writes to it.
fn try_overlay(directory: &Path) -> io::Result<()> {
    let scratch = tempfile::Builder::new().prefix(".kiln-doctor-").tempdir_in(directory)?;
    let path = scratch.path().to_owned();
    // A thread of its own: the namespace, and with it the mount, ends with the thread.
    let result = thread::Builder::new()
        .name("overlay-check".to_owned())
        .spawn(move || in_own_mount_namespace(&path))?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the check panicked")));
    let closed = scratch.close();
    result.and(closed)
}

fn in_own_mount_namespace(scratch: &Path) -> io::Result<()> {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scratch.join(name));
    for directory in [&lower, &upper, &work, &merged] {
        fs::create_dir(directory)?;
    }
    fs::write(lower.join("file"), "below")?;
    // Unpacked layers say with this attribute that a directory hides what is below it.
    xattr::set(&lower, "trusted.overlay.opaque", b"y")?;

    #[expect(clippy::disallowed_methods, reason = "this thread does nothing else and ends right after")]
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    // Where the host's mounts are shared, a mount made here would appear there too.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;

    // Relative to the working directory, which unsharing the namespace has made the thread's own: the paths may hold
    // characters that mean something in mount options.
    rustix::process::chdir(scratch)?;
    mount(
        "overlay",
        "merged",
        "overlay",
        MountFlags::empty(),
        Some(c"lowerdir=lower,upperdir=upper,workdir=work"),
    )?;
    let written = fs::write(merged.join("file"), "above");
    // The namespace would do it too, but only some time after the thread has ended.
    unmount("merged", UnmountFlags::empty())?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trying_leaves_no_mount_and_no_file() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let working_directory = std::env::current_dir().unwrap();
        let result = try_overlay(directory.path());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{result:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(".kiln-doctor-"), "{mounts}");
        assert_eq!(std::env::current_dir().unwrap(), working_directory);
    }

    #[test]
    fn a_place_without_support_is_an_error() {
        // No directory can be made there, by anybody.
        assert!(try_overlay(Path::new("/proc/self")).is_err());
    }
}
