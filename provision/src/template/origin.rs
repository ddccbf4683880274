//! What tells one cluster's objects and files from another's.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{kubeadm::ENGINE, pki::Keys};

/// The names and addresses of a cluster, and who its authorities are.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// Its first node's name.
    pub(crate) node: String,
    /// The first node's addresses.
    pub(crate) addresses: Vec<String>,
    /// Host and port of the API.
    pub(crate) endpoint: String,
    /// The certificate of its authority, in PEM.
    pub(crate) ca: String,
    /// The same of the front proxy.
    pub(crate) front_proxy_ca: String,
}

impl Origin {
    /// What stands for this cluster in ConfigMaps, and what stands for the other in its place.
    pub(super) fn texts(&self, new: &Self, keys: &Keys) -> Vec<(String, String)> {
        let pem = |text: &str| text.trim_end().to_owned();
        let line = |key: &str, value: &str| format!("{key}: {value}\n");
        vec![
            (STANDARD.encode(&self.ca), STANDARD.encode(&keys.ca)),
            (pem(&self.ca), pem(&keys.ca)),
            (pem(&self.front_proxy_ca), pem(&keys.front_proxy_ca)),
            (format!("https://{}", self.endpoint), format!("https://{}", new.endpoint)),
            (line("clusterName", &self.cluster), line("clusterName", &new.cluster)),
            (line("controlPlaneEndpoint", &self.endpoint), line("controlPlaneEndpoint", &new.endpoint)),
        ]
    }

    /// A file of this cluster's first node, as the other's.
    pub(super) fn rename(&self, new: &Self, text: &str) -> String {
        let provider = |origin: &Self| format!("://{ENGINE}/{}/{}", origin.cluster, origin.node);
        let argument = |origin: &Self| format!("--cluster-name={}", origin.cluster);
        let mut text = text.replace(&provider(self), &provider(new));
        text = replace_word(&text, &argument(self), &argument(new));
        text = replace_word(&text, &self.node, &new.node);
        for (old, new) in self.addresses.iter().zip(&new.addresses) {
            text = replace_word(&text, old, new);
        }
        text
    }

    /// Whether something still tells of this cluster: its first node's name or address, its API, an authority.
    pub(super) fn is_named_in(&self, bytes: &[u8]) -> bool {
        let pem = |text: &str| text.lines().nth(1).unwrap_or_default().to_owned();
        let base64 = STANDARD.encode(&self.ca);
        // From the middle: how certificates begin is the same for all.
        let middle = base64.get(base64.len() / 2..base64.len() / 2 + 64).unwrap_or_default().to_owned();
        let traces = [&self.node, &self.endpoint, &pem(&self.ca), &pem(&self.front_proxy_ca), &middle];
        traces.into_iter().chain(&self.addresses).any(|trace| {
            !trace.is_empty() && bytes.windows(trace.len()).any(|window| window == trace.as_bytes())
        })
    }
}

/// Replaces what is not part of a longer name or address.
fn replace_word(text: &str, old: &str, new: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(old) {
        let (before, found) = rest.split_at(at);
        let after = &found[old.len()..];
        let inside = before.chars().next_back().or_else(|| replaced.chars().next_back()).is_some_and(is_part)
            || after.chars().next().is_some_and(is_part);
        replaced.push_str(before);
        replaced.push_str(if inside { old } else { new });
        rest = after;
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(cluster: &str, address: &str) -> Origin {
        let node = format!("{cluster}-control-plane");
        Origin {
            cluster: cluster.to_owned(),
            endpoint: format!("{node}:6443"),
            node,
            addresses: vec![address.to_owned()],
            ca: format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", cluster.repeat(200)),
            front_proxy_ca: String::new(),
        }
    }

    #[test]
    fn files_tell_of_the_new_cluster() {
        let text = "--cluster-name=a\n--name=a-control-plane --node-ip=172.30.0.2 --x=172.30.0.21\n\
                    --initial-cluster=a-control-plane=https://172.30.0.2:2380\nprovider-id=kind://kiln/a/a-control-plane\n\
                    --cluster-name=abc a-control-plane2";
        let renamed = origin("a", "172.30.0.2").rename(&origin("bb", "172.30.9.2"), text);
        assert_eq!(
            renamed,
            "--cluster-name=bb\n--name=bb-control-plane --node-ip=172.30.9.2 --x=172.30.0.21\n\
             --initial-cluster=bb-control-plane=https://172.30.9.2:2380\nprovider-id=kind://kiln/bb/bb-control-plane\n\
             --cluster-name=abc a-control-plane2"
        );
    }

    #[test]
    fn what_is_left_of_a_cluster_is_found() {
        let origin = origin("a", "172.30.0.2");
        assert!(origin.is_named_in(b"https://a-control-plane:6443"));
        assert!(origin.is_named_in(b"https://172.30.0.2:2379"));
        assert!(origin.is_named_in(STANDARD.encode(&origin.ca).as_bytes()));
        assert!(!origin.is_named_in(b"clusterName: a"));
    }

    #[test]
    fn configuration_names_the_new_cluster() {
        let (old, new) = (origin("a", "1"), origin("b", "2"));
        let keys = Keys {
            files: Vec::new(),
            ca: "new CA\n".to_owned(),
            front_proxy_ca: String::new(),
            kubelet: crate::pki::Kubelet::default(),
            followers: std::collections::BTreeMap::new(),
        };
        let text = format!(
            "clusterName: a\ncontrolPlaneEndpoint: a-control-plane:6443\ncertificate-authority-data: {}\n{}",
            STANDARD.encode(&old.ca),
            old.ca
        );
        let texts = old.texts(&new, &keys);
        let changed = texts.iter().filter(|(from, _)| !from.is_empty());
        let changed = changed.fold(text, |text, (from, to)| text.replace(from, to));
        assert_eq!(
            changed,
            "clusterName: b\ncontrolPlaneEndpoint: b-control-plane:6443\ncertificate-authority-data: bmV3IENBCg==\nnew CA\n"
        );
    }
}
