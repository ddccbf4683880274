//! What is there: tables, base chains and their rules, of the calling thread's namespace.

use std::{fmt, io};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, ExpressionAttribute, Expressions, Hook, HookNumber, ListAttribute,
        NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
    },
};

use super::{socket::Socket, transaction};
use crate::{Error, Result};

/// A change of the rules during a listing makes it incomplete; so many in a row are no accident.
const ATTEMPTS: usize = 5;

/// `NFTA_MATCH_NAME` and `NFTA_MATCH_INFO`: a match of iptables, and what it is given, here a text of fixed length.
const MATCH_NAME: u16 = 1;
const MATCH_INFO: u16 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableInfo {
    pub(super) family: NetfilterProtoFamily,
    pub(super) name: String,
    /// Empty when it has none.
    pub(super) comment: String,
    /// Whether it belongs to one socket, whose program alone may change it.
    pub(super) owned: bool,
}

/// A chain that the kernel calls at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseChain {
    pub(crate) family: NetfilterProtoFamily,
    pub(crate) table: String,
    pub(crate) name: String,
    /// The number of the hook; its meaning depends on the family.
    pub(crate) hook: u32,
    /// Whether packets that no rule decided on are dropped.
    pub(crate) drops: bool,
    /// Whether its table can only be changed by the program that made it.
    pub(crate) owned: bool,
}

/// `FAMILY TABLE (chain CHAIN)`.
impl fmt::Display for BaseChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            NetfilterProtoFamily::IPv4 => "ip",
            NetfilterProtoFamily::IPv6 => "ip6",
            NetfilterProtoFamily::Inet => "inet",
            NetfilterProtoFamily::ARP => "arp",
            NetfilterProtoFamily::Bridge => "bridge",
            NetfilterProtoFamily::NetDev => "netdev",
            _ => "unknown",
        };
        write!(formatter, "{family} {} (chain {})", self.table, self.name)
    }
}

/// All tables.
pub(super) fn tables() -> Result<Vec<TableInfo>> {
    let request = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let messages = dump(NetfilterProtoFamily::Unspec, &request)
        .map_err(|source| Error::List { what: "nftables tables", source })?;
    Ok(messages.iter().filter_map(table_info).collect())
}

/// All base chains, in an order that does not depend on when they were made.
pub(crate) fn base_chains() -> Result<Vec<BaseChain>> {
    let tables = tables()?;
    let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let messages = dump(NetfilterProtoFamily::Unspec, &request)
        .map_err(|source| Error::List { what: "nftables chains", source })?;
    let mut chains: Vec<_> = messages.iter().filter_map(base_chain).collect();
    for chain in &mut chains {
        let table = tables.iter().find(|table| table.family == chain.family && table.name == chain.table);
        chain.owned = table.is_some_and(|table| table.owned);
    }
    chains.sort_by_cached_key(ToString::to_string);
    Ok(chains)
}

/// The handles of the rules of a chain that have this comment.
pub(crate) fn rules_with_comment(chain: &BaseChain, comment: &str) -> Result<Vec<u64>> {
    // The kernel lists only this chain's, which keeps the thousands that others may have out of it.
    let attributes =
        vec![RuleAttribute::Table(chain.table.clone()), RuleAttribute::Chain(chain.name.clone())];
    let request = NfTablesMessage::GetRule(RuleMessage { attributes });
    let messages =
        dump(chain.family, &request).map_err(|source| Error::List { what: "nftables rules", source })?;
    let rules = messages.iter().filter_map(rule);
    Ok(rules.filter(|(_, found)| found == comment).map(|(handle, _)| handle).collect())
}

fn table_info(message: &NetfilterMessage) -> Option<TableInfo> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &message.inner else {
        return None;
    };
    let family = message.header.family;
    let mut info = TableInfo { family, name: String::new(), comment: String::new(), owned: false };
    for attribute in &table.attributes {
        match attribute {
            TableAttribute::Name(name) => info.name.clone_from(name),
            TableAttribute::UserData(data) => info.comment = transaction::comment(data).unwrap_or_default(),
            TableAttribute::Owner(_) => info.owned = true,
            _ => {}
        }
    }
    Some(info)
}

fn base_chain(message: &NetfilterMessage) -> Option<BaseChain> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = &message.inner else {
        return None;
    };
    let (mut table, mut name, mut hook, mut drops) = (None, None, None, false);
    for attribute in &chain.attributes {
        match attribute {
            ChainAttribute::Table(found) => table = Some(found.clone()),
            ChainAttribute::Name(found) => name = Some(found.clone()),
            ChainAttribute::Hook(hooks) => hook = hooks.iter().find_map(hook_number),
            // NF_DROP; NF_ACCEPT is 1.
            ChainAttribute::Policy(policy) => drops = *policy == 0,
            _ => {}
        }
    }
    let family = message.header.family;
    Some(BaseChain { family, table: table?, name: name?, hook: hook?, drops, owned: false })
}

/// The handle and the comment of a rule; none without a comment.
fn rule(message: &NetfilterMessage) -> Option<(u64, String)> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = &message.inner else {
        return None;
    };
    let (mut handle, mut comment) = (None, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Handle(found) => handle = Some(*found),
            RuleAttribute::UserData(data) => comment = comment.or_else(|| transaction::comment(data)),
            RuleAttribute::Expressions(parts) => comment = comment.or_else(|| matched_comment(parts)),
            _ => {}
        }
    }
    handle.zip(comment)
}

/// The comment of a rule that iptables has saved and restored: a match of its own that always does.
fn matched_comment(parts: &[ListAttribute<ExpressionAttribute>]) -> Option<String> {
    let expressions = parts.iter().filter_map(|part| match part {
        ListAttribute::Element(attributes) => Some(attributes),
        _ => None,
    });
    expressions.flatten().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(Expressions::Other { expression_type, attributes })
            if expression_type == "match" =>
        {
            let text = |kind| {
                let found = attributes.iter().find(|attribute| attribute.kind() == kind)?;
                let mut bytes = vec![0; found.value_len()];
                found.emit_value(&mut bytes);
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                String::from_utf8(bytes[..end].to_vec()).ok()
            };
            text(MATCH_INFO).filter(|_| text(MATCH_NAME).as_deref() == Some("comment"))
        }
        _ => None,
    })
}

fn hook_number(hook: &Hook) -> Option<u32> {
    match hook {
        Hook::Number(HookNumber::Inet(number)) => Some((*number).into()),
        Hook::Number(HookNumber::Dev(number)) => Some((*number).into()),
        Hook::Number(HookNumber::Other(number)) => Some(*number),
        _ => None,
    }
}

fn dump(family: NetfilterProtoFamily, request: &NfTablesMessage) -> io::Result<Vec<NetfilterMessage>> {
    for _ in 0..ATTEMPTS {
        if let Some(messages) = try_dump(family, request)? {
            return Ok(messages);
        }
    }
    Err(io::Error::other("the rules changed during every attempt"))
}

/// None when the listing was interrupted by a change.
fn try_dump(
    family: NetfilterProtoFamily,
    request: &NfTablesMessage,
) -> io::Result<Option<Vec<NetfilterMessage>>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let netfilter = NetfilterHeader::new(family, 0, 0);
    let body = NetfilterMessage::new(netfilter, request.clone());
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(body));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);

    let socket = Socket::open().map_err(io::Error::other)?;
    socket.send(&bytes)?;
    let (mut found, mut whole) = (Vec::new(), true);
    loop {
        for message in socket.receive()? {
            whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => found.push(inner),
                NetlinkPayload::Done(_) => return Ok(whole.then_some(found)),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}
