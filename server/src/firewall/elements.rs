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
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
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
        let (bytes, last) = encode(first, changes);
        // The end of the batch has a number too.
        self.sequence = last.wrapping_add(1);
        let sent = self.socket.send(&bytes, 0)?;
        if sent != bytes.len() {
            return Err(io::Error::other("the kernel took a part of a batch"));
        }
        self.outcome(first, last)
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

/// A batch whose messages are numbered from `first`, and the number of the last message
/// before its end: that one asks for an acknowledgement.
fn encode(first: u32, changes: &[Change]) -> (Vec<u8>, u32) {
    let messages: Vec<NfTablesMessage> = changes.iter().flat_map(messages).collect();
    let mut bytes = Vec::with_capacity(128 * messages.len() + 64);
    let mut sequence = first;
    let frame = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
    let begin = NetfilterMessage::new(frame(), ControlMessage::BatchBegin);
    push(&mut bytes, sequence, 0, begin);
    let count = messages.len();
    for (at, message) in messages.into_iter().enumerate() {
        let create = match message {
            NfTablesMessage::NewSetElement(_) => NLM_F_CREATE,
            _ => 0,
        };
        let ack = if at + 1 == count { NLM_F_ACK } else { 0 };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        sequence = sequence.wrapping_add(1);
        let message = NetfilterMessage::new(header, message);
        push(&mut bytes, sequence, create | ack, message);
    }
    let end = NetfilterMessage::new(frame(), ControlMessage::BatchEnd);
    push(&mut bytes, sequence.wrapping_add(1), 0, end);
    (bytes, sequence)
}

fn push(bytes: &mut Vec<u8>, sequence: u32, flags: u16, inner: NetfilterMessage) {
    let mut outer = NetlinkHeader::default();
    outer.flags = NLM_F_REQUEST | flags;
    outer.sequence_number = sequence;
    let mut message = NetlinkMessage::new(outer, NetlinkPayload::from(inner));
    message.finalize();
    let start = bytes.len();
    // Each message begins at a multiple of four.
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn place() -> Place {
        Place {
            service: "ssh".parse().unwrap(),
            address: [192, 0, 2, 7].into(),
        }
    }

    fn admit(time: Duration) -> Change {
        Change::Admit {
            place: place(),
            key: Arc::new("me".parse().unwrap()),
            time,
        }
    }

    /// What a little-endian machine sends for one grant, message by message.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_grant_is_these_bytes() {
        let (bytes, last) = encode(7, &[admit(Duration::from_secs(30))]);
        let names = "0d 00 01 00 6f 6e 65 6b 6e 6f 63 6b 00 00 00 00 \
                     09 00 02 00 73 73 68 34 00 00 00 00";
        let key = "0c 00 01 80 08 00 01 00 c0 00 02 07";
        let timed = "0c 00 04 00 00 00 00 00 00 00 75 30 09 00 06 00 00 03 6d 65 00 00 00 00";
        let new = |number: &str, flags: &str| {
            format!(
                "5c 00 00 00 0c 0a {flags} {number} 00 00 00 00 00 00 00 01 00 00 00 \
                 {names} 2c 00 03 80 28 00 01 80 {key} {timed}"
            )
        };
        let want = [
            "14 00 00 00 10 00 01 00 07 00 00 00 00 00 00 00 00 00 00 0a".to_owned(),
            new("08", "01 04"),
            format!(
                "44 00 00 00 0e 0a 01 00 09 00 00 00 00 00 00 00 01 00 00 00 \
                 {names} 14 00 03 80 10 00 01 80 {key}"
            ),
            new("0a", "05 04"),
            "14 00 00 00 11 00 01 00 0b 00 00 00 00 00 00 00 00 00 00 0a".to_owned(),
        ];
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex.join(" "), want.join(" "));
        assert_eq!(last, 10);
    }

    #[test]
    fn a_grant_is_never_permanent() {
        let (bytes, _) = encode(1, &[admit(Duration::from_nanos(1))]);
        let timeout = [0, 0, 0, 0, 0, 0, 0, 1, 9];
        assert!(bytes.windows(9).any(|window| window == timeout));
    }

    #[test]
    fn shutting_adds_first_so_that_an_absent_address_is_no_error() {
        let (_, last) = encode(1, &[Change::Shut { place: place() }]);
        assert_eq!(last, 3, "begin, add, delete");
    }

    #[test]
    fn answers_are_read_and_garbage_is_not() {
        let answer = |number: u32, code: i32| {
            let mut bytes = vec![0; 36];
            bytes[..4].copy_from_slice(&36_u32.to_ne_bytes());
            bytes[4..6].copy_from_slice(&2_u16.to_ne_bytes());
            bytes[8..12].copy_from_slice(&number.to_ne_bytes());
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        let two = [answer(5, -2), answer(6, 0)].concat();
        assert_eq!(answers(&two), [(5, -2), (6, 0)]);
        assert_eq!(answers(&two[..17]), []);
        assert_eq!(answers(&[0xff; 15]), []);
        assert_eq!(answers(&[0; 64]), []);
    }
}
