//! Packets that the kernel hands over and waits with until it is told what to do with them: `NFQUEUE`.
//!
//! The messages are those of include/uapi/linux/netfilter/nfnetlink_queue.h, few and small enough to be written out here.

use std::io;

use futures_util::FutureExt;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};

const SUBSYSTEM: u16 = 3;
const MESSAGE_PACKET: u16 = 0;
const MESSAGE_CONFIG: u16 = 2;
const MESSAGE_VERDICT_BATCH: u16 = 3;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const COMMAND_BIND: u8 = 1;
const COPY_NOTHING_BUT_HEADERS: u8 = 1;
const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
/// `NF_ACCEPT` of linux/netfilter.h.
const VERDICT_ACCEPT: u32 = 1;

/// `NLM_F_REQUEST` and `NLM_F_ACK` of linux/netlink.h.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;

/// Bytes in the header of a netlink message, and in that and netfilter's together.
const HEADER: usize = 16;
const HEADERS: usize = HEADER + 4;

/// A queue of the namespace that it was opened in. What is in it when it is dropped is dropped as well.
pub(crate) struct Queue {
    socket: TokioSocket,
    number: u16,
    /// The last packet that has come: they are numbered upwards.
    last: Option<u32>,
}

impl Queue {
    /// Asks for the packets of queue `number`.
    ///
    /// # Errors
    /// What the kernel says: that it has no such queues, or that another process has this one.
    pub(crate) async fn open(number: u16) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let kernel = SocketAddr::new(0, 0);
        socket.socket_mut().bind(&kernel)?;
        socket.socket_ref().connect(&kernel)?;
        let bind = attribute(CONFIG_COMMAND, &[COMMAND_BIND, 0, 0, 0]);
        let parameters = attribute(CONFIG_PARAMETERS, &[0, 0, 0, 0, COPY_NOTHING_BUT_HEADERS]);
        for attribute in [bind, parameters] {
            socket.send(&message(MESSAGE_CONFIG, REQUEST | ACKNOWLEDGE, number, &attribute)).await?;
            acknowledged(&socket.recv_from_full().await?.0)?;
        }
        Ok(Self { socket, number, last: None })
    }

    /// Whether there are packets that wait.
    pub(crate) fn holds_any(&self) -> bool {
        self.last.is_some()
    }

    /// Waits until another packet has come.
    pub(crate) async fn receive(&mut self) -> io::Result<()> {
        let (datagram, _) = self.socket.recv_from_full().await?;
        self.last = packets(&datagram).last().or(self.last);
        Ok(())
    }

    /// Lets all packets go on that have come.
    pub(crate) async fn release(&mut self) -> io::Result<()> {
        while let Some(received) = self.receive().now_or_never() {
            received?;
        }
        let Some(last) = self.last.take() else { return Ok(()) };
        let verdict = [VERDICT_ACCEPT.to_be_bytes(), last.to_be_bytes()].concat();
        let verdict = attribute(VERDICT_HEADER, &verdict);
        self.socket.send(&message(MESSAGE_VERDICT_BATCH, REQUEST, self.number, &verdict)).await?;
        Ok(())
    }
}

fn message(kind: u16, flags: u16, queue: u16, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADERS + attributes.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // No sequence number and no port.
    bytes.extend([0; 8]);
    // Any family, version 0.
    bytes.extend([0; 2]);
    bytes.extend(queue.to_be_bytes());
    bytes.extend(attributes);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What the kernel says about a request.
fn acknowledged(datagram: &[u8]) -> io::Result<()> {
    let code = datagram.get(HEADER..).and_then(|rest| rest.first_chunk::<4>());
    match (kind(datagram), code.map(|code| i32::from_ne_bytes(*code))) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "no answer of the kernel's")),
    }
}

fn kind(message: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*message.get(4..)?.first_chunk()?))
}

/// The numbers of the packets that a datagram tells of.
fn packets(mut datagram: &[u8]) -> impl Iterator<Item = u32> {
    let mut numbers = Vec::new();
    while let Some((message, rest)) =
        split(datagram, |length| length.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes) as usize))
    {
        if kind(message) == Some(SUBSYSTEM << 8 | MESSAGE_PACKET) {
            numbers.extend(number(message.get(HEADERS..).unwrap_or_default()));
        }
        datagram = rest;
    }
    numbers.into_iter()
}

/// The number of a packet by its attributes.
fn number(mut attributes: &[u8]) -> Option<u32> {
    while let Some((attribute, rest)) =
        split(attributes, |length| length.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes).into()))
    {
        if attribute.get(2..4) == Some(&PACKET_HEADER.to_ne_bytes()) {
            return attribute.get(4..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        }
        attributes = rest;
    }
    None
}

/// The first of several parts, each of which begins with its length and is padded to four bytes, and the others.
fn split(bytes: &[u8], length: impl FnOnce(&[u8]) -> Option<usize>) -> Option<(&[u8], &[u8])> {
    let length = length(bytes)?;
    let part = bytes.get(..length).filter(|part| part.len() >= 4)?;
    Some((part, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u32) -> Vec<u8> {
        let header = [&number.to_be_bytes()[..], &[8, 0, 0]].concat();
        // NFQA_MARK (3) comes first.
        let attributes = [attribute(3, &[0; 4]), attribute(PACKET_HEADER, &header)].concat();
        message(MESSAGE_PACKET, 0, 7, &attributes)
    }

    #[test]
    fn the_numbers_of_all_packets_are_read() {
        let datagram = [packet(1), message(MESSAGE_CONFIG, 0, 7, &[]), packet(0x0102_0304)].concat();
        assert_eq!(packets(&datagram).collect::<Vec<_>>(), [1, 0x0102_0304]);
    }

    #[test]
    fn what_is_cut_off_is_left_out() {
        let datagram = [packet(1), packet(2)].concat();
        for end in 0..datagram.len() {
            let whole = usize::from(end >= datagram.len() / 2);
            assert_eq!(packets(&datagram[..end]).count(), whole, "{end}");
        }
        let mut empty = packet(1);
        empty[..4].fill(0);
        assert_eq!(packets(&empty).count(), 0);
    }

    #[test]
    fn a_refusal_is_the_kernel_s_own() {
        let answer = |code: i32| {
            [&36u32.to_ne_bytes()[..], &ERROR.to_ne_bytes(), &[0; 10], &code.to_ne_bytes()].concat()
        };
        assert!(acknowledged(&answer(0)).is_ok());
        assert_eq!(acknowledged(&answer(-1)).unwrap_err().raw_os_error(), Some(1));
        assert_eq!(acknowledged(&packet(1)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn messages_are_as_the_kernel_reads_them() {
        let bytes = message(MESSAGE_VERDICT_BATCH, REQUEST, 0x0102, &attribute(VERDICT_HEADER, &[9; 8]));
        assert_eq!(bytes[..4], 32u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x0303u16.to_ne_bytes());
        assert_eq!(bytes[16..20], [0, 0, 1, 2]);
        assert_eq!(bytes[20..24], [12u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat());
        assert_eq!(attribute(CONFIG_PARAMETERS, &[0; 5]).len(), 12);
    }
}
