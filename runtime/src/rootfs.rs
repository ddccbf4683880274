//! The container's root: an overlay, mounted where nobody else sees it.

use std::path::Path;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{Error, Result, RootFilesystem};

/// `mount(2)` takes one page of options.
const MOUNT_DATA_LIMIT: usize = 4095;

/// Gives the calling process a mount namespace of its own: it still sees what the host mounts later, but nothing
/// that is mounted here reaches the host, and all of it goes with the last process inside. A node that was killed in
/// any way therefore leaves no mount behind.
///
/// # Errors
/// [`Error::System`] when the kernel refuses.
#[expect(clippy::disallowed_methods, reason = "the monitor is a process of one thread")]
pub(crate) fn enter_private_mount_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(Error::system("make a mount namespace"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(Error::system("detach the mount namespace from the host's"))
}

/// Mounts the overlay at `target`, which is made. `upper` and `work` are made too.
///
/// # Errors
/// [`Error::System`] when the kernel refuses, [`Error::File`] when a directory cannot be made.
pub(crate) fn mount_overlay(root: &RootFilesystem, target: &Path) -> Result<()> {
    for directory in [target, &root.upper, &root.work] {
        fs_err::create_dir_all(directory).map_err(Error::file("make a directory of the container's root"))?;
    }
    let options = overlay_options(root)?;
    mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(Error::system("mount the container's root"))
}

fn overlay_options(root: &RootFilesystem) -> Result<String> {
    let lowers: Vec<String> = root.lowers.iter().map(|path| escape(path.as_path())).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lowers.join(":"),
        escape(&root.upper),
        escape(&root.work)
    );
    if options.len() > MOUNT_DATA_LIMIT {
        let reason = format!("the paths of {} layers do not fit into a mount call", root.lowers.len());
        return Err(Error::system("mount the container's root")(std::io::Error::other(reason)));
    }
    Ok(options)
}

/// overlayfs splits its options at commas and lower directories at colons; a backslash takes either literally.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        let root = RootFilesystem {
            lowers: vec!["/a:b".into(), "/c".into()],
            upper: "/u,1".into(),
            work: "/w".into(),
        };
        assert_eq!(overlay_options(&root).unwrap(), r"lowerdir=/a\:b:/c,upperdir=/u\,1,workdir=/w");
    }

    #[test]
    fn too_many_layers_are_an_error_and_not_a_cut_option() {
        let lowers = (0..200).map(|i| PathBuf::from(format!("/{}/{i}", "x".repeat(60)))).collect();
        let root = RootFilesystem { lowers, upper: "/u".into(), work: "/w".into() };
        assert!(overlay_options(&root).is_err());
    }
}
