//! What nodes are told about their pods' network, by the launcher and by the agent in the cluster.

use ipnet::IpNet;
use serde_json::json;

/// Where it goes in a node. The name sorts before what a CNI installed later usually writes, as kindnet's does.
pub(crate) const CNI_CONFIG: &str = "etc/cni/net.d/10-kiln.conflist";

/// The plug-in that connects pods which have IPv6, in a node: ptp without duplicate address detection. Kiln's node image has
/// it; others get it from the launcher.
pub(crate) const PTP_PLUGIN: &str = "opt/cni/bin/kiln-ptp";

/// Its text, a script.
pub(crate) const PTP_PLUGIN_TEXT: &str = include_str!("../node-image/rootfs/opt/cni/bin/kiln-ptp");

/// The CNI configuration for pods from these ranges (one per address family).
pub(crate) fn cni_config(pod_cidrs: &[IpNet], mtu: u32) -> String {
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr.to_string() }])).collect();
    let routes: Vec<_> = pod_cidrs
        .iter()
        .map(|cidr| json!({ "dst": if matches!(cidr, IpNet::V4(_)) { "0.0.0.0/0" } else { "::/0" } }))
        .collect();
    let ipv6 = pod_cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_)));
    let config = json!({
        "cniVersion": "0.3.1",
        "name": "kiln",
        "plugins": [
            {
                "type": if ipv6 { "kiln-ptp" } else { "ptp" },
                "ipMasq": false,
                "mtu": mtu,
                "ipam": { "type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": routes, "ranges": ranges },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_ranges_routes_and_mtu() {
        let text = cni_config(&["10.244.0.0/24".parse().unwrap()], 1400);
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ptp = &config["plugins"][0];
        assert_eq!((ptp["type"].as_str(), ptp["mtu"].as_u64()), (Some("ptp"), Some(1400)));
        assert_eq!(ptp["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
        assert_eq!(ptp["ipam"]["routes"][0]["dst"], "0.0.0.0/0");
    }

    #[test]
    fn pods_with_ipv6_do_not_wait_for_their_address() {
        let ranges = ["10.244.0.0/24", "fd00:10:244::/64"].map(|range| range.parse().unwrap());
        let config: serde_json::Value = serde_json::from_str(&cni_config(&ranges, 1500)).unwrap();
        assert_eq!(config["plugins"][0]["type"], "kiln-ptp");
        assert!(PTP_PLUGIN.ends_with("/kiln-ptp") && PTP_PLUGIN_TEXT.starts_with("#!/bin/sh\n"));
    }
}
