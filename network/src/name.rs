//! Names and hardware addresses that follow from a cluster's or a node's name and from nothing else.

/// Longest name of a link in bytes (`IFNAMSIZ` less the final NUL).
pub(crate) const LINK_NAME_MAX: usize = 15;

/// How the names of all clusters' bridges begin.
pub(crate) const PREFIX: &str = "kiln-";

/// The bridge of a cluster: its name where that fits into a link name, else a hash of it.
pub(crate) fn bridge(cluster: &str) -> String {
    let name = format!("{PREFIX}{cluster}");
    if name.len() <= LINK_NAME_MAX { name } else { format!("{PREFIX}{:010x}", folded_hash(cluster, 40)) }
}

/// The bridge's hardware address: locally administered, the same after every restart.
///
/// It also marks a bridge as Kiln's from its first moment: unlike an alias, the kernel takes it in the message
/// that makes the link, so that a run killed right after it leaves nothing that looks foreign.
pub(crate) fn bridge_mac(cluster: &str) -> [u8; 6] {
    let [_, _, _, a, b, c, d, e] = folded_hash(cluster, 40).to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// The alias of a cluster's bridge, shown by `ip link`; also the comment of its nftables tables, and of its rules in
/// those of others.
pub(crate) fn mark(cluster: &str) -> String {
    format!("kiln:{cluster}")
}

/// The nftables table of a cluster.
pub(crate) fn table(cluster: &str) -> String {
    format!("{PREFIX}{cluster}")
}

/// The host's end of a node's veth pair.
pub(crate) fn node_link(cluster: &str, node: &str) -> String {
    // No name has a slash.
    format!("kn{:012x}", folded_hash(&format!("{cluster}/{node}"), 48))
}

/// FNV-1a of `text`, folded to `bits` as its authors advise. Stable across versions and machines, unlike the
/// hashers of the standard library.
fn folded_hash(text: &str, bits: u32) -> u64 {
    let hash = fnv1a(text.as_bytes());
    (hash >> bits) ^ (hash & ((1 << bits) - 1))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_has_the_published_values() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn bridge_keeps_a_short_name_and_hashes_a_long_one() {
        assert_eq!(bridge("kind"), "kiln-kind");
        assert_eq!(bridge("0123456789"), "kiln-0123456789");
        let long = bridge("0123456789a");
        assert_eq!(long.len(), LINK_NAME_MAX);
        assert_ne!(long, bridge("0123456789b"));
        assert_eq!(long, bridge("0123456789a"));
    }

    #[test]
    fn node_links_fit_and_differ() {
        let names = [
            ("kind", "kind-control-plane"),
            ("kind", "kind-worker"),
            ("kind2", "kind2-worker"),
            ("kind_1", "kind-worker"),
        ];
        let links: std::collections::BTreeSet<_> =
            names.iter().map(|(cluster, node)| node_link(cluster, node)).collect();
        assert_eq!(links.len(), names.len());
        assert!(links.iter().all(|link| link.len() <= LINK_NAME_MAX && link.starts_with("kn")));
    }

    #[test]
    fn bridge_mac_is_local_and_unicast() {
        let mac = bridge_mac("kind");
        assert_eq!(mac[0] & 0b11, 0b10);
        assert_ne!(mac, bridge_mac("other"));
    }
}
