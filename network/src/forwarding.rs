//! Letting a cluster's packets through the firewalls of other programs.
//!
//! A packet must be accepted by every table that has a chain at the forward hook. A chain of another program with
//! the policy to drop, such as Docker's, cannot be overruled from a table of our own: it takes rules in that chain.
//! With br_netfilter in the kernel even frames between two nodes of one bridge meet it.
//!
//! The rules are written as the `nft` program would write them into a table of iptables, so that both programs can
//! list the chain, and are found again by their comment.

use netlink_packet_netfilter::NetfilterProtoFamily;

use crate::{
    Network, Result, name, netns,
    nft::{self, BaseChain, Match, Rule, Transaction},
};

/// `NF_INET_FORWARD`, the hook's number in the families of IP.
const FORWARD_HOOK: u32 = 2;

/// The tables of legacy iptables in the kernel, each with the family it filters.
const LEGACY: [(&str, &str); 2] =
    [("/proc/thread-self/net/ip_tables_names", "ip"), ("/proc/thread-self/net/ip6_tables_names", "ip6")];

/// The firewalls of other programs that drop what is forwarded, or may do so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardDrops {
    /// Chains with this policy, as `FAMILY TABLE (chain CHAIN)`; those of iptables-nft are among them.
    /// [`publish`](crate::publish) opens them for a cluster's bridge.
    pub chains: Vec<String>,
    /// The same, but nobody may change them except the running program that made their table.
    pub owned: Vec<String>,
    /// The families (`ip`, `ip6`) for which legacy iptables has a filter table. The kernel shows its policy and takes
    /// its changes from nobody but iptables.
    pub legacy: Vec<String>,
}

/// The firewalls of the caller's namespace that drop what is forwarded.
///
/// Blocks for the better part of a millisecond.
///
/// # Errors
///
/// When the kernel does not list the chains.
pub fn forward_drops() -> Result<ForwardDrops> {
    let mut drops = ForwardDrops::default();
    for chain in forward_chains(nft::base_chains()?).filter(|chain| chain.drops) {
        let list = if chain.owned { &mut drops.owned } else { &mut drops.chains };
        list.push(chain.to_string());
    }
    for (file, family) in LEGACY {
        // Not there without legacy iptables in the kernel.
        let names = fs_err::read_to_string(file).unwrap_or_default();
        if names.lines().any(|name| name == "filter") {
            drops.legacy.push(family.to_owned());
        }
    }
    Ok(drops)
}

/// Lets the packets of the cluster's bridge through every chain that drops what is forwarded, and through no other;
/// gives back which these are.
///
/// Rules from earlier are replaced, since others may have come to stand before them.
pub(crate) async fn open(network: &Network) -> Result<Vec<String>> {
    let (rules, mark) = (rules(&network.bridge), name::mark(&network.cluster));
    netns::on_thread(None, move || {
        let (mut transaction, mut opened) = (Transaction::new(), Vec::new());
        for chain in changeable_chains()? {
            delete_rules(&mut transaction, &chain, &mark)?;
            if chain.drops {
                // Each is put before the one that was there.
                for rule in rules.iter().rev() {
                    transaction.insert_rule(&chain, rule, &mark);
                }
                opened.push(chain.to_string());
            }
        }
        transaction.commit()?;
        Ok(opened)
    })
    .await
}

/// Takes the cluster's rules out of the chains of other programs again, whatever their policy is now.
pub(crate) async fn close(network: &Network) -> Result<()> {
    let mark = name::mark(&network.cluster);
    netns::on_thread(None, move || {
        let mut transaction = Transaction::new();
        for chain in changeable_chains()? {
            delete_rules(&mut transaction, &chain, &mark)?;
        }
        transaction.commit()
    })
    .await
}

/// In the form of iptables' own `-i BRIDGE -j ACCEPT`, with the counter: it lists no chain with a rule that it could
/// not have made.
fn rules(bridge: &str) -> [Rule; 2] {
    let passage =
        |purpose, link| Rule::new(format!("{purpose} {bridge}"), [link, nft::counter(), nft::accept()]);
    [
        passage("accept what comes from", nft::from_interface(bridge, Match::Is)),
        passage("accept what goes to", nft::to_interface(bridge, Match::Is)),
    ]
}

fn delete_rules(transaction: &mut Transaction, chain: &BaseChain, mark: &str) -> Result<()> {
    for handle in nft::rules_with_comment(chain, mark)? {
        transaction.delete_rule(chain, handle);
    }
    Ok(())
}

fn changeable_chains() -> Result<impl Iterator<Item = BaseChain>> {
    Ok(forward_chains(nft::base_chains()?).filter(|chain| !chain.owned))
}

fn forward_chains(chains: Vec<BaseChain>) -> impl Iterator<Item = BaseChain> {
    use NetfilterProtoFamily::{IPv4, IPv6, Inet};
    chains
        .into_iter()
        .filter(|chain| chain.hook == FORWARD_HOOK && matches!(chain.family, IPv4 | IPv6 | Inet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: NetfilterProtoFamily, hook: u32) -> BaseChain {
        let (table, name) = ("filter".to_owned(), "FORWARD".to_owned());
        BaseChain { family, table, name, hook, drops: true, owned: false }
    }

    #[test]
    fn only_forward_chains_of_ip_count() {
        let chains = vec![
            chain(NetfilterProtoFamily::IPv4, FORWARD_HOOK),
            chain(NetfilterProtoFamily::IPv4, 1),
            chain(NetfilterProtoFamily::Bridge, FORWARD_HOOK),
            chain(NetfilterProtoFamily::Inet, FORWARD_HOOK),
        ];
        let names: Vec<_> = forward_chains(chains).map(|chain| chain.to_string()).collect();
        assert_eq!(names, ["ip filter (chain FORWARD)", "inet filter (chain FORWARD)"]);
    }

    #[test]
    fn both_directions_are_let_through() {
        let purposes = rules("kiln-kind").map(|rule| rule.purpose);
        assert_eq!(purposes, ["accept what comes from kiln-kind", "accept what goes to kiln-kind"]);
    }
}
