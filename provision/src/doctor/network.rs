//! What the network of a cluster is made of: kernel features, forwarding, firewalls, ports, name servers.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use fs_err as fs;
use kiln_network::{ForwardDrops, forward_drops};
use rustix::fs::{Access, access};

use super::{
    Finding,
    kernel::{Build, Feature},
    read_number,
};

/// Features with their options and modules.
const FEATURES: [(&str, &str, &str); 6] = [
    ("bridge", "CONFIG_BRIDGE", "bridge"),
    ("veth", "CONFIG_VETH", "veth"),
    ("nf_tables", "CONFIG_NF_TABLES", "nf_tables"),
    ("nft_nat", "CONFIG_NFT_NAT", "nft_nat"),
    ("nft_masq", "CONFIG_NFT_MASQ", "nft_masq"),
    ("nf_conntrack", "CONFIG_NF_CONNTRACK", "nf_conntrack"),
];

const FIREWALLS: &str = "firewalls";

pub(super) fn findings() -> Vec<Finding> {
    let build = Build::of_this_kernel();
    vec![
        judge_features(|option, module| build.feature(option, module)),
        forwarding(),
        firewalls(),
        ports(),
        judge_resolvers(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), || {
            fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or_default()
        }),
    ]
}

fn judge_features(feature: impl Fn(&str, &str) -> Feature) -> Finding {
    const CHECK: &str = "network features";
    let with = |state: Feature| -> Vec<&str> {
        FEATURES
            .iter()
            .filter(|(_, option, module)| feature(option, module) == state)
            .map(|(name, ..)| *name)
            .collect()
    };
    let (absent, unknown) = (with(Feature::Absent), with(Feature::Unknown));
    if !absent.is_empty() {
        return Finding::problem(
            CHECK,
            format!("the kernel has no {}", absent.join(", ")),
            "run a kernel built with these; distributions' kernels are",
        );
    }
    if !unknown.is_empty() {
        return Finding::warning(
            CHECK,
            format!("cannot tell whether the kernel has {}", unknown.join(", ")),
            format!("if creating a cluster fails, load them on the host: modprobe -a {}", unknown.join(" ")),
        );
    }
    Finding::ok(CHECK, "bridge, veth, nf_tables with NAT, connection tracking")
}

fn forwarding() -> Finding {
    const CHECK: &str = "forwarding";
    const PATH: &str = "/proc/sys/net/ipv4/ip_forward";
    match read_number(PATH) {
        Some(0) if access(PATH, Access::WRITE_OK).is_err() => Finding::problem(
            CHECK,
            "net.ipv4.ip_forward is 0 and cannot be changed here",
            "set it outside of this container: sysctl -w net.ipv4.ip_forward=1",
        ),
        Some(0) => Finding::ok(CHECK, "off; turned on while there are clusters"),
        Some(_) => Finding::ok(CHECK, "on"),
        None => Finding::problem(CHECK, format!("{PATH} cannot be read"), "mount /proc with /proc/sys"),
    }
}

fn firewalls() -> Finding {
    match forward_drops() {
        Ok(drops) => judge_firewalls(&drops),
        Err(error) => Finding::warning(
            FIREWALLS,
            format!("cannot tell whether one has the policy to drop what is forwarded: {error}"),
            error.hint().unwrap_or_else(|| "look for nf_tables in the kernel's log: dmesg".to_owned()),
        ),
    }
}

fn judge_firewalls(drops: &ForwardDrops) -> Finding {
    if !drops.legacy.is_empty() {
        let cures: Vec<_> = drops
            .legacy
            .iter()
            .flat_map(|family| {
                let program = if family == "ip6" { "ip6tables" } else { "iptables" };
                // All bridges of clusters have names that begin like this.
                ["-i", "-o"].map(|direction| format!("{program} -I FORWARD {direction} kiln-+ -j ACCEPT"))
            })
            .collect();
        return Finding::warning(
            FIREWALLS,
            format!(
                "legacy iptables ({}) may drop what is forwarded; its policy is not visible",
                drops.legacy.join(", ")
            ),
            format!("where the policy of FORWARD is DROP: {}", cures.join("; ")),
        );
    }
    if !drops.owned.is_empty() {
        return Finding::warning(
            FIREWALLS,
            format!(
                "what is forwarded is dropped by {}, which only its program can change",
                drops.owned.join(", ")
            ),
            "tell that program to accept what comes in or goes out through links whose names begin with kiln-",
        );
    }
    if drops.chains.is_empty() {
        return Finding::ok(FIREWALLS, "none has the policy to drop what is forwarded");
    }
    Finding::ok(
        FIREWALLS,
        format!("opened for clusters' bridges while they exist: {}", drops.chains.join(", ")),
    )
}

/// The API of a cluster without a port in its configuration gets a free one on the loopback address.
fn ports() -> Finding {
    const CHECK: &str = "ports";
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(_) => Finding::ok(CHECK, "127.0.0.1 has free ports"),
        Err(error) => Finding::problem(
            CHECK,
            format!("no port of 127.0.0.1 can be listened on: {error}"),
            "see that the link lo is up and net.ipv4.ip_local_port_range has free ports",
        ),
    }
}

fn judge_resolvers(resolv_conf: &str, behind_stub: impl Fn() -> String) -> Finding {
    const CHECK: &str = "name servers";
    let servers = servers(resolv_conf);
    let reachable: Vec<_> =
        servers.iter().filter(|server| !server.is_loopback()).map(IpAddr::to_string).collect();
    if !reachable.is_empty() {
        return Finding::ok(CHECK, reachable.join(", "));
    }
    // A loopback address means the node itself inside of a node; systemd-resolved tells which servers it asks.
    let behind: Vec<_> = self::servers(&behind_stub())
        .iter()
        .filter(|server| !server.is_loopback())
        .map(IpAddr::to_string)
        .collect();
    if !servers.is_empty() && !behind.is_empty() {
        return Finding::ok(CHECK, format!("{} (behind systemd-resolved)", behind.join(", ")));
    }
    let detail = if servers.is_empty() {
        "/etc/resolv.conf names none"
    } else {
        "/etc/resolv.conf names only this host"
    };
    Finding::warning(
        CHECK,
        detail,
        "pods resolve names of the cluster only; for others, name a server in /etc/resolv.conf that nodes can reach",
    )
}

fn servers(resolv_conf: &str) -> Vec<IpAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
            // Link-local IPv6 servers carry their link: `fe80::1%eth0`.
            address.split('%').next()?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_missing_feature_outweighs_an_unknown_one() {
        assert_eq!(judge_features(|_, _| Feature::Loadable).status, Status::Ok);
        let unknown = |_: &str, module: &str| {
            if module == "veth" { Feature::Unknown } else { Feature::Present }
        };
        let finding = judge_features(unknown);
        assert_eq!(finding.status, Status::Warning);
        assert!(finding.cure.unwrap().ends_with("modprobe -a veth"));
        let absent = |option: &str, module: &str| match option {
            "CONFIG_BRIDGE" => Feature::Absent,
            _ => unknown(option, module),
        };
        let finding = judge_features(absent);
        assert_eq!((finding.status, finding.detail.as_str()), (Status::Problem, "the kernel has no bridge"));
    }

    #[test]
    fn only_firewalls_that_cannot_be_opened_are_warned_about() {
        let none = ForwardDrops::default();
        assert_eq!(judge_firewalls(&none).status, Status::Ok);
        let docker = ForwardDrops { chains: vec!["ip filter (chain FORWARD)".to_owned()], ..none.clone() };
        let finding = judge_firewalls(&docker);
        let expected = "opened for clusters' bridges while they exist: ip filter (chain FORWARD)";
        assert_eq!((finding.status, finding.detail.as_str()), (Status::Ok, expected));

        let legacy = ForwardDrops { legacy: vec!["ip".to_owned(), "ip6".to_owned()], ..docker.clone() };
        let finding = judge_firewalls(&legacy);
        assert_eq!(finding.status, Status::Warning);
        let cure = finding.cure.unwrap();
        assert!(
            cure.contains("iptables -I FORWARD -i kiln-+ -j ACCEPT; iptables -I FORWARD -o kiln-+ -j ACCEPT")
        );
        assert!(cure.ends_with("ip6tables -I FORWARD -o kiln-+ -j ACCEPT"));

        let owned = ForwardDrops { owned: vec!["inet fw (chain forward)".to_owned()], ..docker };
        let finding = judge_firewalls(&owned);
        assert_eq!(finding.status, Status::Warning);
        assert!(finding.detail.contains("inet fw (chain forward)"));
    }

    #[test]
    fn name_servers_must_be_reachable_from_nodes() {
        let none = String::new;
        assert_eq!(judge_resolvers("nameserver 10.0.0.1\n", none).detail, "10.0.0.1");
        assert_eq!(
            judge_resolvers("search x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n", none).detail,
            "fe80::1"
        );
        assert_eq!(judge_resolvers("nameserver 127.0.0.53\n", none).status, Status::Warning);
        assert_eq!(judge_resolvers("", || "nameserver 10.0.0.1".to_owned()).status, Status::Warning);
        assert_eq!(judge_resolvers("# nameserver 10.0.0.1\n", none).detail, "/etc/resolv.conf names none");
        let stub = judge_resolvers("nameserver 127.0.0.53\n", || "nameserver 10.0.0.1\n".to_owned());
        assert_eq!((stub.status, stub.detail.as_str()), (Status::Ok, "10.0.0.1 (behind systemd-resolved)"));
    }
}
