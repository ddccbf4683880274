//! Layers that take something away.

use std::{
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use super::inode;

/// Makes `root` a tree that, as a layer, hides each of `paths` (relative) in the layers below it.
pub(crate) fn whiteout_tree<'a>(root: &Path, paths: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    fs_err::create_dir_all(root)?;
    for path in paths {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut directory = root.to_owned();
        for name in parent {
            directory.push(name);
            if !directory.exists() {
                fs_err::create_dir(&directory)?;
                // Not subject to the umask.
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs_err::set_permissions(&directory, mode)?;
            }
        }
        inode::make_whiteout(fs_err::File::open(&directory)?.as_fd(), name.as_bytes())?;
    }
    Ok(())
}
