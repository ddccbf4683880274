//! What is in a node before its init runs: keys, and what a template has of such a node.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::{
    plan::NodePlan,
    start::{MANIFESTS, Start},
};
use crate::{
    Error, Result,
    pki::{KUBELET_CONF, KUBELET_CURRENT},
};

impl Start {
    /// Writes what is to be in a node before its init runs: `upper` is its root, `var` its `/var`. Blocks.
    ///
    /// # Errors
    /// [`Error::File`] naming what could not be written.
    pub(super) fn write_files(&self, plan: &NodePlan, upper: &Path, var: &Path) -> Result<()> {
        let place = |path: &str| match path.strip_prefix("/var/") {
            Some(below) => var.join(below),
            None => upper.join(path.trim_start_matches('/')),
        };
        let write = |path: &str, content: &str| -> Result<()> {
            let target = place(path);
            if let Some(parent) = target.parent() {
                fs_err::create_dir_all(parent).map_err(Error::file("make a directory of the node"))?;
            }
            // Everybody may read certificates and kubelet's settings, as kubeadm has it.
            let open =
                path.ends_with(".crt") || path.ends_with("sa.pub") || path.starts_with("/var/lib/kubelet/");
            let private = !open || path.ends_with(".pem");
            fs_err::write(&target, content).map_err(Error::file("write a file of the node"))?;
            fs_err::set_permissions(&target, Permissions::from_mode(if private { 0o600 } else { 0o644 }))
                .map_err(Error::file("set the mode of a file of the node"))
        };
        let write_all = |files: &[(String, String)]| -> Result<()> {
            files.iter().try_for_each(|(path, content)| write(path, content))
        };
        let write_pair = |pair: &str| {
            let day = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
            let dated = KUBELET_CURRENT.replace("current", &day);
            write(&dated, pair)?;
            symlink(&dated, place(KUBELET_CURRENT)).map_err(Error::file("make a link of the node"))
        };
        if !plan.first {
            let Some(follower) = self.follower(&plan.name) else { return write_all(self.keys_to_join(plan)) };
            write_all(&follower.keys.files)?;
            for (path, content) in follower.files.iter().filter(|(path, _)| !follower.waits(path)) {
                write(path, content)?;
            }
            if follower.etcd_manifest().is_some() {
                // kubelet watches it from its start, or looks every 20 seconds.
                fs_err::create_dir_all(place(MANIFESTS))
                    .map_err(Error::file("make a directory of the node"))?;
            }
            return write_pair(&follower.keys.kubelet.pair);
        }
        let keys = match self {
            Self::Kubeadm { keys: None, .. } => return Ok(()),
            Self::Kubeadm { keys: Some(keys), .. } => keys,
            Self::Template(from) => &from.keys,
        };
        write_all(&keys.files)?;
        if let Self::Template(from) = self {
            write_all(&from.beginning.files)?;
            write(KUBELET_CONF, &keys.kubelet.kubeconfig)?;
            write_pair(&keys.kubelet.pair)?;
        }
        Ok(())
    }
}
