//! A netfilter netlink socket.

use std::io;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use crate::{Error, Result};

/// How long to wait for an answer, in seconds. The kernel answers in well under one; an answer that went missing
/// must not hang the caller.
const TIMEOUT: i64 = 10;

/// Bytes in the header of a netlink message.
const HEADER: usize = 16;

#[derive(Debug)]
pub(super) struct Socket(netlink_sys::Socket);

impl Socket {
    /// A socket in the namespace of the calling thread.
    pub(super) fn open() -> Result<Self> {
        Self::try_open().map_err(|source| Error::OpenSocket { protocol: "netfilter", source })
    }

    fn try_open() -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_NETFILTER)?;
        let kernel = SocketAddr::new(0, 0);
        socket.bind(&kernel)?;
        socket.connect(&kernel)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT, 0))?;
        Ok(Self(socket))
    }

    /// Sends messages in one piece, as a transaction has to be.
    pub(super) fn send(&self, messages: &[u8]) -> io::Result<()> {
        // The kernel refuses what does not fit into the buffer at once, and adds its own overhead to the size.
        let needed = messages.len() * 2;
        if needed > nix::sys::socket::getsockopt(&self.0, sockopt::SndBuf)? {
            setsockopt(&self.0, sockopt::SndBufForce, &needed)?;
        }
        self.0.send(messages, 0)?;
        Ok(())
    }

    /// The messages of the next datagram. Those that the netlink crate cannot read are left out: other programs'
    /// rules may hold anything.
    pub(super) fn receive(&self) -> io::Result<Vec<NetlinkMessage<NetfilterMessage>>> {
        let datagram = loop {
            match self.0.recv_from_full() {
                // With a timeout set, a signal interrupts even where its handler asks for a restart.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?.0,
            }
        };
        Ok(split(&datagram))
    }
}

fn split(mut datagram: &[u8]) -> Vec<NetlinkMessage<NetfilterMessage>> {
    let mut messages = Vec::new();
    while let Some((length, _)) = datagram.split_first_chunk::<4>() {
        let length = u32::from_ne_bytes(*length) as usize;
        if !(HEADER..=datagram.len()).contains(&length) {
            break;
        }
        messages.extend(NetlinkMessage::deserialize(&datagram[..length]));
        // Messages begin at multiples of four bytes; the last need not be padded.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An acknowledgement (`NLMSG_ERROR` with code 0) of the message with this number.
    fn ack(sequence: u32) -> Vec<u8> {
        let header =
            [&36u32.to_ne_bytes()[..], &2u16.to_ne_bytes(), &[0; 2], &sequence.to_ne_bytes(), &[0; 4]];
        [header.concat(), vec![0; 20]].concat()
    }

    #[test]
    fn a_datagram_is_split_into_its_messages() {
        let messages = split(&[ack(3), ack(4)].concat());
        assert_eq!(messages.iter().map(|message| message.header.sequence_number).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn a_broken_datagram_ends_early() {
        let mut datagram = [ack(3), ack(4)].concat();
        datagram[36..40].copy_from_slice(&4000u32.to_ne_bytes());
        assert_eq!(split(&datagram).len(), 1);
        datagram[36..40].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(split(&datagram).len(), 1);
        assert!(split(&[1, 2]).is_empty());
    }
}
