//! The expressions that rules are made of.
//!
//! A matching expression loads something into a register and compares it there. Addresses and ports are compared in
//! network byte order, what the kernel itself made up (address types, connection states) in the host's.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Meta, MetaKey, Operator, Payload, Register, Verdict,
    VerdictAttribute,
};

use super::Family;
use crate::Protocol;

/// Whether a comparison asks for likeness or the opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Is,
    IsNot,
}

// Numbers of include/uapi/linux/netfilter/nf_tables.h that the netlink crate has no names for.
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const INTERFACE_NAME_LENGTH: usize = 16;
const CT_DESTINATION_REGISTER: u16 = 1;
const CT_KEY: u16 = 2;
const CT_KEY_STATE: u32 = 0;
const CT_KEY_STATUS: u32 = 2;
const FIB_DESTINATION_REGISTER: u16 = 1;
const FIB_RESULT: u16 = 2;
const FIB_FLAGS: u16 = 3;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const FIB_FLAG_DESTINATION_ADDRESS: u32 = 2;
const NAT_TYPE: u16 = 1;
const NAT_FAMILY: u16 = 2;
const NAT_REGISTER_ADDRESS: u16 = 3;
const NAT_REGISTER_PORT: u16 = 5;
const NAT_TYPE_DESTINATION: u32 = 1;
const REJECT_TYPE: u16 = 1;
const REJECT_CODE: u16 = 2;
const REJECT_TYPE_ICMP_UNREACHABLE: u32 = 0;
const TARGET_NAME: u16 = 1;
const TARGET_REVISION: u16 = 2;
const TARGET_INFORMATION: u16 = 3;
/// `NFQ_FLAG_BYPASS` of xt_NFQUEUE.h.
const TARGET_BYPASS: u16 = 1;
/// `NF_DROP` and `NF_ACCEPT` of linux/netfilter.h.
const VERDICT_DROP: u32 = 0;
const VERDICT_ACCEPT: u32 = 1;
/// `IPS_DST_NAT` of nf_conntrack_common.h.
const CT_STATUS_DESTINATION_NAT: u32 = 1 << 5;
/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and of `IP_CT_RELATED`.
const CT_STATE_ESTABLISHED: u32 = 1 << 1;
const CT_STATE_RELATED: u32 = 1 << 2;
/// `RTN_LOCAL` of rtnetlink.h.
const ADDRESS_TYPE_LOCAL: u32 = 2;

/// The source address is in (or not in) `net`.
pub(crate) fn source_in(net: IpNet, wanted: Match) -> Vec<Expressions> {
    address_in(if net.addr().is_ipv4() { 12 } else { 8 }, net, wanted)
}

/// The destination address is in (or not in) `net`.
pub(crate) fn destination_in(net: IpNet, wanted: Match) -> Vec<Expressions> {
    address_in(if net.addr().is_ipv4() { 16 } else { 24 }, net, wanted)
}

/// The destination address is (or is not) this one.
pub(crate) fn destination_is(address: IpAddr, wanted: Match) -> Vec<Expressions> {
    destination_in(IpNet::from(address), wanted)
}

/// The destination address is one of the host's own.
pub(crate) fn destination_local() -> Vec<Expressions> {
    let fib = other(
        "fib",
        [
            (FIB_DESTINATION_REGISTER, number(Register::Reg1.into())),
            (FIB_RESULT, number(FIB_RESULT_ADDRESS_TYPE)),
            (FIB_FLAGS, number(FIB_FLAG_DESTINATION_ADDRESS)),
        ],
    );
    vec![fib, compare(Match::Is, ADDRESS_TYPE_LOCAL.to_ne_bytes().to_vec())]
}

/// The packet came in (or did not come in) through this link.
pub(crate) fn from_interface(name: &str, wanted: Match) -> Vec<Expressions> {
    vec![meta(MetaKey::Iifname), compare(wanted, interface_name(name))]
}

/// The packet came in through a link whose name begins like this.
pub(crate) fn from_interfaces(prefix: &str) -> Vec<Expressions> {
    // Without padding: as many bytes are compared as are given.
    vec![meta(MetaKey::Iifname), compare(Match::Is, prefix.as_bytes().to_vec())]
}

/// The packet goes (or does not go) out through this link.
pub(crate) fn to_interface(name: &str, wanted: Match) -> Vec<Expressions> {
    vec![meta(MetaKey::Oifname), compare(wanted, interface_name(name))]
}

/// The packet is of this transport protocol.
pub(crate) fn protocol(protocol: Protocol) -> Vec<Expressions> {
    vec![meta(MetaKey::L4Proto), compare(Match::Is, vec![protocol.number()])]
}

/// The packet is for this port. Only after [`protocol`]: others have no ports there.
pub(crate) fn destination_port(port: u16) -> Vec<Expressions> {
    vec![payload(PAYLOAD_TRANSPORT_HEADER, 2, 2), compare(Match::Is, port.to_be_bytes().to_vec())]
}

/// The destination of the packet's connection has been translated.
pub(crate) fn translated() -> Vec<Expressions> {
    connection_has(CT_KEY_STATUS, CT_STATUS_DESTINATION_NAT)
}

/// The packet belongs to a connection that has been answered, or is about one (an error message).
pub(crate) fn established() -> Vec<Expressions> {
    connection_has(CT_KEY_STATE, CT_STATE_ESTABLISHED | CT_STATE_RELATED)
}

/// Gives the packet the address of the link it leaves through as its source.
pub(crate) fn masquerade() -> Vec<Expressions> {
    vec![other("masq", [])]
}

/// Sends the packet to this address and port instead.
pub(crate) fn destination_nat(address: IpAddr, port: u16) -> Vec<Expressions> {
    let family = if address.is_ipv4() { Family::Ip } else { Family::Ip6 };
    let nat = other(
        "nat",
        [
            (NAT_TYPE, number(NAT_TYPE_DESTINATION)),
            (NAT_FAMILY, number(u8::from(family.protocol()).into())),
            (NAT_REGISTER_ADDRESS, number(Register::Reg1.into())),
            (NAT_REGISTER_PORT, number(Register::Reg2.into())),
        ],
    );
    let (address, port) = (octets(address), port.to_be_bytes().to_vec());
    vec![load(Register::Reg1, address), load(Register::Reg2, port), nat]
}

/// Throws the packet away.
pub(crate) fn drop() -> Vec<Expressions> {
    verdict(VERDICT_DROP)
}

/// Is content with the packet: no further rule of this chain sees it, but chains of the same hook after it do.
pub(crate) fn accept() -> Vec<Expressions> {
    verdict(VERDICT_ACCEPT)
}

/// Counts the packet.
pub(crate) fn counter() -> Vec<Expressions> {
    vec![other("counter", [])]
}

/// Answers the packet with "port unreachable", which programs see as a refused connection.
pub(crate) fn reject(family: Family) -> Vec<Expressions> {
    // ICMP_PORT_UNREACH and ICMPV6_PORT_UNREACH.
    let code = match family {
        Family::Ip => 3,
        Family::Ip6 => 4,
    };
    vec![other("reject", [(REJECT_TYPE, number(REJECT_TYPE_ICMP_UNREACHABLE)), (REJECT_CODE, vec![code])])]
}

/// Gives the packet to whoever listens at this queue of the namespace, and is content with it when nobody does.
pub(crate) fn queue(number: u16) -> Vec<Expressions> {
    // The match of iptables, `struct xt_NFQ_info_v3` of linux/netfilter/xt_NFQUEUE.h, padded to eight bytes: kernels that
    // lack nf_tables' own expression have this one for iptables.
    let parts = [number, 1, TARGET_BYPASS, 0];
    let information = parts.iter().flat_map(|part| part.to_ne_bytes()).collect();
    let name = b"NFQUEUE\0".to_vec();
    vec![other(
        "target",
        [(TARGET_NAME, name), (TARGET_REVISION, self::number(3)), (TARGET_INFORMATION, information)],
    )]
}

fn verdict(code: u32) -> Vec<Expressions> {
    let verdict = DataAttribute::Verdict(vec![VerdictAttribute::Code(Verdict::Other(code))]);
    vec![Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(verdict),
    ])]
}

/// What connection tracking says under `key` has one of these bits.
fn connection_has(key: u32, bits: u32) -> Vec<Expressions> {
    let load = other("ct", [(CT_DESTINATION_REGISTER, number(Register::Reg1.into())), (CT_KEY, number(key))]);
    vec![load, masked(bits.to_ne_bytes().to_vec()), compare(Match::IsNot, vec![0; 4])]
}

fn address_in(offset: u32, net: IpNet, wanted: Match) -> Vec<Expressions> {
    let length = if net.addr().is_ipv4() { 4 } else { 16 };
    vec![
        payload(PAYLOAD_NETWORK_HEADER, offset, length),
        masked(octets(net.netmask())),
        compare(wanted, octets(net.network())),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The kernel compares names with their padding, so that `eth1` does not match `eth10`.
fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_LENGTH, 0);
    bytes
}

fn payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)])
}

fn compare(wanted: Match, value: Vec<u8>) -> Expressions {
    let operator = match wanted {
        Match::Is => Operator::Equal,
        Match::IsNot => Operator::NotEqual,
    };
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

/// Clears the bits of the register that are not in `mask`.
fn masked(mask: Vec<u8>) -> Expressions {
    let zeros = vec![0; mask.len()];
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        // At most the 16 bytes of an IPv6 address.
        Bitwise::Length(mask.len() as u32),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(zeros)),
    ])
}

fn load(register: Register, value: Vec<u8>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(register),
        Immediate::Data(DataAttribute::Value(value)),
    ])
}

fn other<const N: usize>(name: &str, attributes: [(u16, Vec<u8>); N]) -> Expressions {
    let attributes = attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value)).collect();
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

/// Numbers in attributes are big-endian, whatever the host.
fn number(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;

    use super::*;

    /// The bytes of an expression's data, as they stand in a rule.
    fn bytes(expression: &Expressions) -> Vec<u8> {
        let mut buffer = vec![0; expression.buffer_len()];
        expression.emit(&mut buffer);
        buffer
    }

    /// An attribute: length, type, value (all of them multiples of four bytes here).
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u16 + 4).to_ne_bytes();
        [&length[..], &kind.to_ne_bytes(), value].concat()
    }

    const NESTED: u16 = 1 << 15;

    #[test]
    fn an_interface_is_matched_with_its_padding() {
        let [load, compare] = &to_interface("br0", Match::IsNot)[..] else { panic!("two expressions") };
        // NFTA_META_DREG = register 1, NFTA_META_KEY = NFT_META_OIFNAME (7).
        assert_eq!(bytes(load), [attribute(1, &[0, 0, 0, 1]), attribute(2, &[0, 0, 0, 7])].concat());
        // NFTA_CMP_SREG, NFTA_CMP_OP = NFT_CMP_NEQ (1), NFTA_CMP_DATA > NFTA_DATA_VALUE.
        let name = attribute(1, b"br0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let expected =
            [attribute(1, &[0, 0, 0, 1]), attribute(2, &[0, 0, 0, 1]), attribute(3 | NESTED, &name)].concat();
        assert_eq!(bytes(compare), expected);
    }

    #[test]
    fn a_prefix_is_matched_without_padding() {
        let [_, compare] = &from_interfaces("kiln")[..] else { panic!("two expressions") };
        assert!(bytes(compare).ends_with(&attribute(1, b"kiln")));
    }

    #[test]
    fn a_subnet_is_masked_and_compared() {
        let net = "172.30.4.0/24".parse().unwrap();
        let [load, mask, compare] = &source_in(net, Match::Is)[..] else { panic!("three expressions") };
        // Network header, offset 12, 4 bytes: the source address of an IPv4 packet.
        let expected =
            [(1, 1), (2, 1), (3, 12), (4, 4)].map(|(kind, value)| attribute(kind, &[0, 0, 0, value]));
        assert_eq!(bytes(load), expected.concat());
        assert!(bytes(mask).windows(4).any(|window| window == [255, 255, 255, 0]));
        assert!(bytes(compare).ends_with(&[172, 30, 4, 0]));
    }

    #[test]
    fn ipv6_addresses_are_found_at_their_place() {
        let net = "fd00::/64".parse().unwrap();
        let offset = |expressions: Vec<Expressions>| bytes(&expressions[0])[16 + 7];
        assert_eq!(offset(source_in(net, Match::Is)), 8);
        assert_eq!(offset(destination_in(net, Match::Is)), 24);
    }

    #[test]
    fn destination_nat_loads_address_and_port() {
        let [address, port, nat] = &destination_nat("172.30.4.2".parse().unwrap(), 6443)[..] else {
            panic!("three expressions")
        };
        assert!(bytes(address).ends_with(&[172, 30, 4, 2]));
        // 6443 = 0x192b, padded to four bytes.
        assert!(bytes(port).ends_with(&[0x19, 0x2b, 0, 0]));
        // NFT_NAT_DNAT (1), NFPROTO_IPV4 (2), registers 1 and 2.
        let expected =
            [(1, 1), (2, 2), (3, 1), (5, 2)].map(|(kind, value)| attribute(kind, &[0, 0, 0, value]));
        assert_eq!(bytes(nat), expected.concat());
    }

    #[test]
    fn the_kernels_own_numbers_are_in_host_order() {
        let local = destination_local();
        assert!(bytes(&local[1]).ends_with(&2u32.to_ne_bytes()));
        let [_, mask, compare] = &translated()[..] else { panic!("three expressions") };
        assert!(bytes(mask).windows(4).any(|window| window == 32u32.to_ne_bytes()));
        assert!(bytes(compare).ends_with(&[0, 0, 0, 0]));
        assert!(bytes(&established()[1]).windows(4).any(|window| window == 6u32.to_ne_bytes()));
    }
}
