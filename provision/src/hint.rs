//! What a user can do about an error.

use crate::{Error, config::nearest};

impl Error {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::ClusterExists { name } => {
                Some(format!("`kiln delete cluster --name {name}` removes it, --name chooses another name"))
            }
            Self::ControlPlane { .. } | Self::KubeletSilent { .. } | Self::Etcd { .. } => {
                Some("the template is thrown away: the next cluster comes up by kubeadm".to_owned())
            }
            Self::NoTemplate { .. } => Some("leave --bootstrap template out".to_owned()),
            Self::NoSuchCluster { cluster: name, known }
            | Self::NoSuchNode { node: name, known }
            | Self::NoNodes { cluster: name, known }
            | Self::UnknownNode { node: name, known } => Some(meant(name, known)),
            Self::NoSuchImage { image } if image.starts_with("kiln/node:") => Some(
                "`kiln build node-image` builds the default one, `kiln images ls --host` shows what there is"
                    .to_owned(),
            ),
            Self::NoSuchImage { image } => Some(format!(
                "`kiln images pull {image}` pulls it, `kiln images ls --host` shows what there is"
            )),
            Self::Pull { source, .. } | Self::Push { source, .. } => source.hint(),
            Self::StoreInUse => Some("try again when it is done".to_owned()),
            Self::ImageInUse { .. } => Some(
                "delete the clusters first; --force takes the name away, and what their nodes use stays"
                    .to_owned(),
            ),
            Self::NotImages { .. } => Some(
                "archives are for `kiln load image-archive`, directories with an index.json for `kiln load oci-layout`"
                    .to_owned(),
            ),
            Self::ArchiveRead { source, .. } if source.kind() == std::io::ErrorKind::IsADirectory => {
                Some("directories with an index.json are for `kiln load oci-layout`".to_owned())
            }
            Self::ArchiveTruncated { .. } => Some("write or copy it again".to_owned()),
            Self::ContentMissing { .. } => Some(format!(
                "save it anew with all of it; `docker save --platform linux/{}` saves what this host needs",
                oci_spec::image::Arch::default()
            )),
            Self::NoPlatform { present, .. } if !present.is_empty() => {
                Some(format!("it is for {}", present.join(", ")))
            }
            Self::ImageNotFound { .. } => Some(
                "check its name; or build it with docker or podman, or bring it as a file with `kiln load image-archive`"
                    .to_owned(),
            ),
            Self::NodeNotRunning { node } => {
                Some(format!("`kiln logs --console {node}` shows what it said on its console"))
            }
            Self::MissingTool { .. } => Some("install it, or leave --compare out".to_owned()),
            Self::BenchLimit { .. } => Some(
                "--limit gives it longer; the pod that asks needs an image that the node has or can pull: see --pod-image"
                    .to_owned(),
            ),
            Self::NoJournal { .. } => Some("its console is all that it says: leave --unit out".to_owned()),
            Self::ExportLogs { .. } => Some("what could be had is in the directory".to_owned()),
            Self::NodesNotRunning { .. } => {
                Some("leave them out with --nodes, or create the cluster anew".to_owned())
            }
            Self::LoadImage { errors, .. } => errors.iter().find_map(Self::hint),
            Self::Unfit { source } => source.hint(),
            Self::LoadIntoNode { source, .. } => source.hint(),
            Self::ForeignImage { image, .. } => Some(format!(
                "`kiln images pull {image}` gets the variant for this host, if its registry has one"
            )),
            Self::UnpackImages { source, .. } => Some(source.hint().unwrap_or_else(|| {
                "the image's own containerd does it: `kiln images verify` tells whether the image is damaged".to_owned()
            })),
            Self::NotANodeImage { .. } => Some("node images are built by `kiln build node-image`".to_owned()),
            Self::PoolExhausted { .. } => {
                Some("delete clusters, or set KILN_SUBNET_POOL to a private network that is free".to_owned())
            }
            Self::PortTaken { .. } => {
                Some("choose another port, or 0 to have a free one chosen".to_owned())
            }
            Self::MountSharing { wanted, .. } => {
                let verb = if *wanted == "shared" { "mount --make-rshared" } else { "mount --make-rshared or --make-rslave" };
                Some(format!("make it so on the host before creating the cluster: {verb} MOUNTPOINT"))
            }
            Self::NoIpv6 { .. } => Some(
                "turn it on (sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0), or use ipFamily ipv4"
                    .to_owned(),
            ),
            Self::KubeProxyMode { .. } => {
                Some("choose another kubeProxyMode (iptables, nftables), or load the kernel's module".to_owned())
            }
            Self::SubnetClash { what, .. } | Self::SubnetSize { what, .. } => {
                Some(format!("choose another networking.{what}"))
            }
            Self::NodeEnded { .. } | Self::NodeBoot { .. } => {
                Some("try again with --retain and read the node's console.log in the state root".to_owned())
            }
            Self::Kubeadm(_) => {
                Some("try again with --retain, then `kiln exec NODE -- journalctl -u kubelet`".to_owned())
            }
            Self::Leftovers { .. } => {
                Some("`kiln delete cluster` can be repeated; `kiln doctor` shows what is left".to_owned())
            }
            Self::RegistryLeftovers { name, .. } => {
                Some(format!("`kiln registry delete {name}` can be repeated"))
            }
            Self::RegistryDiffers { name, .. } => {
                Some(format!("`kiln registry delete {name}` removes it, another name makes another one"))
            }
            Self::RegistryUpstream { .. } => {
                Some("--proxy takes the URL of a registry, such as https://registry-1.docker.io".to_owned())
            }
            Self::NoSuchRegistry { known, .. } => Some(match known.as_slice() {
                [] => "there is none; `kiln registry create` makes one".to_owned(),
                known => format!("there is {}", known.join(", ")),
            }),
            Self::NoSpace { path, .. } => Some(format!(
                "free some space on the file system of {}, or keep kiln's state elsewhere with --root or KILN_ROOT",
                path.display()
            )),
            Self::DigestMismatch { .. } | Self::BlobMissing { .. } => {
                Some("the image is incomplete or damaged: pull, load or build it again".to_owned())
            }
            Self::MissingTools { cures, .. } => Some(cures.join("; ")),
            Self::LittleSpace { .. } => {
                Some("free some space, or keep kiln's state elsewhere with --root or KILN_ROOT".to_owned())
            }
            Self::MountInCache { mount, .. } => {
                Some(format!("unmount it with `umount -R {}`", mount.display()))
            }
            Self::BuildSource { cure, .. } => Some(cure.clone()),
            Self::KubernetesVersion { .. } => {
                Some("a version is a released one in full, such as v1.34.4".to_owned())
            }
            Self::Preload { source, .. } => source.hint(),
            Self::KubeconfigLocation => Some("say where with --kubeconfig FILE".to_owned()),
            Self::KubeconfigSyntax { .. } | Self::KubeconfigShape { .. } => Some(
                "the file was left as it is: repair it, or choose another one with --kubeconfig".to_owned(),
            ),
            Self::KubeconfigLocked { lock, .. } => Some(format!(
                "if no kubectl, kind or kiln is changing the file, a killed one left the lock: remove it with `rm {}`",
                lock.display()
            )),
            Self::KubeconfigFile { .. } => {
                Some("make the file writable, or choose another one with --kubeconfig".to_owned())
            }
            Self::HostNotReady { cure, .. } => cure.clone(),
            Self::Sysctl { name, .. } => Some(format!("see `sysctl {name}`; kiln needs root on the host")),
            Self::InvalidName { .. } => {
                Some("a name consists of lower-case letters, digits, '.' and '-', as in ci-1".to_owned())
            }
            Self::StateSchema { .. } => {
                Some("use the version of kiln that made it, or a later one".to_owned())
            }
            Self::Config { problems, .. } => problems.hint(),
            _ => None,
        }
    }
}

/// What whoever named something that does not exist may have meant.
fn meant(name: &str, known: &[String]) -> String {
    match (known, nearest(name, known)) {
        ([], _) => "there is none; `kiln create cluster` makes one".to_owned(),
        // A cluster without nodes is known by the very name.
        (known, Some(near)) if near != name => {
            let others =
                if known.len() > 1 { format!(" There is {}", known.join(", ")) } else { String::new() };
            format!("did you mean {near:?}?{others}")
        }
        _ => format!("there is {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_leads_to_one_that_is() {
        let hint = |name: &str, known: &[&str]| {
            let known = known.iter().map(|name| (*name).to_owned()).collect();
            Error::NoSuchNode { node: name.to_owned(), known }.hint().unwrap()
        };
        assert_eq!(
            hint("kind-wroker", &["kind-control-plane", "kind-worker"]),
            "did you mean \"kind-worker\"? There is kind-control-plane, kind-worker"
        );
        assert_eq!(hint("knid-worker", &["kind-worker"]), "did you mean \"kind-worker\"?");
        assert_eq!(hint("dev", &["kind-control-plane", "b"]), "there is kind-control-plane, b");
        assert_eq!(hint("kind", &[]), "there is none; `kiln create cluster` makes one");
        let empty = Error::NoNodes { cluster: "kind".to_owned(), known: vec!["kind".to_owned()] };
        assert_eq!(empty.hint().as_deref(), Some("there is kind"));
    }
}
