//! What a configuration asks of this host, checked before anything is made.

use ipnet::IpNet;
use kiln_network::overlap;

use crate::{
    Error, Result,
    config::{self, KubeProxyMode, MountPropagation, Subnets},
    doctor,
    host::{self, Sharing},
};

/// Checks everything that only this host can tell.
///
/// # Errors
/// The first thing the host does not have: [`Error::NoIpv6`], [`Error::KubeProxyMode`], [`Error::MountSource`],
/// [`Error::MountSharing`], [`Error::SubnetSize`], [`Error::SubnetClash`].
pub async fn check(config: &config::Cluster) -> Result<()> {
    let networking = &config.networking;
    if networking.ip_family.has_ipv6() && !host::detect()?.ipv6 {
        return Err(Error::NoIpv6 { family: networking.ip_family.as_str() });
    }
    check_proxy_mode(networking.kube_proxy_mode, doctor::kernel_lacks)?;
    for mount in config.nodes.iter().flat_map(|node| &node.extra_mounts) {
        check_mount(mount)?;
    }
    check_sizes(config)?;
    check_overlaps(networking, &kiln_network::occupied_subnets().await?)
}

/// What a mode of kube-proxy needs: its name, and the kernel's option and module; one of several is enough.
fn needs(mode: KubeProxyMode) -> (&'static str, &'static [(&'static str, &'static str)]) {
    match mode {
        KubeProxyMode::Ipvs => ("IP virtual servers (ip_vs)", &[("CONFIG_IP_VS", "ip_vs")]),
        KubeProxyMode::Nftables => ("nf_tables", &[("CONFIG_NF_TABLES", "nf_tables")]),
        // The node's iptables works by way of nf_tables where the kernel has its compatibility layer.
        KubeProxyMode::Iptables => (
            "iptables (ip_tables, or nft_compat)",
            &[("CONFIG_NFT_COMPAT", "nft_compat"), ("CONFIG_IP_NF_IPTABLES", "ip_tables")],
        ),
        KubeProxyMode::None => ("", &[]),
    }
}

fn check_proxy_mode(mode: KubeProxyMode, lacks: impl Fn(&str, &str) -> bool) -> Result<()> {
    let (missing, options) = needs(mode);
    if !options.is_empty() && options.iter().all(|(option, module)| lacks(option, module)) {
        return Err(Error::KubeProxyMode { mode: mode.as_str(), missing });
    }
    Ok(())
}

fn check_mount(mount: &config::Mount) -> Result<()> {
    let path = &mount.host_path;
    if !path.exists() {
        return Err(Error::MountSource { path: path.clone() });
    }
    let (propagation, wanted) = match (mount.propagation, host::sharing(path)?) {
        (MountPropagation::HostToContainer, Sharing::Private) => ("HostToContainer", "shared or a slave"),
        (MountPropagation::Bidirectional, Sharing::Private | Sharing::Slave) => ("Bidirectional", "shared"),
        _ => return Ok(()),
    };
    Err(Error::MountSharing { path: path.clone(), propagation, wanted })
}

/// The prefix lengths of nodes' pod ranges, as kube-controller-manager chooses them where nothing else is asked for.
const NODE_RANGES: (u8, u8) = (24, 64);

/// kubeadm checks the same, but only in the nodes, and it takes a kubelet's time-out to tell of some of it.
fn check_sizes(config: &config::Cluster) -> Result<()> {
    let patches = || {
        let nodes = config.nodes.iter().flat_map(|node| {
            node.kubeadm_config_patches
                .iter()
                .chain(node.kubeadm_config_patches_json6902.iter().map(|patch| &patch.patch))
        });
        config
            .kubeadm_config_patches
            .iter()
            .chain(config.kubeadm_config_patches_json6902.iter().map(|patch| &patch.patch))
            .chain(nodes)
    };
    // Whoever sets the size of the ranges knows what he does.
    let sized = patches().any(|patch| patch.contains("node-cidr-mask-size"));
    for subnet in config.networking.pod_subnet.nets() {
        let range = if subnet.addr().is_ipv4() { NODE_RANGES.0 } else { NODE_RANGES.1 };
        let nodes = config.nodes.len();
        let ranges = range.checked_sub(subnet.prefix_len()).map_or(0, |bits| 1_u128 << bits.min(100));
        if !sized && ranges < nodes as u128 {
            let reason = format!("each of {nodes} node(s) takes a /{range} of it");
            return Err(Error::SubnetSize { what: "podSubnet", subnet: *subnet, reason });
        }
    }
    for subnet in config.networking.service_subnet.nets() {
        // The tenth address is CoreDNS's.
        let bits = subnet.max_prefix_len() - subnet.prefix_len();
        if bits < 4 {
            let reason = "Services take at least 16 addresses".to_owned();
            return Err(Error::SubnetSize { what: "serviceSubnet", subnet: *subnet, reason });
        }
    }
    Ok(())
}

fn check_overlaps(networking: &config::Networking, host: &[IpNet]) -> Result<()> {
    let (pods, services) = (&networking.pod_subnet, &networking.service_subnet);
    for subnet in pods.nets() {
        if let Some(other) = services.nets().iter().find(|other| overlap(*subnet, **other)) {
            let with = format!("serviceSubnet {other}");
            return Err(Error::SubnetClash { what: "podSubnet", subnet: *subnet, with });
        }
    }
    // The defaults are what a cluster around this host may have too, and hide at most that one.
    let chosen = [
        ("podSubnet", pods, Subnets::default_pods(networking.ip_family)),
        ("serviceSubnet", services, Subnets::default_services(networking.ip_family)),
    ];
    for (what, subnets, default) in chosen {
        for subnet in subnets.nets().iter().filter(|subnet| !default.nets().contains(subnet)) {
            if let Some(other) = host.iter().find(|other| overlap(*subnet, **other)) {
                let with = format!("{other}, which this host has a route or an address in");
                return Err(Error::SubnetClash { what, subnet: *subnet, with });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> config::Cluster {
        let head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n";
        config::load(&format!("{head}{text}"), "test").unwrap()
    }

    #[test]
    fn a_mode_the_kernel_lacks_is_refused_by_name() {
        let no_ipvs = |option: &str, _: &str| option == "CONFIG_IP_VS";
        let error = check_proxy_mode(KubeProxyMode::Ipvs, no_ipvs).unwrap_err().to_string();
        assert!(error.contains("kubeProxyMode ipvs") && error.contains("ip_vs"), "{error}");
        assert!(check_proxy_mode(KubeProxyMode::Nftables, no_ipvs).is_ok());
        assert!(check_proxy_mode(KubeProxyMode::None, |_, _| true).is_ok());
        // Either way of running iptables will do.
        assert!(check_proxy_mode(KubeProxyMode::Iptables, |option, _| option == "CONFIG_NFT_COMPAT").is_ok());
        assert!(check_proxy_mode(KubeProxyMode::Iptables, |_, _| true).is_err());
    }

    #[test]
    fn pod_subnets_have_room_for_every_node() {
        let two = "nodes: [{role: control-plane}, {role: worker}]\n";
        let with =
            |subnet: &str| check_sizes(&cluster(&format!("{two}networking: {{podSubnet: {subnet}}}\n")));
        assert!(with("10.244.0.0/23").is_ok());
        let error = with("10.244.0.0/24").unwrap_err().to_string();
        assert!(error.contains("podSubnet 10.244.0.0/24 is too small"), "{error}");
        assert!(with("10.244.0.0/25").is_err());
        let patched = format!(
            "{two}networking: {{podSubnet: 10.244.0.0/25}}\nkubeadmConfigPatches:\n- |\n  kind: ClusterConfiguration\n  \
             controllerManager: {{extraArgs: {{node-cidr-mask-size: \"26\"}}}}\n"
        );
        assert!(check_sizes(&cluster(&patched)).is_ok());
        let ipv6 = |subnet: &str| {
            check_sizes(&cluster(&format!("{two}networking: {{ipFamily: ipv6, podSubnet: \"{subnet}\"}}\n")))
        };
        assert!(ipv6("fd00:1::/63").is_ok());
        assert!(ipv6("fd00:1::/64").is_err());
        assert!(check_sizes(&cluster("networking: {serviceSubnet: 10.96.0.0/29}\n")).is_err());
    }

    #[test]
    fn clashes_name_both_sides() {
        let clash = |text: &str, host: &[&str]| {
            let host: Vec<IpNet> = host.iter().map(|net| net.parse().unwrap()).collect();
            check_overlaps(&cluster(text).networking, &host).map_err(|error| error.to_string())
        };
        assert_eq!(clash("", &["10.244.3.0/24", "192.168.0.0/16"]), Ok(()));
        let error = clash("networking: {podSubnet: 10.0.0.0/8}\n", &[]).unwrap_err();
        assert_eq!(error, "podSubnet 10.0.0.0/8 overlaps serviceSubnet 10.96.0.0/16");
        let error = clash("networking: {podSubnet: 10.40.0.0/16}\n", &["10.40.7.0/24"]).unwrap_err();
        assert!(error.starts_with("podSubnet 10.40.0.0/16 overlaps 10.40.7.0/24"), "{error}");
    }

    #[test]
    fn a_mount_needs_a_source() {
        let error = check_mount(&config::Mount {
            host_path: "/no/such/path".into(),
            container_path: "/mnt".into(),
            read_only: false,
            selinux_relabel: false,
            propagation: MountPropagation::None,
        });
        assert!(matches!(error, Err(Error::MountSource { .. })));
    }
}
