//! Changes to the rules that take effect together, or not at all.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook, HookNumber, NfTablesMessage, RuleAttribute, RuleMessage,
        TableAttribute, TableMessage,
    },
    none::ControlMessage,
};

use super::{BaseChain, Chain, ChainKind, Family, Rule, Table, socket::Socket};
use crate::{Error, Result};

/// The number of nf_tables among netfilter's subsystems: whom a batch is for.
const SUBSYSTEM: u16 = 10;

/// The tag of a comment in the user data of a table or a rule, as the `nft` program writes and shows it. That of
/// iptables shows a rule's as if it were a match of its own.
const COMMENT_TAG: u8 = 0;

#[derive(Debug, Default)]
pub(crate) struct Transaction {
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    /// As it follows "failed to change the nftables rules:".
    purpose: String,
    family: NetfilterProtoFamily,
    flags: u16,
    message: NfTablesMessage,
}

impl Transaction {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Puts a table in place of the one of its name, if there is one.
    pub(super) fn replace_table(&mut self, table: &Table) {
        // Deleting what is not there is an error, making what is there is none.
        self.create_table(table);
        self.delete_table(table.family, &table.name);
        self.create_table(table);
        for chain in &table.chains {
            self.create_chain(table, chain);
            for rule in &chain.rules {
                self.append_rule(table, chain, rule);
            }
        }
    }

    /// Deletes a table with all that is in it.
    pub(super) fn delete_table(&mut self, family: Family, name: &str) {
        let attributes = vec![TableAttribute::Name(name.to_owned())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        self.push(format!("delete table {family} {name}"), family.protocol(), 0, message);
    }

    /// Puts a rule before all others of a chain that is there.
    pub(crate) fn insert_rule(&mut self, chain: &BaseChain, rule: &Rule, comment: &str) {
        let mut attributes = rule_attributes(&chain.table, &chain.name, rule);
        attributes.push(RuleAttribute::UserData(user_data(comment)));
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(format!("{} in {chain}", rule.purpose), chain.family, NLM_F_CREATE, message);
    }

    /// Deletes the rule with this handle.
    pub(crate) fn delete_rule(&mut self, chain: &BaseChain, handle: u64) {
        let attributes = vec![
            RuleAttribute::Table(chain.table.clone()),
            RuleAttribute::Chain(chain.name.clone()),
            RuleAttribute::Handle(handle),
        ];
        let message = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        self.push(format!("delete rule {handle} of {chain}"), chain.family, 0, message);
    }

    /// Carries it out in the namespace of the calling thread.
    pub(crate) fn commit(&self) -> Result<()> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let socket = Socket::open()?;
        let failed = |step: &str, source| Error::Transaction { step: step.to_owned(), source };
        socket.send(&self.bytes()).map_err(|source| failed("send the transaction", source))?;
        loop {
            let answers =
                socket.receive().map_err(|source| failed("wait for the kernel's answer", source))?;
            for answer in answers {
                let NetlinkPayload::Error(error) = answer.payload else {
                    continue;
                };
                if error.code.is_none() {
                    return Ok(());
                }
                return Err(failed(self.purpose(answer.header.sequence_number), error.to_io()));
            }
        }
    }

    fn create_table(&mut self, table: &Table) {
        let attributes = vec![
            TableAttribute::Name(table.name.clone()),
            TableAttribute::UserData(user_data(&table.comment)),
        ];
        let message = NfTablesMessage::NewTable(TableMessage { attributes });
        self.push(
            format!("create table {} {}", table.family, table.name),
            table.family.protocol(),
            NLM_F_CREATE,
            message,
        );
    }

    fn create_chain(&mut self, table: &Table, chain: &Chain) {
        let kind = match chain.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let attributes = vec![
            ChainAttribute::Table(table.name.clone()),
            ChainAttribute::Name(chain.name.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(chain.hook)),
                // Priorities are signed; the field on the wire is not.
                Hook::Priority(chain.priority.cast_unsigned()),
            ]),
            ChainAttribute::Type(kind.to_owned()),
        ];
        let message = NfTablesMessage::NewChain(ChainMessage { attributes });
        let purpose = format!("create {kind} chain {} in table {} {}", chain.name, table.family, table.name);
        self.push(purpose, table.family.protocol(), NLM_F_CREATE, message);
    }

    fn append_rule(&mut self, table: &Table, chain: &Chain, rule: &Rule) {
        let attributes = rule_attributes(&table.name, chain.name, rule);
        let message = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(rule.purpose.clone(), table.family.protocol(), NLM_F_CREATE | NLM_F_APPEND, message);
    }

    fn push(&mut self, purpose: String, family: NetfilterProtoFamily, flags: u16, message: NfTablesMessage) {
        self.steps.push(Step { purpose, family, flags, message });
    }

    /// The batch. Step `i` has the sequence number `i + 1`, the lines around them those before and after.
    ///
    /// Only the last step asks for an acknowledgement. The kernel reports every error unasked, errors first, and
    /// success is one answer that way: with one for each rule of a long table, the socket's buffer would overflow.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let control = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, SUBSYSTEM);
        append(&mut bytes, 0, 0, NetfilterMessage::new(control.clone(), ControlMessage::BatchBegin));
        let mut sequence = 0;
        for step in &self.steps {
            sequence += 1;
            let ack = if sequence as usize == self.steps.len() { NLM_F_ACK } else { 0 };
            let header = NetfilterHeader::new(step.family, 0, 0);
            let inner = NetfilterMessageInner::from(step.message.clone());
            append(&mut bytes, sequence, step.flags | ack, NetfilterMessage::new(header, inner));
        }
        append(&mut bytes, sequence + 1, 0, NetfilterMessage::new(control, ControlMessage::BatchEnd));
        bytes
    }

    fn purpose(&self, sequence: u32) -> &str {
        let step = (sequence as usize).checked_sub(1).and_then(|index| self.steps.get(index));
        step.map_or("commit the transaction", |step| &step.purpose)
    }
}

fn rule_attributes(table: &str, chain: &str, rule: &Rule) -> Vec<RuleAttribute> {
    vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(chain.to_owned()),
        RuleAttribute::Expressions(rule.expressions.iter().cloned().map(Into::into).collect()),
    ]
}

fn append(bytes: &mut Vec<u8>, sequence: u32, flags: u16, message: NetfilterMessage) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let start = bytes.len();
    bytes.resize(start + packet.buffer_len().next_multiple_of(4), 0);
    packet.serialize(&mut bytes[start..]);
}

/// A comment as the user data of a table or a rule: tag, length, text with a final NUL.
fn user_data(comment: &str) -> Vec<u8> {
    // The length is one byte; clusters' names are far shorter.
    let mut text = comment.as_bytes()[..comment.len().min(254)].to_vec();
    text.push(0);
    [&[COMMENT_TAG, text.len() as u8], text.as_slice()].concat()
}

/// The comment in the user data of a table or a rule.
pub(super) fn comment(user_data: &[u8]) -> Option<String> {
    let mut rest = user_data;
    while let [tag, length, tail @ ..] = rest {
        let (value, next) = tail.split_at_checked(usize::from(*length))?;
        if *tag == COMMENT_TAG {
            return String::from_utf8(value.strip_suffix(&[0]).unwrap_or(value).to_vec()).ok();
        }
        rest = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use netlink_packet_netfilter::nftables::InetHookNumber;

    use super::*;

    fn table() -> Table {
        Table {
            family: Family::Ip,
            name: "kiln-kind".to_owned(),
            comment: "kiln:kind".to_owned(),
            chains: vec![Chain {
                name: "postrouting",
                kind: ChainKind::Nat,
                hook: InetHookNumber::PostRouting,
                priority: 100,
                rules: vec![Rule::new("masquerade", [super::super::masquerade()])],
            }],
        }
    }

    /// Type, flags and sequence number of each message of a batch.
    fn outline(bytes: &[u8]) -> Vec<(u16, u16, u32)> {
        let (mut rest, mut lines) = (bytes, Vec::new());
        while rest.len() >= 16 {
            let number = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
            let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            lines.push((number(4), number(6), word(8)));
            rest = &rest[(word(0) as usize).next_multiple_of(4)..];
        }
        lines
    }

    #[test]
    fn a_table_is_replaced_in_one_batch() {
        let mut transaction = Transaction::new();
        transaction.replace_table(&table());
        let nft = |message: u16| (SUBSYSTEM << 8) | message;
        let (request, create) = (NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_CREATE);
        let expected = [
            (16, request, 0),
            (nft(0), create, 1),
            (nft(2), request, 2),
            (nft(0), create, 3),
            (nft(3), create, 4),
            (nft(6), create | NLM_F_APPEND | NLM_F_ACK, 5),
            (17, request, 6),
        ];
        assert_eq!(outline(&transaction.bytes()), expected);
    }

    #[test]
    fn rules_of_other_programs_chains_are_deleted_and_put_first() {
        let chain = BaseChain {
            family: NetfilterProtoFamily::Inet,
            table: "filter".to_owned(),
            name: "forward".to_owned(),
            hook: 2,
            drops: true,
            owned: false,
        };
        let mut transaction = Transaction::new();
        transaction.delete_rule(&chain, 7);
        transaction.insert_rule(&chain, &Rule::new("accept br0", [super::super::accept()]), "kiln:kind");
        // Without NLM_F_APPEND a rule goes to the head of its chain.
        let nft = |message: u16| (SUBSYSTEM << 8) | message;
        let insert = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK;
        let lines = outline(&transaction.bytes());
        assert_eq!(lines[1..3], [(nft(8), NLM_F_REQUEST, 1), (nft(6), insert, 2)]);
        assert_eq!(transaction.purpose(1), "delete rule 7 of inet filter (chain forward)");
        assert_eq!(transaction.purpose(2), "accept br0 in inet filter (chain forward)");
    }

    #[test]
    fn a_refused_step_is_named() {
        let mut transaction = Transaction::new();
        transaction.replace_table(&table());
        assert_eq!(transaction.purpose(2), "delete table ip kiln-kind");
        assert_eq!(transaction.purpose(5), "masquerade");
        assert_eq!(transaction.purpose(0), "commit the transaction");
    }

    #[test]
    fn comments_survive_the_user_data() {
        assert_eq!(comment(&user_data("kiln:kind")).as_deref(), Some("kiln:kind"));
        assert_eq!(user_data("ab"), [0, 3, b'a', b'b', 0]);
        // Something else first, then the comment.
        assert_eq!(comment(&[7, 2, 1, 1, 0, 2, b'x', 0]).as_deref(), Some("x"));
        assert_eq!(comment(&[0, 9, b'x']), None);
        assert_eq!(comment(&[]), None);
    }
}
