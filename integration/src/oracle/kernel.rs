//! Mounts, cgroups, links, nftables, listening ports and sysctls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use super::processes::Processes;

/// Host-wide settings that clusters change: forwarding, and what a kubelet writes whatever namespace it is in.
const SYSCTLS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

pub(super) fn mounts() -> BTreeSet<String> {
    // The mount id tells a second mount on the same place from the first.
    mountinfo()
        .map(|mount| {
            format!("{} ({} from {}, id {})", mount.point.display(), mount.kind, mount.source, mount.id)
        })
        .collect()
}

/// Every cgroup of every hierarchy with the processes in it, those of its descendants included.
pub(super) fn cgroups() -> BTreeMap<PathBuf, BTreeSet<u32>> {
    let mut found = BTreeMap::new();
    for mount in mountinfo().filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2") {
        collect_cgroups(&mount.point, &mut found);
    }
    assert!(!found.is_empty(), "no cgroup hierarchy is mounted");
    found
}

pub(super) fn links() -> BTreeSet<String> {
    let entries = fs_err::read_dir("/sys/class/net").expect("/sys is mounted");
    let names = entries.flatten().filter_map(|entry| {
        let index = fs_err::read_to_string(entry.path().join("ifindex")).ok()?;
        Some(format!("{} (index {})", entry.file_name().to_string_lossy(), index.trim()))
    });
    names.collect()
}

/// `table FAMILY NAME` to its rules, counters left out.
pub(super) fn nft_tables() -> BTreeMap<String, String> {
    let output = Command::new("nft")
        .args(["--stateless", "list", "ruleset"])
        .output()
        .expect("nft runs (scripts/setup.sh test installs it)");
    assert!(output.status.success(), "nft list ruleset: {}", String::from_utf8_lossy(&output.stderr));
    split_tables(&String::from_utf8_lossy(&output.stdout))
}

/// Listening sockets of the host's network namespace, `tcp 127.0.0.1:6443`, to the processes that hold each.
pub(super) fn listening_ports(processes: &Processes) -> BTreeMap<String, BTreeSet<u32>> {
    let mut ports = BTreeMap::new();
    // The state of a listening TCP socket is LISTEN (10), that of an unconnected UDP socket CLOSE (7).
    for (protocol, listening) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let Ok(table) = fs_err::read_to_string(format!("/proc/net/{protocol}")) else {
            continue;
        };
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            if *state == listening
                && let Some(address) = socket_address(local)
            {
                let holders =
                    inode.parse().map(|inode| processes.holders_of_socket(inode)).unwrap_or_default();
                ports.insert(format!("{protocol} {address}"), holders);
            }
        }
    }
    ports
}

pub(super) fn sysctls() -> BTreeMap<&'static str, String> {
    let values = SYSCTLS.into_iter().filter_map(|name| {
        let value = fs_err::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some((name, value.trim().to_owned()))
    });
    values.collect()
}

struct Mount {
    id: String,
    point: PathBuf,
    kind: String,
    source: String,
}

fn mountinfo() -> impl Iterator<Item = Mount> {
    let text = fs_err::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mounts: Vec<Mount> = text.lines().filter_map(parse_mount).collect();
    mounts.into_iter()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (place, filesystem) = line.split_once(" - ")?;
    let place: Vec<&str> = place.split(' ').collect();
    let mut filesystem = filesystem.split(' ');
    Some(Mount {
        id: (*place.first()?).to_owned(),
        // The kernel writes a space in a path as \040.
        point: PathBuf::from(place.get(4)?.replace("\\040", " ")),
        kind: filesystem.next()?.to_owned(),
        source: filesystem.next()?.to_owned(),
    })
}

fn collect_cgroups(directory: &Path, found: &mut BTreeMap<PathBuf, BTreeSet<u32>>) -> BTreeSet<u32> {
    // A cgroup may be removed while it is being looked at.
    let procs = fs_err::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut members: BTreeSet<u32> = procs.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs_err::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members.extend(collect_cgroups(&entry.path(), found));
        }
    }
    found.insert(directory.to_owned(), members.clone());
    members
}

fn split_tables(ruleset: &str) -> BTreeMap<String, String> {
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in ruleset.lines() {
        if let Some(name) = line.strip_suffix(" {").filter(|name| name.starts_with("table ")) {
            current = Some(name.to_owned());
        }
        if let Some(name) = &current {
            let rules = tables.entry(name.clone()).or_default();
            rules.push_str(line);
            rules.push('\n');
        }
        if line == "}" {
            current = None;
        }
    }
    tables
}

/// The kernel writes an address as words of 32 bits, each in the machine's own byte order, in hexadecimal.
fn socket_address(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for start in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(format!("{}:{port}", Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        16 => Some(format!("[{}]:{port}", Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines_are_read() {
        let line = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse_mount(line).expect("a line from proc(5)");
        assert_eq!(
            (mount.id.as_str(), mount.kind.as_str(), mount.source.as_str()),
            ("36", "ext3", "/dev/root")
        );
        assert_eq!(mount.point, Path::new("/mnt/a b"));
    }

    #[test]
    fn tables_are_told_apart() {
        let ruleset = "table ip a {\n\tchain x {\n\t}\n}\ntable inet b {\n}\n";
        let tables = split_tables(ruleset);
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["table inet b", "table ip a"]);
        assert!(tables["table ip a"].contains("chain x"));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn socket_addresses_are_decoded() {
        assert_eq!(socket_address("0100007F:192B").as_deref(), Some("127.0.0.1:6443"));
        let loopback = "00000000000000000000000001000000:0050";
        assert_eq!(socket_address(loopback).as_deref(), Some("[::1]:80"));
        assert_eq!(socket_address("7F:1"), None);
    }
}
