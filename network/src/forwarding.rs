//! Whether other programs' rules let forwarded packets through.
//!
//! A packet must be accepted by every table that has a chain at the forward hook. A chain of another program with
//! the policy to drop, such as Docker's, cannot be overruled from a table of our own.

use netlink_packet_netfilter::NetfilterProtoFamily;

use crate::{
    Result, netns,
    nft::{self, BaseChain},
};

/// `NF_INET_FORWARD`, the hook's number in the families of IP.
const FORWARD_HOOK: u32 = 2;

/// The tables of legacy iptables in the kernel, each with the family it filters.
const LEGACY: [(&str, &str); 2] =
    [("/proc/thread-self/net/ip_tables_names", "ip"), ("/proc/thread-self/net/ip6_tables_names", "ip6")];

/// The tables whose policy is to drop what is forwarded, as `FAMILY TABLE (chain CHAIN)`; those of iptables-nft are
/// among them.
///
/// Tables of legacy iptables are listed as `FAMILY filter (legacy iptables, policy unknown)` when they exist: the
/// kernel shows their policy to nobody but iptables.
///
/// # Errors
///
/// When the kernel does not list the chains.
pub async fn forward_drops() -> Result<Vec<String>> {
    netns::on_thread(None, || {
        let mut tables = dropping(&nft::base_chains()?);
        for (file, family) in LEGACY {
            // Not there without legacy iptables in the kernel.
            let names = fs_err::read_to_string(file).unwrap_or_default();
            if names.lines().any(|name| name == "filter") {
                tables.push(format!("{family} filter (legacy iptables, policy unknown)"));
            }
        }
        Ok(tables)
    })
    .await
}

fn dropping(chains: &[BaseChain]) -> Vec<String> {
    let dropping = chains.iter().filter(|chain| chain.drops && chain.hook == FORWARD_HOOK);
    dropping
        .filter_map(|chain| {
            let family = match chain.family {
                NetfilterProtoFamily::IPv4 => "ip",
                NetfilterProtoFamily::IPv6 => "ip6",
                NetfilterProtoFamily::Inet => "inet",
                _ => return None,
            };
            Some(format!("{family} {} (chain {})", chain.table, chain.name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: NetfilterProtoFamily, hook: u32, drops: bool) -> BaseChain {
        BaseChain { family, table: "filter".to_owned(), name: "FORWARD".to_owned(), hook, drops }
    }

    #[test]
    fn only_dropping_forward_chains_of_ip_count() {
        let chains = [
            chain(NetfilterProtoFamily::IPv4, FORWARD_HOOK, true),
            chain(NetfilterProtoFamily::IPv6, FORWARD_HOOK, false),
            chain(NetfilterProtoFamily::IPv4, 1, true),
            chain(NetfilterProtoFamily::Bridge, FORWARD_HOOK, true),
            chain(NetfilterProtoFamily::Inet, FORWARD_HOOK, true),
        ];
        assert_eq!(dropping(&chains), ["ip filter (chain FORWARD)", "inet filter (chain FORWARD)"]);
    }
}
