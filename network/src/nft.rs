//! nf_tables over netlink: tables as data, installed in one transaction.

mod dump;
mod expression;
mod socket;
mod transaction;

use std::{fmt, os::fd::BorrowedFd};

use netlink_packet_netfilter::{
    NetfilterProtoFamily,
    nftables::{Expressions, InetHookNumber},
};

use crate::{Error, Result, netns};

pub(crate) use dump::{BaseChain, base_chains, rules_with_comment};
pub(crate) use expression::{
    Match, accept, counter, destination_in, destination_is, destination_local, destination_nat,
    destination_port, drop, established, from_interface, from_interfaces, masquerade, protocol, queue,
    reject, source_in, to_interface, translated,
};
pub(crate) use transaction::Transaction;

/// An address family with tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ip,
    Ip6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Ip, Self::Ip6];

    /// Whether an address or a subnet given by its address is of this family.
    pub(crate) fn holds(self, address: std::net::IpAddr) -> bool {
        address.is_ipv4() == (self == Self::Ip)
    }

    fn protocol(self) -> NetfilterProtoFamily {
        match self {
            Self::Ip => NetfilterProtoFamily::IPv4,
            Self::Ip6 => NetfilterProtoFamily::IPv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

/// A table with all that is in it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) name: String,
    /// Shown by `nft list`, and by which a table is known as Kiln's.
    pub(crate) comment: String,
    pub(crate) chains: Vec<Chain>,
}

/// A chain that the kernel calls at a hook; what no rule decides is accepted.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) kind: ChainKind,
    pub(crate) hook: InetHookNumber,
    /// Chains of a hook run in ascending order of this: -300 is before connection tracking, -100 where destinations
    /// are translated, 0 filters, 100 where sources are translated.
    pub(crate) priority: i32,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
}

/// What is done to a packet, expression by expression, until one does not match.
#[derive(Debug)]
pub(crate) struct Rule {
    /// What it is for, as it follows "failed to".
    pub(crate) purpose: String,
    pub(crate) expressions: Vec<Expressions>,
}

impl Rule {
    pub(crate) fn new<const N: usize>(purpose: impl Into<String>, parts: [Vec<Expressions>; N]) -> Self {
        Self { purpose: purpose.into(), expressions: parts.into_iter().flatten().collect() }
    }
}

/// Puts tables in place of those of the same names, all of them or none, without a moment in between.
///
/// # Errors
///
/// [`Error::ForeignTable`] when a table of that name has another comment; nothing is changed then.
pub(crate) async fn install(netns: Option<BorrowedFd<'_>>, tables: Vec<Table>) -> Result<()> {
    netns::on_thread(netns, move || {
        let present = dump::tables()?;
        let mut transaction = Transaction::new();
        for table in &tables {
            let foreign = present.iter().any(|found| {
                found.family == table.family.protocol()
                    && found.name == table.name
                    && found.comment != table.comment
            });
            if foreign {
                return Err(Error::ForeignTable { table: format!("{} {}", table.family, table.name) });
            }
            transaction.replace_table(table);
        }
        transaction.commit()
    })
    .await
}

/// Whether a table of this name and comment is in the caller's namespace.
pub(crate) async fn installed(name: &'static str, comment: &'static str) -> Result<bool> {
    let ours = move |found: &dump::TableInfo| found.name == name && found.comment == comment;
    netns::on_thread(None, move || Ok(dump::tables()?.iter().any(ours))).await
}

/// Removes the tables of this name and comment from the caller's namespace.
pub(crate) async fn uninstall(name: &str, comment: &str) -> Result<()> {
    let (name, comment) = (name.to_owned(), comment.to_owned());
    netns::on_thread(None, move || {
        let present = dump::tables()?;
        let mut transaction = Transaction::new();
        for family in Family::ALL {
            let ours = |found: &dump::TableInfo| {
                found.family == family.protocol() && found.name == name && found.comment == comment
            };
            if present.iter().any(ours) {
                transaction.delete_table(family, &name);
            }
        }
        transaction.commit()
    })
    .await
}
