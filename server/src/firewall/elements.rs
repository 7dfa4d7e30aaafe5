//! Grants over netlink: one batch for each packet's changes, and no process started.
//!
//! Adding a present element refreshes nothing on many kernels, and deleting an absent
//! one fails the batch; so a grant is `add`, `delete`, `add` in one transaction, which
//! works everywhere and never leaves a moment without the element.

use super::ruleset::{TABLE, set_name};
use crate::gate::{Change, Place};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList,
    SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// `NFNL_SUBSYS_NFTABLES`: whom a batch is for.
const NFTABLES: u16 = 10;
/// Changes in one batch: three messages each, well below what one send may hold.
const AT_ONCE: usize = 64;
/// An element may end between the messages of its batch; then the batch is sent again.
const TRIES: usize = 3;

/// An open netlink socket.
#[derive(Debug)]
pub struct Elements {
    socket: Socket,
    sequence: u32,
}

impl Elements {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers before a send returns: there is never anything to wait for.
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Makes the changes, up to 64 at a time; each such part entirely or not at all.
    /// `NotFound` where the table or a set is not there.
    pub fn apply(&mut self, changes: &[Change]) -> io::Result<()> {
        for part in changes.chunks(AT_ONCE) {
            let mut tries = 0;
            loop {
                tries += 1;
                match self.batch(part) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
                    other => break other?,
                }
            }
        }
        Ok(())
    }

    fn batch(&mut self, changes: &[Change]) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let messages: Vec<NfTablesMessage> = changes.iter().flat_map(messages).collect();
        let mut bytes = Vec::with_capacity(256 * messages.len() + 64);
        let unspec = NetfilterProtoFamily::Unspec;
        let begin = NetfilterHeader::new(unspec, 0, NFTABLES);
        self.push(
            &mut bytes,
            begin.clone(),
            ControlMessage::BatchBegin.into(),
            0,
        );
        let count = messages.len();
        for (at, message) in messages.into_iter().enumerate() {
            let create = match message {
                NfTablesMessage::NewSetElement(_) => NLM_F_CREATE,
                _ => 0,
            };
            let ack = if at + 1 == count { NLM_F_ACK } else { 0 };
            let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
            self.push(&mut bytes, header, message.into(), create | ack);
        }
        let last = self.sequence;
        self.push(&mut bytes, begin, ControlMessage::BatchEnd.into(), 0);
        let sent = self.socket.send(&bytes, 0)?;
        if sent != bytes.len() {
            return Err(io::Error::other("the kernel took a part of a batch"));
        }
        self.outcome(first, last)
    }

    fn push(
        &mut self,
        bytes: &mut Vec<u8>,
        header: NetfilterHeader,
        inner: NetfilterMessageInner,
        flags: u16,
    ) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut outer = NetlinkHeader::default();
        outer.flags = NLM_F_REQUEST | flags;
        outer.sequence_number = self.sequence;
        let inner = NetfilterMessage::new(header, inner);
        let mut message = NetlinkMessage::new(outer, NetlinkPayload::from(inner));
        message.finalize();
        let start = bytes.len();
        // Each message begins at a multiple of four.
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// Reads the answers to the batch `first..=last`. Any error means that nothing of it
    /// was applied; the acknowledgement of `last` alone means that all of it was.
    fn outcome(&mut self, first: u32, last: u32) -> io::Result<()> {
        let mut acknowledged = false;
        let mut failed = None;
        loop {
            let mut buffer = Vec::with_capacity(32 * 1024);
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            for (sequence, code) in answers(&buffer) {
                // An answer to an earlier batch that was given up says nothing of this.
                if sequence.wrapping_sub(first) > last.wrapping_sub(first).wrapping_add(1) {
                    continue;
                }
                if code != 0 {
                    failed.get_or_insert_with(|| io::Error::from_raw_os_error(-code));
                } else if sequence == last {
                    acknowledged = true;
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(io::Error::other(
                "the kernel did not acknowledge the change",
            )),
        }
    }
}

/// The (sequence number, code) of each `NLMSG_ERROR` in a datagram; 0 is success.
fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    const ERROR: u16 = 2;
    let mut answers = Vec::new();
    while let Some((header, _)) = bytes.split_at_checked(16) {
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let length = usize::try_from(u32::from_ne_bytes(word(0))).unwrap_or(0);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let code = bytes.get(16..20).and_then(|code| code.try_into().ok());
        if let (ERROR, Some(code)) = (kind, code) {
            answers.push((u32::from_ne_bytes(word(8)), i32::from_ne_bytes(code)));
        }
        let next = length.max(16).next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    answers
}

fn messages(change: &Change) -> Vec<NfTablesMessage> {
    match change {
        Change::Admit { place, key, time } => {
            let new =
                || NfTablesMessage::NewSetElement(element(place, Some((*time, key.as_str()))));
            vec![new(), delete(place), new()]
        }
        // The add makes the delete safe where the element has ended by itself.
        Change::Shut { place } => {
            let brief = Some((Duration::from_secs(1), ""));
            vec![
                NfTablesMessage::NewSetElement(element(place, brief)),
                delete(place),
            ]
        }
    }
}

fn delete(place: &Place) -> NfTablesMessage {
    NfTablesMessage::DeleteSetElement(element(place, None))
}

fn element(place: &Place, with: Option<(Duration, &str)>) -> SetElementMessage {
    let octets = match place.address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(octets))];
    if let Some((time, comment)) = with {
        // Zero would be for ever.
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        attributes.push(SetElementAttribute::Timeout(ms));
        if !comment.is_empty() {
            attributes.push(SetElementAttribute::UserData(user_data(comment)));
        }
    }
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(set_name(place.service, place.address.is_ipv6())),
            SetElementList::Elements(vec![ListAttribute::Element(attributes)]),
        ],
    }
}

/// An element's comment as nft keeps it: type 0, length with the final zero, text, zero.
/// Names are at most 64 bytes.
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], comment.as_bytes(), &[0]].concat()
}
