//! What extra mounts of a node mean for how it comes up: kubeadm finds there what it would make, or what it is to change.

use std::{
    fs::Metadata,
    io,
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    node::ADMIN_CONF,
    start::{ETCD_MANIFEST, KUBELET_CONFIG, STATIC_PODS},
};
use crate::{
    config::{self, Mount},
    image::Digest,
    kubeadm::{self, document},
    pki::KUBELET_CONF,
};

/// Files and directories of a node that are there before its init runs, or that kubeadm makes or is.
const MADE: [&str; 12] = [
    ADMIN_CONF,
    KUBELET_CONF,
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
    KUBELET_CONFIG,
    "/var/lib/kubelet/kubeadm-flags.env",
    "/var/lib/kubelet/pki",
    "/var/lib/etcd",
    "/var/lib/containerd",
    "/usr/bin/kubeadm",
    "/kind/manifests",
];

/// The keys among them, in `/etc/kubernetes/pki`, without their endings.
const KEYS: [&str; 11] = [
    "ca",
    "front-proxy-ca",
    "etcd/ca",
    "sa",
    "apiserver",
    "apiserver-kubelet-client",
    "front-proxy-client",
    "etcd/server",
    "etcd/peer",
    "etcd/healthcheck-client",
    "apiserver-etcd-client",
];

/// More bytes than patches of four static pods have: whatever has more is something else.
const MAX_PATCH: u64 = 1 << 20;

/// More files than there are patches.
const MAX_PATCHES: usize = 256;

/// The first mount that hides what a node has before its init runs, or that kubeadm makes: with one of these, kubeadm alone
/// knows what is right.
pub(super) fn in_the_way(mounts: &[Mount]) -> Option<&Path> {
    let keys = KEYS
        .iter()
        .flat_map(|key| ["crt", "key", "pub"].map(|end| format!("/etc/kubernetes/pki/{key}.{end}")));
    let made = MADE.into_iter().chain(STATIC_PODS).chain([ETCD_MANIFEST]).map(str::to_owned);
    let made: Vec<String> = made.chain(keys).collect();
    let hides = |path: &&Path| {
        let path = cleaned(path);
        made.iter().any(|made| path.starts_with(made) || Path::new(made).starts_with(&path))
    };
    mounts.iter().map(|mount| mount.container_path.as_path()).find(hides)
}

/// What stands for the patches that a node's kubeadm takes from mounts; `None` where it takes none from there.
///
/// # Errors
/// They cannot be read, or are more than patches can be.
pub(super) fn patches(mounts: &[Mount], kubeadm: &str) -> io::Result<Option<Digest>> {
    // Which of them counts depends on the node; the other is rarely another.
    let directories = ["InitConfiguration", "JoinConfiguration"].iter().filter_map(|kind| {
        let document = document(kubeadm, kind)?;
        document["patches"]["directory"].as_str().map(|path| cleaned(Path::new(path)))
    });
    let mut found = Vec::new();
    for directory in directories {
        for mount in mounts {
            let inside = cleaned(&mount.container_path);
            if let Ok(below) = directory.strip_prefix(&inside) {
                collect(&mount.host_path.join(below), &directory, &mut found)?;
            } else if inside.starts_with(&directory) {
                collect(&mount.host_path, &inside, &mut found)?;
            }
        }
    }
    found.sort_unstable();
    Ok((!found.is_empty()).then(|| Digest::of(format!("{found:?}").as_bytes())))
}

/// What stands for those of each node, before the nodes have addresses.
pub(super) fn all_patches<'a>(
    config: &config::Cluster,
    versions: impl Iterator<Item = &'a str>,
) -> Vec<Option<String>> {
    let stands = |(index, (node, version)): (usize, (&config::Node, &str))| {
        if node.extra_mounts.is_empty() {
            return None;
        }
        let input = kubeadm::Input::of_nobody(config, index, version);
        let found = patches(&node.extra_mounts, &kubeadm::render(&input).ok()?);
        // Nothing is the same as what cannot be read, not even itself: it may have changed.
        Some(found.map_or_else(|_| Timestamp::now().to_string(), |digest| format!("{digest:?}")))
    };
    config.nodes.iter().zip(versions).enumerate().map(stands).collect()
}

/// Adds the files of a tree with what is in them. `name` is what the tree is called.
fn collect(path: &Path, name: &Path, found: &mut Vec<(PathBuf, String)>) -> io::Result<()> {
    let metadata = fs_err::metadata(path)?;
    if metadata.is_dir() {
        for entry in fs_err::read_dir(path)? {
            let entry = entry?;
            collect(&entry.path(), &name.join(entry.file_name()), found)?;
        }
        return Ok(());
    }
    if found.len() == MAX_PATCHES || !is_like_a_patch(&metadata) {
        return Err(io::Error::other(format!("{} is no patch", path.display())));
    }
    found.push((name.to_owned(), Digest::of(&fs_err::read(path)?).hex()));
    Ok(())
}

fn is_like_a_patch(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.len() <= MAX_PATCH
}

/// An absolute path without `.` and `..`.
fn cleaned(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            _ => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::MountPropagation, pki};

    fn mount(host: &Path, inside: &str) -> Mount {
        Mount {
            host_path: host.to_owned(),
            container_path: inside.into(),
            read_only: false,
            selinux_relabel: false,
            propagation: MountPropagation::None,
        }
    }

    fn hides(inside: &str) -> bool {
        in_the_way(&[mount(Path::new("/x"), inside)]).is_some()
    }

    #[test]
    fn mounts_over_what_a_boot_makes_are_in_its_way() {
        let hiding =
            ["/etc/kubernetes", "/etc/kubernetes/pki/", "/etc/kubernetes/pki/ca.crt", "/var/lib/etcd/member"];
        for inside in
            hiding.into_iter().chain(["/var", "/etc/./kubernetes/x/../manifests", "/usr/bin/kubeadm"])
        {
            assert!(hides(inside), "{inside}");
        }
        let beside = [
            "/etc/kubernetes/policies",
            "/etc/kubernetes/pki/oidc.crt",
            "/etc/kubernetes/manifests/own.yaml",
        ];
        for inside in beside.into_iter().chain(["/var/lib/kubelet/plugins", "/usr/bin/kubelet", "/etcd"]) {
            assert!(!hides(inside), "{inside}");
        }
    }

    #[test]
    fn every_key_that_is_made_can_be_hidden() {
        let keys = pki::generate(&pki::example(), &[], []).unwrap();
        assert!(keys.files.len() > 20);
        for (path, _) in &keys.files {
            assert!(hides(path), "{path}");
        }
    }

    #[test]
    fn what_is_in_patches_counts() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path();
        let kubeadm = "kind: InitConfiguration\npatches: {directory: /data/patches}\n";
        let stands = |mounts: &[Mount]| patches(mounts, kubeadm).unwrap();
        assert_eq!(stands(&[mount(host, "/elsewhere")]), None);
        fs_err::create_dir(host.join("patches")).unwrap();
        fs_err::write(host.join("other"), "0").unwrap();
        let whole = [mount(host, "/data")];
        assert_eq!(stands(&whole), None);
        let file = host.join("patches/etcd.yaml");
        fs_err::write(&file, "1").unwrap();
        let one = stands(&whole);
        assert!(one.is_some());
        assert_eq!(one, stands(&whole));
        fs_err::write(&file, "2").unwrap();
        let two = stands(&whole);
        assert_ne!(one, two);
        // The same in another place is the same, so it is when only the file is mounted.
        assert_eq!(two, stands(&[mount(&host.join("patches"), "/data/patches")]));
        assert_eq!(two, stands(&[mount(&file, "/data/patches/etcd.yaml")]));
        assert_ne!(two, stands(&[mount(&file, "/data/patches/kube-scheduler.yaml")]));
        assert_eq!(patches(&whole, "kind: InitConfiguration\n").unwrap(), None);
        // What joins has patches of its own.
        let both = format!("{kubeadm}---\nkind: JoinConfiguration\npatches: {{directory: /joining}}\n");
        let joining = host.join("joining");
        fs_err::create_dir(&joining).unwrap();
        fs_err::write(joining.join("etcd.yaml"), "3").unwrap();
        let mounts = [whole[0].clone(), mount(&joining, "/joining")];
        assert_ne!(patches(&mounts, &both).unwrap(), two);
    }

    #[test]
    fn patches_that_cannot_be_read_are_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let kubeadm = "kind: JoinConfiguration\npatches: {directory: /data/patches}\n";
        let missing = patches(&[mount(directory.path(), "/data")], kubeadm).unwrap_err();
        assert!(missing.to_string().contains("patches"), "{missing}");
        let odd = patches(&[mount(Path::new("/dev"), "/data/patches")], kubeadm).unwrap_err();
        assert!(odd.to_string().contains("no patch"), "{odd}");
    }
}
