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

use rcgen::KeyPair;
use time::OffsetDateTime;

use self::authority::{Authority, Leaf, Use, key_pair};
#[cfg(test)]
pub(crate) use self::identity::example;
pub(crate) use self::identity::{Identity, service_of_api, service_of_dns};
use self::kubeconfig::Credentials;
use crate::Result;

/// Where kubeadm looks for keys.
const PKI: &str = "/etc/kubernetes/pki";

/// kubelet's kubeconfig.
pub(crate) const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";

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
    /// What the other nodes have, by their names.
    pub(crate) followers: BTreeMap<String, FollowerKeys>,
}

/// The keys of a node that is not the first.
#[derive(Clone)]
pub(crate) struct FollowerKeys {
    /// Absolute paths in the node, and contents.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) kubelet: Kubelet,
}

/// kubelet's credentials.
#[derive(Clone, Default)]
pub(crate) struct Kubelet {
    /// The kubeconfig that kubeadm begins with, certificate and key in it.
    pub(crate) whole: String,
    /// The kubeconfig after kubeadm's last step, which refers to [`KUBELET_CURRENT`].
    pub(crate) kubeconfig: String,
    /// Certificate and key, in PEM.
    pub(crate) pair: String,
}

/// Where kubelet finds its certificate and key: a link to the latest.
pub(crate) const KUBELET_CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

impl Keys {
    /// One of the first node's files below `/etc/kubernetes/pki`.
    pub(crate) fn pki(&self, name: &str) -> Option<&str> {
        let path = format!("{PKI}/{name}");
        self.files.iter().find(|(found, _)| *found == path).map(|(_, text)| text.as_str())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the keys themselves.
        let paths: Vec<_> = self.files.iter().map(|(path, _)| path).collect();
        formatter.debug_struct("Keys").field("files", &paths).finish_non_exhaustive()
    }
}

/// Makes everything that `kubeadm init phase certs` and `kubeadm init phase kubeconfig` would for the first node, and what
/// `kubeadm join` would for those that follow: `control_planes`, and `workers` by their names.
///
/// # Errors
/// [`crate::Error::Keys`] when the kernel gives no randomness, or a name cannot be in a certificate.
pub(crate) fn generate<'a>(
    identity: &Identity,
    control_planes: &[Identity],
    workers: impl IntoIterator<Item = &'a str>,
) -> Result<Keys> {
    let now = OffsetDateTime::now_utc();
    let authorities = Authorities {
        cluster: Authority::new("kubernetes", now)?,
        front_proxy: Authority::new("front-proxy-ca", now)?,
        etcd: Authority::new("etcd-ca", now)?,
        service_accounts: key_pair()?,
        now,
    };
    let mut files = authorities.control_plane(identity)?;
    let super_admin: User<'_> = ("super-admin", "kubernetes-super-admin", Some(MASTERS), &identity.public);
    files.push(authorities.user(identity, super_admin)?);
    let kubelet = authorities.kubelet(identity, &identity.node)?;
    files.push((KUBELET_CONF.to_owned(), kubelet.whole.clone()));
    let mut followers = BTreeMap::new();
    for other in control_planes {
        let kubelet = authorities.kubelet(identity, &other.node)?;
        followers
            .insert(other.node.clone(), FollowerKeys { files: authorities.control_plane(other)?, kubelet });
    }
    for node in workers {
        let files = vec![(format!("{PKI}/ca.crt"), authorities.cluster.certificate.clone())];
        let kubelet = authorities.kubelet(identity, node)?;
        followers.insert(node.to_owned(), FollowerKeys { files, kubelet });
    }
    Ok(Keys {
        files,
        ca: authorities.cluster.certificate,
        front_proxy_ca: authorities.front_proxy.certificate,
        kubelet,
        followers,
    })
}

/// Who issues the certificates of a cluster.
struct Authorities {
    cluster: Authority,
    front_proxy: Authority,
    etcd: Authority,
    service_accounts: KeyPair,
    now: OffsetDateTime,
}

/// The name of a kubeconfig, its user, the user's group, and where it goes.
type User<'a> = (&'a str, &'a str, Option<&'a str>, &'a str);

impl Authorities {
    /// The files that every control plane has: what all of them share, and what is one's own.
    fn control_plane(&self, identity: &Identity) -> Result<Vec<(String, String)>> {
        let Self { cluster, front_proxy, etcd, .. } = self;
        let mut files = Vec::new();
        for (name, authority) in [("ca", cluster), ("front-proxy-ca", front_proxy), ("etcd/ca", etcd)] {
            files.push((format!("{PKI}/{name}.crt"), authority.certificate.clone()));
            files.push((format!("{PKI}/{name}.key"), authority.key_pem()));
        }
        files.push((format!("{PKI}/sa.pub"), self.service_accounts.public_key_pem()));
        files.push((format!("{PKI}/sa.key"), self.service_accounts.serialize_pem()));

        let client = |name: &str, group| leaf(name, group, Use::Client, Vec::new());
        let etcd_names = identity.etcd_names();
        let leaves = [
            (cluster, "apiserver", leaf("kube-apiserver", None, Use::Server, identity.api_names())),
            (cluster, "apiserver-kubelet-client", client("kube-apiserver-kubelet-client", Some(ADMINS))),
            (front_proxy, "front-proxy-client", client("front-proxy-client", None)),
            (etcd, "etcd/server", leaf(&identity.node, None, Use::Both, etcd_names.clone())),
            (etcd, "etcd/peer", leaf(&identity.node, None, Use::Both, etcd_names)),
            (etcd, "etcd/healthcheck-client", client("kube-etcd-healthcheck-client", None)),
            (etcd, "apiserver-etcd-client", client("kube-apiserver-etcd-client", None)),
        ];
        for (authority, name, leaf) in leaves {
            let (certificate, key) = authority.issue(&leaf, self.now)?;
            files.push((format!("{PKI}/{name}.crt"), certificate));
            files.push((format!("{PKI}/{name}.key"), key));
        }
        let users: [User<'_>; 3] = [
            ("admin", "kubernetes-admin", Some(ADMINS), &identity.public),
            ("controller-manager", "system:kube-controller-manager", None, &identity.local),
            ("scheduler", "system:kube-scheduler", None, &identity.local),
        ];
        for user in users {
            files.push(self.user(identity, user)?);
        }
        Ok(files)
    }

    /// A kubeconfig with its path.
    fn user(&self, identity: &Identity, (file, user, group, server): User<'_>) -> Result<(String, String)> {
        let (certificate, key) = self.cluster.issue(&leaf(user, group, Use::Client, Vec::new()), self.now)?;
        let credentials = Credentials::Data { certificate: &certificate, key: &key };
        let text =
            kubeconfig::render(&identity.cluster, user, server, &self.cluster.certificate, &credentials);
        Ok((format!("/etc/kubernetes/{file}.conf"), text))
    }

    /// The credentials of a node's kubelet in the cluster of `identity`.
    fn kubelet(&self, identity: &Identity, node: &str) -> Result<Kubelet> {
        let user = kubelet_user(node);
        let (certificate, key) =
            self.cluster.issue(&leaf(&user, Some(NODES), Use::Client, Vec::new()), self.now)?;
        let render = |credentials: &_| {
            let ca = &self.cluster.certificate;
            kubeconfig::render(&identity.cluster, &user, &identity.public, ca, credentials)
        };
        Ok(Kubelet {
            whole: render(&Credentials::Data { certificate: &certificate, key: &key }),
            kubeconfig: render(&Credentials::File { path: KUBELET_CURRENT }),
            pair: format!("{certificate}{key}"),
        })
    }
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

    fn all() -> Keys {
        let mut second = identity::example();
        "c-control-plane2".clone_into(&mut second.node);
        generate(&identity::example(), &[second], ["c-worker"]).unwrap()
    }

    fn keys() -> BTreeMap<String, String> {
        all().files.into_iter().collect()
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

    #[test]
    fn control_planes_share_authorities_and_nothing_else() {
        let Keys { files, mut followers, .. } = all();
        let first: BTreeMap<_, _> = files.into_iter().collect();
        let second = followers.remove("c-control-plane2").unwrap();
        let shared: BTreeSet<_> = second
            .files
            .iter()
            .filter(|(path, text)| first[path] == *text)
            .map(|(path, _)| &path[..])
            .collect();
        let pki = |name: &str| format!("{PKI}/{name}");
        let expected =
            ["ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key"];
        let expected: Vec<_> = expected.iter().chain(&["sa.key", "sa.pub"]).map(|name| pki(name)).collect();
        assert_eq!(shared.into_iter().collect::<Vec<_>>(), expected);
        // The one of all groups is made by `kubeadm init` alone, and kubelet's after it has joined.
        assert_eq!(second.files.len(), first.len() - 2);
        assert!(second.kubelet.whole.contains("system:node:c-control-plane2"));
        let worker = followers.remove("c-worker").unwrap();
        assert_eq!(worker.files, [(pki("ca.crt"), first[&pki("ca.crt")].clone())]);
    }
}
