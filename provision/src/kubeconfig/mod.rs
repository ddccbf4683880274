//! The user's kubeconfig: where it is, and one cluster's entries in it.
//!
//! The behaviour is kind's, so that scripts, kubectl and kind itself can share the file: the entries of cluster NAME
//! are called `kind-NAME`, the file is chosen as kubectl chooses it, guarded by kubectl's lock file and printed as
//! Kubernetes' YAML library prints it. The file holds other people's clusters: fields that are unknown here are kept,
//! and at no moment is there less than one complete version of it on disk.

mod document;
mod file;
mod location;
mod lock;
mod scalar;
mod yaml;

use std::path::{Path, PathBuf};

pub use location::{Locations, locate};

use self::document::Kubeconfig;
use crate::Result;

/// The name of a cluster's entries: cluster, user and context.
#[must_use]
pub fn key(cluster: &str) -> String {
    format!("kind-{cluster}")
}

/// Turns the `admin.conf` that kubeadm wrote into the kubeconfig of cluster `cluster`: its entries are called
/// `kind-NAME`, and the API is at `server` (a URL) where one is given, else where kubeadm says.
///
/// # Errors
/// [`crate::Error::KubeconfigSyntax`] and [`crate::Error::KubeconfigShape`] when the text is not what kubeadm writes:
/// exactly one cluster, user and context.
pub fn rewrite(admin_conf: &str, cluster: &str, server: Option<&str>) -> Result<String> {
    let mut document = Kubeconfig::parse(admin_conf, &format!("admin.conf of cluster {cluster:?}"))?;
    document.rename(&key(cluster), server)?;
    Ok(document.encode())
}

/// Puts the entries of `kubeconfig` (as [`rewrite`] returns it) into the file that kubectl would change, replacing
/// entries of the same names, and makes its context the current one. Returns the file.
///
/// Waits up to a few seconds for another program's lock; call it where blocking is allowed.
///
/// # Errors
/// The `Kubeconfig…` variants of [`crate::Error`]; the file is then as it was.
pub fn merge_into(locations: &Locations, kubeconfig: &str) -> Result<PathBuf> {
    let path = locations.merge_target();
    let addition = Kubeconfig::parse(kubeconfig, "the cluster's kubeconfig")?;
    if file::is_null(path) {
        return Ok(path.to_owned());
    }
    let _lock = lock::acquire(path)?;
    let mut document = file::read(path)?;
    document.merge(&addition)?;
    file::write(path, &document.encode())?;
    Ok(path.to_owned())
}

/// Removes the entries of cluster `cluster` from every file of `locations`, and the current context if it is this
/// cluster's. Returns whether there was anything to remove; files without such entries are not touched.
///
/// Waits up to a few seconds for another program's lock; call it where blocking is allowed.
///
/// # Errors
/// The `Kubeconfig…` variants of [`crate::Error`]: the first one, after all files were tried.
pub fn remove_from(locations: &Locations, cluster: &str) -> Result<bool> {
    let mut removed = false;
    let mut failure = None;
    for path in locations.paths() {
        match remove_from_file(path, &key(cluster)) {
            Ok(changed) => removed |= changed,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(removed), Err)
}

/// The files of `locations` that have entries of cluster `cluster`: those that [`remove_from`] would change.
///
/// # Errors
/// The `Kubeconfig…` variants of [`crate::Error`].
pub fn files_with(locations: &Locations, cluster: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in locations.paths() {
        if file::mentions(path, &key(cluster))? && file::read(path)?.remove(&key(cluster)) {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn remove_from_file(path: &Path, key: &str) -> Result<bool> {
    // Without the lock first: a file that never mentions the cluster need be neither understood nor locked.
    if !file::mentions(path, key)? {
        return Ok(false);
    }
    let _lock = lock::acquire(path)?;
    let mut document = file::read(path)?;
    let changed = document.remove(key);
    if changed {
        file::write(path, &document.encode())?;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests;
