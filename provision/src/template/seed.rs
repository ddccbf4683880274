//! Making a template of a cluster that kubeadm has just set up.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    Follower, Member, Newcomer, Object, Origin, REGISTRY, Template,
    etcd::{Cause, Credentials, Etcd},
    object::resource,
    pod,
};
use crate::pki::Keys;

/// A cluster that is to leave a template.
pub(crate) struct Seed {
    /// Its first node.
    pub(crate) first: Member,
    /// Its other nodes, one of each kind.
    pub(crate) followers: Vec<Member>,
    /// Where its first node's etcd listens.
    pub(crate) etcd: SocketAddr,
    /// The authority of etcd, and a client's certificate and key.
    pub(crate) credentials: [String; 3],
}

/// What belongs to one cluster's nodes, pods and moments, or holds its secrets. The control plane makes all of it anew.
const DROPPED: [&str; 10] = [
    "certificatesigningrequests",
    "csinodes",
    "endpointslices",
    "events",
    "leases",
    "masterleases",
    "minions",
    "peerserverleases",
    "secrets",
    "services/endpoints",
];

/// Add-ons whose pods must be there: a template without them would make every later boot slower.
const DNS_PODS: &str = "/registry/pods/kube-system/coredns";
const PROXY_PODS: &str = "/registry/pods/kube-system/kube-proxy";

/// The DaemonSet of kube-proxy.
const KUBE_PROXY: &str = "/registry/daemonsets/kube-system/kube-proxy";

/// Reads what the cluster has become.
///
/// # Errors
/// A reason for there being no template, such as something that is not understood, or not there yet.
pub(crate) async fn read(seed: Seed) -> Result<Template, Cause> {
    let [ca, certificate, key] = seed.credentials;
    let etcd = Etcd::secure(seed.etcd, &Credentials { ca, certificate, key }).await?;
    let (mut objects, mut pods) = (Vec::new(), Vec::new());
    for found in etcd.all(REGISTRY).await? {
        let key = String::from_utf8(found.key)?;
        let is_dropped = |kind: &&str| key.strip_prefix(REGISTRY).is_some_and(|rest| is_below(rest, kind));
        if DROPPED.iter().any(is_dropped) {
            continue;
        }
        if resource(&key) == "pods" {
            match pod::bound_to(&found.value).ok_or_else(|| format!("{key} is not understood"))? {
                // Those on other nodes, or on none yet, are left to the scheduler.
                Some(node) if node == seed.first.origin.node => pods.push(Object { key, value: found.value }),
                _ => {}
            }
            continue;
        }
        objects.push(Object { key, value: found.value });
    }
    let template = Template { objects, pods, first: seed.first, followers: seed.followers };
    template.check()?;
    Ok(template)
}

/// Whether a key without its first part belongs to a kind, with or without a group before it.
fn is_below(rest: &str, kind: &str) -> bool {
    let in_group = rest.split_once('/').filter(|(group, _)| group.contains('.')).map(|(_, rest)| rest);
    [Some(rest), in_group]
        .into_iter()
        .flatten()
        .any(|rest| rest.strip_prefix(kind).is_some_and(|rest| rest.starts_with('/')))
}

impl Template {
    /// Makes another cluster of it and looks for what still tells of the one that it comes from.
    pub(super) fn check(&self) -> Result<(), Cause> {
        let has_pod = |name: &str| self.pods.iter().any(|pod| pod.key.starts_with(&format!("{name}-")));
        // Not every cluster has kube-proxy; whether it has, its DaemonSet tells.
        let proxied = self.objects.iter().any(|object| object.key == KUBE_PROXY);
        for (name, wanted) in [(DNS_PODS, true), (PROXY_PODS, proxied)] {
            if wanted && !has_pod(name) {
                return Err(format!("there is no {name}-… yet").into());
            }
        }
        let another = |member: &Member| Origin {
            cluster: "another".to_owned(),
            node: "another-node".to_owned(),
            addresses: member.origin.addresses.iter().map(|_| "192.0.2.1".to_owned()).collect(),
            endpoint: "another-endpoint:6443".to_owned(),
            ca: String::new(),
            front_proxy_ca: String::new(),
        };
        let keys = Keys {
            files: Vec::new(),
            ca: "CA".to_owned(),
            front_proxy_ca: "CA".to_owned(),
            kubelet: crate::pki::Kubelet::default(),
            followers: BTreeMap::new(),
        };
        let followers = self.followers.iter().map(|member| Follower {
            key: Some(member.key.clone()),
            origin: another(member),
            ranges: Vec::new(),
            taints: None,
        });
        let newcomer = Newcomer {
            origin: &another(&self.first),
            keys: &keys,
            token: "",
            ranges: Vec::new(),
            taints: None,
            followers: followers.collect(),
        };
        let beginning = self.beginning(&newcomer)?;
        let values =
            beginning.values.iter().map(|value| (String::from_utf8_lossy(&value.key), &value.value[..]));
        let files = beginning.files.iter().chain(beginning.followers.values().flatten());
        let files = files.map(|(path, text)| (path.into(), text.as_bytes()));
        let members = || [&self.first].into_iter().chain(&self.followers);
        let told = |content: &[u8]| members().any(|member| member.origin.is_named_in(content));
        match values.chain(files).find(|(_, content)| told(content)) {
            Some((name, _)) => Err(format!("{name} tells of the cluster").into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_dropped_with_and_without_a_group() {
        assert!(is_below("leases/kube-system/x", "leases"));
        assert!(is_below("services/endpoints/default/kubernetes", "services/endpoints"));
        assert!(is_below("coordination.k8s.io/leases/x", "leases"));
        assert!(!is_below("services/specs/default/kubernetes", "services/endpoints"));
        assert!(!is_below("leasesets/x", "leases"));
    }
}
