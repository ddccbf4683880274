//! What is there: tables and base chains of the calling thread's namespace.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook, HookNumber, NfTablesMessage, TableAttribute, TableMessage,
    },
};

use super::{socket::Socket, transaction};
use crate::{Error, Result};

/// A change of the rules during a listing makes it incomplete; so many in a row are no accident.
const ATTEMPTS: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableInfo {
    pub(super) family: NetfilterProtoFamily,
    pub(super) name: String,
    /// Empty when it has none.
    pub(super) comment: String,
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
}

/// All tables.
pub(super) fn tables() -> Result<Vec<TableInfo>> {
    let request = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let messages = dump(&request).map_err(|source| Error::List { what: "nftables tables", source })?;
    Ok(messages.iter().filter_map(table_info).collect())
}

/// All base chains.
pub(crate) fn base_chains() -> Result<Vec<BaseChain>> {
    let request = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let messages = dump(&request).map_err(|source| Error::List { what: "nftables chains", source })?;
    Ok(messages.iter().filter_map(base_chain).collect())
}

fn table_info(message: &NetfilterMessage) -> Option<TableInfo> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) = &message.inner else {
        return None;
    };
    let mut info = TableInfo { family: message.header.family, name: String::new(), comment: String::new() };
    for attribute in &table.attributes {
        match attribute {
            TableAttribute::Name(name) => info.name.clone_from(name),
            TableAttribute::UserData(data) => info.comment = transaction::comment(data).unwrap_or_default(),
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
    Some(BaseChain { family: message.header.family, table: table?, name: name?, hook: hook?, drops })
}

fn hook_number(hook: &Hook) -> Option<u32> {
    match hook {
        Hook::Number(HookNumber::Inet(number)) => Some((*number).into()),
        Hook::Number(HookNumber::Dev(number)) => Some((*number).into()),
        Hook::Number(HookNumber::Other(number)) => Some(*number),
        _ => None,
    }
}

fn dump(request: &NfTablesMessage) -> io::Result<Vec<NetfilterMessage>> {
    for _ in 0..ATTEMPTS {
        if let Some(messages) = try_dump(request)? {
            return Ok(messages);
        }
    }
    Err(io::Error::other("the rules changed during every attempt"))
}

/// None when the listing was interrupted by a change.
fn try_dump(request: &NfTablesMessage) -> io::Result<Option<Vec<NetfilterMessage>>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let netfilter = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
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
