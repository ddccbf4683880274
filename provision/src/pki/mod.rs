//! The keys of a cluster, made by Kiln while its first node is still being started.
//!
//! kubeadm takes what it finds in `/etc/kubernetes/pki` and its kubeconfigs, and makes only what is missing. Its own keys
//! are RSA by default, and finding a dozen of those takes it longer than anything else it does by itself; these are of the
//! elliptic curve P-256, which kubeadm offers as well (`encryptionAlgorithm: ECDSA-P256`). Names, uses and validity are
//! those that kubeadm gives (<https://kubernetes.io/docs/setup/best-practices/certificates/>).

mod authority;
mod identity;
mod kubeconfig;

use std::{collections::BTreeMap, time::Duration};

use time::OffsetDateTime;

use self::authority::{Authority, Leaf, Use, key_pair};
pub(crate) use self::identity::{Identity, service_of_api};
use self::kubeconfig::Credentials;
use crate::Result;

/// Where kubeadm looks for keys.
const PKI: &str = "/etc/kubernetes/pki";

/// How long certificates are good for, as kubeadm's are.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Clocks of a cluster may differ by this much, which kubeadm allows for as well.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The group that kubeadm binds to `cluster-admin`.
const ADMINS: &str = "kubeadm:cluster-admins";

/// The group of kubelets.
const NODES: &str = "system:nodes";

/// The group that needs no binding.
const MASTERS: &str = "system:masters";

/// Files with keys, and what others need to know of them.
#[derive(Clone)]
pub(crate) struct Keys {
    /// Absolute paths in the node, and contents. Only its root may read them.
    pub(crate) files: Vec<(String, String)>,
    /// The certificate of the cluster's authority, in PEM.
    pub(crate) ca: String,
    /// The certificate of the authority for API servers that serve in the place of this one, in PEM.
    pub(crate) front_proxy_ca: String,
    /// kubelet's credentials as they are once kubelet has taken them over to renew them.
    pub(crate) kubelet: Kubelet,
    /// Certificates and keys of the kubelets of other nodes, in PEM, by the nodes' names.
    pub(crate) followers: BTreeMap<String, String>,
}

/// kubelet's credentials, after kubeadm's last step.
#[derive(Clone, Default)]
pub(crate) struct Kubelet {
    /// The kubeconfig, which refers to [`KUBELET_CURRENT`].
    pub(crate) kubeconfig: String,
    /// Certificate and key, in PEM.
    pub(crate) pair: String,
}

/// Where kubelet finds its certificate and key: a link to the latest.
pub(crate) const KUBELET_CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

impl Keys {
    /// The kubeconfig of the first node's kubelet, with its credentials in it.
    pub(crate) fn kubelet_conf(&self) -> &str {
        let found = self.files.iter().find(|(path, _)| path.ends_with("/kubelet.conf"));
        found.map_or("", |(_, text)| text)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the keys themselves.
        let paths: Vec<_> = self.files.iter().map(|(path, _)| path).collect();
        formatter.debug_struct("Keys").field("files", &paths).finish_non_exhaustive()
    }
}

/// Makes everything that `kubeadm init phase certs` and `kubeadm init phase kubeconfig` would, and credentials for the
/// kubelets of the nodes that follow the first.
///
/// # Errors
/// [`crate::Error::Keys`] when the kernel gives no randomness, or a name cannot be in a certificate.
pub(crate) fn generate<'a>(
    identity: &Identity,
    followers: impl IntoIterator<Item = &'a str>,
) -> Result<Keys> {
    let now = OffsetDateTime::now_utc();
    let (cluster, front_proxy, etcd) = (
        Authority::new("kubernetes", now)?,
        Authority::new("front-proxy-ca", now)?,
        Authority::new("etcd-ca", now)?,
    );
    let mut files = Vec::new();
    for (name, authority) in [("ca", &cluster), ("front-proxy-ca", &front_proxy), ("etcd/ca", &etcd)] {
        files.push((format!("{PKI}/{name}.crt"), authority.certificate.clone()));
        files.push((format!("{PKI}/{name}.key"), authority.key_pem()));
    }
    let service_accounts = key_pair()?;
    files.push((format!("{PKI}/sa.pub"), service_accounts.public_key_pem()));
    files.push((format!("{PKI}/sa.key"), service_accounts.serialize_pem()));

    let etcd_names = identity.etcd_names();
    let leaves = [
        (&cluster, "apiserver", leaf("kube-apiserver", None, Use::Server, identity.api_names())),
        (
            &cluster,
            "apiserver-kubelet-client",
            leaf("kube-apiserver-kubelet-client", Some(ADMINS), Use::Client, Vec::new()),
        ),
        (&front_proxy, "front-proxy-client", leaf("front-proxy-client", None, Use::Client, Vec::new())),
        (&etcd, "etcd/server", leaf(&identity.node, None, Use::Both, etcd_names.clone())),
        (&etcd, "etcd/peer", leaf(&identity.node, None, Use::Both, etcd_names)),
        (
            &etcd,
            "etcd/healthcheck-client",
            leaf("kube-etcd-healthcheck-client", None, Use::Client, Vec::new()),
        ),
        (&etcd, "apiserver-etcd-client", leaf("kube-apiserver-etcd-client", None, Use::Client, Vec::new())),
    ];
    for (authority, name, leaf) in leaves {
        let (certificate, key) = authority.issue(&leaf, now)?;
        files.push((format!("{PKI}/{name}.crt"), certificate));
        files.push((format!("{PKI}/{name}.key"), key));
    }

    let kubelet = kubelet_user(&identity.node);
    let mut kept = Kubelet::default();
    let users = [
        ("admin", "kubernetes-admin", Some(ADMINS), &identity.public),
        ("super-admin", "kubernetes-super-admin", Some(MASTERS), &identity.public),
        ("controller-manager", "system:kube-controller-manager", None, &identity.local),
        ("scheduler", "system:kube-scheduler", None, &identity.local),
        ("kubelet", kubelet.as_str(), Some(NODES), &identity.public),
    ];
    for (file, user, group, server) in users {
        let issued = cluster.issue(&leaf(user, group, Use::Client, Vec::new()), now)?;
        let render = |credentials: &_| {
            kubeconfig::render(&identity.cluster, user, server, &cluster.certificate, credentials)
        };
        if file == "kubelet" {
            kept = Kubelet {
                kubeconfig: render(&Credentials::File { path: KUBELET_CURRENT }),
                pair: format!("{}{}", issued.0, issued.1),
            };
        }
        let text = render(&Credentials::Data { certificate: &issued.0, key: &issued.1 });
        files.push((format!("/etc/kubernetes/{file}.conf"), text));
    }
    let mut pairs = BTreeMap::new();
    for node in followers {
        let (certificate, key) =
            cluster.issue(&leaf(&kubelet_user(node), Some(NODES), Use::Client, Vec::new()), now)?;
        pairs.insert(node.to_owned(), format!("{certificate}{key}"));
    }
    Ok(Keys {
        files,
        ca: cluster.certificate,
        front_proxy_ca: front_proxy.certificate,
        kubelet: kept,
        followers: pairs,
    })
}

/// Whom the API takes a node's kubelet for
/// (<https://kubernetes.io/docs/reference/access-authn-authz/node/>).
fn kubelet_user(node: &str) -> String {
    format!("system:node:{node}")
}

fn leaf(name: &str, organization: Option<&str>, purpose: Use, alternatives: Vec<String>) -> Leaf {
    Leaf { name: name.to_owned(), organization: organization.map(str::to_owned), purpose, alternatives }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys() -> BTreeMap<String, String> {
        generate(&identity::example(), ["c-worker"]).unwrap().files.into_iter().collect()
    }

    #[test]
    fn everything_is_there_that_kubeadm_would_make() {
        let keys = keys();
        let mut names = BTreeSet::new();
        for name in ["ca", "front-proxy-ca", "etcd/ca", "apiserver", "apiserver-kubelet-client"] {
            names.insert(name);
        }
        for name in [
            "front-proxy-client",
            "etcd/server",
            "etcd/peer",
            "etcd/healthcheck-client",
            "apiserver-etcd-client",
        ] {
            names.insert(name);
        }
        for name in names {
            assert!(keys[&format!("{PKI}/{name}.crt")].contains("BEGIN CERTIFICATE"), "{name}");
            assert!(keys[&format!("{PKI}/{name}.key")].contains("BEGIN PRIVATE KEY"), "{name}");
        }
        assert!(keys["/etc/kubernetes/pki/sa.pub"].contains("BEGIN PUBLIC KEY"));
        assert!(keys["/etc/kubernetes/kubelet.conf"].contains("system:node:c-control-plane"));
        assert_eq!(keys.len(), 20 + 2 + 5);
    }

    #[test]
    fn no_two_clusters_share_anything() {
        let (first, second) = (keys(), keys());
        for (path, content) in &first {
            assert_ne!(content, &second[path], "{path}");
        }
    }
}
