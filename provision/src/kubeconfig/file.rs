//! Reading and replacing a kubeconfig without ever losing it.
//!
//! Only a regular file is one. `/dev/null`, with which scripts keep their kubeconfig as it is, takes everything and holds
//! nothing; anything else (a pipe, that would never end, or a terminal) is refused before it is waited for.

use std::{
    io::{self, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use super::document::Kubeconfig;
use crate::{Error, Result};

/// The most bytes of a kubeconfig. One has a few kilobytes per cluster.
const LARGEST: u64 = 64 << 20;

/// The kernel gives up after as many links.
const MOST_LINKS: usize = 40;

/// Reads a kubeconfig; an absent one is empty.
pub(super) fn read(path: &Path) -> Result<Kubeconfig> {
    let text = read_text(path)?.unwrap_or_default();
    Kubeconfig::parse(&text, &format!("kubeconfig {}", path.display()))
}

/// Whether the file exists and contains `text` anywhere.
pub(super) fn mentions(path: &Path, text: &str) -> Result<bool> {
    Ok(read_text(path)?.is_some_and(|content| content.contains(text)))
}

/// Replaces the content of a kubeconfig, durably. A new file is readable by its owner only; an existing one keeps its
/// mode and owner. Where `path` is a link, the file it leads to is replaced and the link stays. The caller holds the
/// file's lock.
pub(super) fn write(path: &Path, content: &str) -> Result<()> {
    replace(path, content.as_bytes()).map_err(|source| Error::KubeconfigFile {
        what: "write",
        path: path.to_owned(),
        source,
    })
}

/// Whether the path leads to the null device.
pub(super) fn is_null(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| is_null_device(&metadata))
}

fn is_null_device(metadata: &std::fs::Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == rustix::fs::makedev(1, 3)
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match read_regular(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::KubeconfigFile { what: "read", path: path.to_owned(), source }),
    }
}

fn read_regular(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for somebody to open its other end.
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking()).open(path)?;
    let metadata = file.metadata()?;
    if is_null_device(&metadata) {
        return Ok(String::new());
    }
    check_regular(&metadata)?;
    if metadata.len() > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    let mut text = String::new();
    // A file that grows while it is read is no kubeconfig either.
    file.take(LARGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn check_regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(())
}

/// The flag of `open` that lets it return at once.
fn nonblocking() -> i32 {
    i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default()
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let target = resolve(path)?;
    // A rename asks only for the directory's permission: without this a file that its owner has made read-only would
    // be replaced all the same. Opening changes nothing.
    let existing = match fs::OpenOptions::new().write(true).custom_flags(nonblocking()).open(&target) {
        Ok(file) => {
            check_regular(&file.metadata()?)?;
            Some(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };

    let intermediate = intermediate(&target);
    // The lock is held: what has this name was left by a killed Kiln.
    crate::state::remove_if_exists(&intermediate)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&intermediate)?;
    let result = (|| {
        file.write_all(content)?;
        if let Some(existing) = &existing {
            let metadata = existing.metadata()?;
            let made = file.metadata()?;
            if (metadata.uid(), metadata.gid()) != (made.uid(), made.gid()) {
                fchown(file.file(), Some(metadata.uid()), Some(metadata.gid()))?;
            }
            // After the owner, whose change clears some bits.
            file.set_permissions(fs_permissions(metadata.mode()))?;
        }
        file.sync_all()?;
        match (fs::rename(&intermediate, &target), existing) {
            // A file that is mounted by itself, as containers get theirs, cannot be replaced but only rewritten.
            (Err(error), Some(mut existing)) if error.kind() == io::ErrorKind::ResourceBusy => {
                // Not truncated first: the intermediate file is a complete copy until the end.
                existing.write_all(content)?;
                existing.set_len(content.len() as u64)?;
                existing.sync_all()?;
                fs::remove_file(&intermediate)
            }
            (result, _) => result,
        }
    })();
    if result.is_err() {
        let _ = fs::remove_file(&intermediate);
    }
    result?;
    if let Some(directory) = target.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn fs_permissions(mode: u32) -> std::fs::Permissions {
    std::fs::Permissions::from_mode(mode & 0o7777)
}

/// Follows links to the file's real place, which need not exist.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let destination = fs::read_link(&path)?;
                path = path.parent().map_or(destination.clone(), |parent| parent.join(&destination));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(path),
        }
    }
    Err(io::Error::other(format!("too many links from {}", path.display())))
}

fn intermediate(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".kiln-new");
    target.with_file_name(name)
}
