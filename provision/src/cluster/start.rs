//! How the first node of a cluster comes up, decided before it is made.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use super::{CreateOptions, PodNetwork, plan::NodePlan};
use crate::{
    Error, Paths, Reporter, Result, config,
    kubeadm::{KubernetesVersion, document},
    pki::{self, Identity, KUBELET_CURRENT, Keys},
    template::{self, Beginning, Origin, TemplateKey},
};

/// How the control plane of a cluster is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bootstrap {
    /// From what an earlier cluster of the same image and configuration has left; by kubeadm if there is none.
    #[default]
    Auto,
    /// By kubeadm alone, which makes every key as well.
    Kubeadm,
    /// As by default, and not at all when this image and configuration cannot have a template.
    Template,
}

impl Bootstrap {
    /// Its name on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kubeadm => "kubeadm",
            Self::Template => "template",
        }
    }
}

/// How the first node comes up.
#[derive(Debug)]
pub(super) enum Start {
    /// By `kubeadm init`.
    Kubeadm {
        /// Keys that it finds, and does not make.
        keys: Option<Box<Keys>>,
        /// The template that the cluster is to leave.
        leaves: Option<Box<Leaves>>,
    },
    /// From a template.
    Template(Box<FromTemplate>),
}

/// What a cluster needs to leave a template.
#[derive(Debug)]
pub(super) struct Leaves {
    pub(super) key: TemplateKey,
    pub(super) origin: Origin,
}

/// What a node needs that comes up from a template.
#[derive(Debug)]
pub(super) struct FromTemplate {
    pub(super) key: TemplateKey,
    pub(super) keys: Keys,
    pub(super) beginning: Beginning,
    /// etcd's program, as a path in the node.
    pub(super) etcd: PathBuf,
    /// The manifest of etcd, which the node must not have before etcd's data is there.
    pub(super) etcd_manifest: String,
}

/// The first minor version whose kubeadm knows the group of administrators that keys are made for.
const ADMINS_SINCE: u32 = 29;

/// The manifest of etcd in a node.
pub(super) const ETCD_MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// Where the node image keeps the unpacked images of the control plane.
const SNAPSHOTS: &str = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";

/// Decides how the first node comes up.
///
/// # Errors
/// [`Error::NoTemplate`] when a template was asked for and there can be none.
pub(super) fn decide(
    paths: &Paths,
    options: &CreateOptions,
    cluster: &str,
    nodes: &[NodePlan],
    reporter: &dyn Reporter,
) -> Result<Start> {
    let plain = Start::Kubeadm { keys: None, leaves: None };
    let Some(first) = nodes.iter().find(|plan| plan.first) else { return Ok(plain) };
    if options.bootstrap == Bootstrap::Kubeadm {
        return Ok(plain);
    }
    let without = |reason: &str| {
        reporter.message(1, &format!("the cluster comes up by kubeadm, without a template: {reason}"));
        if options.bootstrap == Bootstrap::Template {
            return Err(Error::NoTemplate { reason: reason.to_owned() });
        }
        Ok(())
    };
    let version: KubernetesVersion = first.kubernetes_version.parse()?;
    let identity = Identity::read(&first.kubeadm, &first.name).filter(|_| version.at_least(ADMINS_SINCE));
    let Some(identity) = identity else {
        without("its keys are not the usual ones")?;
        return Ok(plain);
    };
    let keys = pki::generate(&identity)?;
    let bare = |keys| Start::Kubeadm { keys: Some(Box::new(keys)), leaves: None };
    let networking = &options.config.networking;
    if options.pod_network == PodNetwork::Image && !networking.disable_default_cni {
        without("the image's own pod network is part of what kubeadm and kind's steps make")?;
        return Ok(bare(keys));
    }
    let Some(key) = first.template.clone() else {
        without("a patch names the cluster's nodes or addresses")?;
        return Ok(bare(keys));
    };
    let Some(etcd) = etcd_program(&first.layers) else {
        without("the image does not have etcd unpacked")?;
        return Ok(bare(keys));
    };
    let origin = origin(cluster, first, networking, &options.config, &keys);
    let token = token(&first.kubeadm).unwrap_or_default();
    let begun = template::find(paths, &key, reporter).and_then(|template| {
        let mut beginning = template.beginning(&origin, &keys, &token, nodes.len() == 1).ok()?;
        let etcd = beginning.files.iter().position(|(path, _)| path == ETCD_MANIFEST)?;
        let (_, manifest) = beginning.files.remove(etcd);
        Some((beginning, manifest))
    });
    let Some((beginning, etcd_manifest)) = begun else {
        reporter.message(1, "the cluster comes up by kubeadm, and leaves a template for the next");
        let leaves = Some(Box::new(Leaves { key, origin }));
        return Ok(Start::Kubeadm { keys: Some(Box::new(keys)), leaves });
    };
    Ok(Start::Template(Box::new(FromTemplate { key, keys, beginning, etcd, etcd_manifest })))
}

fn origin(
    cluster: &str,
    first: &NodePlan,
    networking: &config::Networking,
    config: &config::Cluster,
    keys: &Keys,
) -> Origin {
    let named = config::Cluster { name: cluster.to_owned(), ..config.clone() };
    let family = networking.ip_family;
    let ipv4 = first.endpoint.ipv4.filter(|_| family.has_ipv4()).map(|ip| ip.to_string());
    let ipv6 = first.endpoint.ipv6.filter(|_| family.has_ipv6()).map(|ip| ip.to_string());
    Origin {
        cluster: cluster.to_owned(),
        node: first.name.clone(),
        addresses: ipv4.into_iter().chain(ipv6).collect(),
        endpoint: config::control_plane_endpoint(&named),
        ca: keys.ca.clone(),
        front_proxy_ca: keys.front_proxy_ca.clone(),
    }
}

/// The bootstrap token in a kubeadm configuration.
fn token(kubeadm: &str) -> Option<String> {
    let init = document(kubeadm, "InitConfiguration")?;
    init["bootstrapTokens"][0]["token"].as_str().map(str::to_owned)
}

/// The program of etcd's image, as a path in the node. It is linked statically.
fn etcd_program(layers: &[PathBuf]) -> Option<PathBuf> {
    layers
        .iter()
        .find_map(|layer| {
            let entries = fs_err::read_dir(layer.join(SNAPSHOTS)).ok()?;
            let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
            let inside = names.map(|name| Path::new(SNAPSHOTS).join(name).join("fs/usr/local/bin/etcd"));
            inside.into_iter().find(|path| layer.join(path).is_file())
        })
        .map(|path| Path::new("/").join(path))
}

impl Start {
    /// Writes what is to be in the first node before its init runs: `upper` is its root, `var` its `/var`. Blocks.
    ///
    /// # Errors
    /// [`Error::File`] naming what could not be written.
    pub(super) fn write_files(&self, upper: &Path, var: &Path) -> Result<()> {
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
        let keys = match self {
            Self::Kubeadm { keys: None, .. } => return Ok(()),
            Self::Kubeadm { keys: Some(keys), .. } => keys,
            Self::Template(from) => &from.keys,
        };
        for (path, content) in &keys.files {
            write(path, content)?;
        }
        if let Self::Template(from) = self {
            for (path, content) in &from.beginning.files {
                write(path, content)?;
            }
            write("/etc/kubernetes/kubelet.conf", &keys.kubelet.kubeconfig)?;
            let day = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S").to_string();
            let dated = KUBELET_CURRENT.replace("current", &day);
            write(&dated, &keys.kubelet.pair)?;
            symlink(&dated, place(KUBELET_CURRENT)).map_err(Error::file("make a link of the node"))?;
        }
        Ok(())
    }

    /// Whether everything that is installed into a new cluster is there from its beginning.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self, Self::Template(_))
    }
}
