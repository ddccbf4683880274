//! What certificates say, read from what kubeadm is told.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::kubeadm::document;

/// Where a cluster's API is, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name of the cluster in kubeconfigs.
    pub(crate) cluster: String,
    /// The node's name.
    pub(crate) node: String,
    /// The address that the API server tells others.
    pub(crate) advertised: IpAddr,
    /// What everybody reaches the API by, as a URL.
    pub(crate) public: String,
    /// What the node's own components reach it by.
    pub(crate) local: String,
    endpoint_host: String,
    dns_domain: String,
    service_address: IpAddr,
    api_extra: Vec<String>,
}

/// What somebody may have patched in that makes keys other than those made here.
const DIFFERENT: [&str; 4] =
    ["/certificatesDir", "/caCertificateValidityPeriod", "/certificateValidityPeriod", "/etcd"];

impl Identity {
    /// Reads it from a node's kubeadm configuration. `None` when keys are asked for that only kubeadm makes.
    pub(crate) fn read(kubeadm: &str, node: &str) -> Option<Self> {
        let cluster = document(kubeadm, "ClusterConfiguration")?;
        let init = document(kubeadm, "InitConfiguration")?;
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let algorithm = text(&cluster["encryptionAlgorithm"]);
        if DIFFERENT.iter().any(|place| cluster.pointer(place).is_some_and(|value| !value.is_null()))
            || algorithm.is_some_and(|algorithm| algorithm != "ECDSA-P256")
            || text(&init["nodeRegistration"]["name"]).is_some_and(|name| name != node)
        {
            return None;
        }
        let advertised: IpAddr = text(&init["localAPIEndpoint"]["advertiseAddress"])?.parse().ok()?;
        let port = init["localAPIEndpoint"]["bindPort"].as_u64()?;
        let endpoint = text(&cluster["controlPlaneEndpoint"])?;
        let (host, _) = endpoint.rsplit_once(':')?;
        let services = text(&cluster["networking"]["serviceSubnet"])?;
        let services: IpNet = services.split(',').next()?.trim().parse().ok()?;
        let extra = cluster["apiServer"]["certSANs"].as_array().cloned().unwrap_or_default();
        Some(Self {
            cluster: text(&cluster["clusterName"])?,
            node: node.to_owned(),
            advertised,
            public: format!("https://{endpoint}"),
            local: format!("https://{}", std::net::SocketAddr::new(advertised, u16::try_from(port).ok()?)),
            endpoint_host: host.trim_matches(['[', ']']).to_owned(),
            dns_domain: text(&cluster["networking"]["dnsDomain"])
                .unwrap_or_else(|| "cluster.local".to_owned()),
            service_address: service_of_api(services),
            api_extra: extra.iter().filter_map(text).collect(),
        })
    }

    /// What the API server is called.
    pub(super) fn api_names(&self) -> Vec<String> {
        let mut names = vec![self.node.clone(), "kubernetes".to_owned(), "kubernetes.default".to_owned()];
        names.push("kubernetes.default.svc".to_owned());
        names.push(format!("kubernetes.default.svc.{}", self.dns_domain));
        names.extend([self.service_address.to_string(), self.advertised.to_string()]);
        names.push(self.endpoint_host.clone());
        names.extend(self.api_extra.iter().cloned());
        unique(names)
    }

    /// What etcd is called.
    pub(super) fn etcd_names(&self) -> Vec<String> {
        let names = [&self.node, "localhost", "127.0.0.1", "::1", &self.advertised.to_string()];
        unique(names.map(str::to_owned).to_vec())
    }
}

/// The address of the Service `kubernetes`: the first that is not the subnet's own.
pub(crate) fn service_of_api(services: IpNet) -> IpAddr {
    service(services, 1)
}

/// The address of the Service `kube-dns`, as kubeadm chooses it (`GetDNSIP` in cmd/kubeadm/app/constants): the tenth.
pub(crate) fn service_of_dns(services: IpNet) -> IpAddr {
    service(services, 10)
}

fn service(services: IpNet, index: u8) -> IpAddr {
    match services.network() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) + u32::from(index)).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) + u128::from(index)).into()),
    }
}

fn unique(mut names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

#[cfg(test)]
pub(super) const EXAMPLE: &str = "\
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: c
controlPlaneEndpoint: c-control-plane:6443
apiServer:
  certSANs: [localhost, 127.0.0.1]
networking:
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/16
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: 172.30.0.2
  bindPort: 6443
nodeRegistration:
  criSocket: unix:///run/containerd/containerd.sock
";

#[cfg(test)]
pub(crate) fn example() -> Identity {
    Identity::read(EXAMPLE, "c-control-plane").unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubeadm_gives() {
        let identity = example();
        assert_eq!(
            identity.api_names(),
            [
                "c-control-plane",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "10.96.0.1",
                "172.30.0.2",
                "localhost",
                "127.0.0.1",
            ]
        );
        assert_eq!(identity.etcd_names(), ["c-control-plane", "localhost", "127.0.0.1", "::1", "172.30.0.2"]);
        assert_eq!(identity.public, "https://c-control-plane:6443");
        assert_eq!(identity.local, "https://172.30.0.2:6443");
    }

    #[test]
    fn addresses_of_the_sixth_version_are_names_without_brackets() {
        let text = EXAMPLE
            .replace("172.30.0.2", "'fd00::2'")
            .replace("10.96.0.0/16", "'fd00:10:96::/112'")
            .replace("c-control-plane:6443", "'[fd00::2]:6443'");
        let identity = Identity::read(&text, "c-control-plane").unwrap();
        assert!(identity.api_names().contains(&"fd00:10:96::1".to_owned()));
        assert!(identity.api_names().contains(&"fd00::2".to_owned()));
        assert_eq!(identity.local, "https://[fd00::2]:6443");
    }

    #[test]
    fn what_only_kubeadm_makes_is_left_to_it() {
        for patched in [
            "encryptionAlgorithm: RSA-4096",
            "certificatesDir: /elsewhere",
            "etcd: {external: {endpoints: []}}",
            "certificateValidityPeriod: 10h",
        ] {
            let text = EXAMPLE.replace("clusterName: c", &format!("clusterName: c\n{patched}"));
            assert_eq!(Identity::read(&text, "c-control-plane"), None, "{patched}");
        }
        assert_eq!(Identity::read(EXAMPLE, "other").map(|identity| identity.node), Some("other".to_owned()));
        let named = EXAMPLE.replace("nodeRegistration:", "nodeRegistration:\n  name: mine");
        assert_eq!(Identity::read(&named, "c-control-plane"), None);
        assert_eq!(Identity::read("kind: [", "c"), None);
    }
}
