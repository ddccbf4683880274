//! What nodes are told about their pods' network, by the launcher and by the agent in the cluster.

use ipnet::IpNet;
use serde_json::json;

/// Where it goes in a node. The name sorts before what a CNI installed later usually writes, as kindnet's does.
pub(crate) const CNI_CONFIG: &str = "etc/cni/net.d/10-kiln.conflist";

/// The CNI configuration for pods from these ranges (one per address family).
pub(crate) fn cni_config(pod_cidrs: &[IpNet], mtu: u32) -> String {
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| json!([{ "subnet": cidr.to_string() }])).collect();
    let routes: Vec<_> = pod_cidrs
        .iter()
        .map(|cidr| json!({ "dst": if matches!(cidr, IpNet::V4(_)) { "0.0.0.0/0" } else { "::/0" } }))
        .collect();
    let config = json!({
        "cniVersion": "0.3.1",
        "name": "kiln",
        "plugins": [
            {
                "type": "ptp",
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
        assert_eq!(ptp["mtu"], 1400);
        assert_eq!(ptp["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24");
        assert_eq!(ptp["ipam"]["routes"][0]["dst"], "0.0.0.0/0");
    }
}
