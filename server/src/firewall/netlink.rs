//! The socket to the kernel's nftables: batches of changes, each entirely or not at all,
//! and answers to questions. No process is started.
//!
//! A table may be owned by this socket: then only what is sent here can change it.

use super::names::TABLE;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::nftables::{
    NfTablesMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;

/// `NFNL_SUBSYS_NFTABLES`: whom a batch is for.
const NFTABLES: u16 = 10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Larger than any datagram of a dump.
const BUFFER: usize = 64 * 1024;

/// One message of a batch.
pub struct Step {
    /// What is to be done.
    pub message: NfTablesMessage,
    /// `NLM_F_CREATE` and its like.
    flags: u16,
}

impl Step {
    /// A message that makes what is not there.
    pub fn create(message: NfTablesMessage) -> Self {
        Self {
            message,
            flags: NLM_F_CREATE,
        }
    }

    /// A message that makes what must not be there yet: else `AlreadyExists`.
    pub fn create_new(message: NfTablesMessage) -> Self {
        Self {
            message,
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }

    /// A message about what must be there.
    pub fn change(message: NfTablesMessage) -> Self {
        Self { message, flags: 0 }
    }
}

/// An attribute's number and value.
pub type Attribute = (u16, Vec<u8>);

/// An open netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    /// For answers; kept, since a new one each time costs more than what is in it.
    buffer: Vec<u8>,
}

impl Netlink {
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
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Makes the table, owned by this socket and outliving it. `Unsupported` or
    /// `InvalidInput` where the kernel (before 6.9) cannot.
    pub fn create_table(&mut self) -> io::Result<()> {
        self.commit(&[Step::create(NfTablesMessage::NewTable(owned_table()))])
    }

    /// Takes the ownership of a table that such a socket has left behind. `NotFound`
    /// where there is none.
    pub fn adopt_table(&mut self) -> io::Result<()> {
        self.commit(&[Step::change(NfTablesMessage::NewTable(owned_table()))])
    }

    /// Removes the table.
    pub fn delete_table(&mut self) -> io::Result<()> {
        let attributes = vec![TableAttribute::Name(TABLE.into())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        self.commit(&[Step::change(message)])
    }

    /// Sends a batch. Where it fails, nothing of it was done.
    pub fn commit(&mut self, steps: &[Step]) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let (bytes, last) = encode(first, steps);
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
        while self.receive()? {
            for (sequence, code) in answers(&self.buffer) {
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

    /// Asks for one thing, or for all of a kind; gives each answer's attributes.
    pub fn ask(
        &mut self,
        message: impl Into<NetfilterMessageInner>,
        all: bool,
    ) -> io::Result<Vec<Vec<Attribute>>> {
        let mut found = Vec::new();
        self.ask_each(message, all, |one| found.push(one))?;
        Ok(found)
    }

    /// As [`Netlink::ask`], an answer at a time: there may be very many.
    pub fn ask_each(
        &mut self,
        message: impl Into<NetfilterMessageInner>,
        all: bool,
        mut each: impl FnMut(Vec<Attribute>),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let number = self.sequence;
        let message = message.into();
        // Connection tracking has no family of both, but gives both for none.
        let family = match message {
            NetfilterMessageInner::NfTables(_) => NetfilterProtoFamily::Inet,
            _ => NetfilterProtoFamily::Unspec,
        };
        let header = NetfilterHeader::new(family, 0, 0);
        let mut bytes = Vec::new();
        let flags = if all { NLM_F_DUMP } else { NLM_F_ACK };
        push(
            &mut bytes,
            number,
            flags,
            NetfilterMessage::new(header, message),
        );
        self.socket.send(&bytes, 0)?;
        // A dump goes on as its parts are read; the last says that it is.
        while self.receive()? {
            for part in messages(&self.buffer) {
                match part.kind {
                    _ if part.sequence != number => {}
                    // The end of a dump has a code too: it may have stopped half-way.
                    DONE | ERROR => match part.code() {
                        0 => return Ok(()),
                        code => return Err(io::Error::from_raw_os_error(-code)),
                    },
                    // Behind the header of netfilter's own.
                    _ => each(attributes(part.body.get(4..).unwrap_or_default())),
                }
            }
        }
        Err(io::Error::other("the kernel's answer has no end"))
    }

    /// Takes the next datagram into the buffer. Returns whether there was one.
    fn receive(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn owned_table() -> TableMessage {
    let flags = TableFlags::Owner | TableFlags::Persisent;
    TableMessage {
        attributes: vec![
            TableAttribute::Name(TABLE.into()),
            TableAttribute::Flags(flags),
        ],
    }
}

/// A batch whose messages are numbered from `first`, and the number of the last message
/// before its end: that one asks for an acknowledgement.
pub fn encode(first: u32, steps: &[Step]) -> (Vec<u8>, u32) {
    let mut bytes = Vec::with_capacity(128 * steps.len() + 64);
    let mut sequence = first;
    let frame = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
    let begin = NetfilterMessage::new(frame(), ControlMessage::BatchBegin);
    push(&mut bytes, sequence, 0, begin);
    for (at, step) in steps.iter().enumerate() {
        let ack = if at + 1 == steps.len() { NLM_F_ACK } else { 0 };
        let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
        sequence = sequence.wrapping_add(1);
        let message = NetfilterMessage::new(header, step.message.clone());
        push(&mut bytes, sequence, step.flags | ack, message);
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

/// A message within a datagram.
struct Part<'b> {
    kind: u16,
    sequence: u32,
    body: &'b [u8],
}

impl Part<'_> {
    /// The code of an `NLMSG_ERROR`; 0 is success. One without a code is a failure.
    fn code(&self) -> i32 {
        let code = self.body.get(..4).and_then(|code| code.try_into().ok());
        code.map_or(-1, i32::from_ne_bytes)
    }
}

/// The messages of a datagram, up to the first that is cut short.
fn messages(mut bytes: &[u8]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while let Some(header) = bytes.get(..16) {
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let length = usize::try_from(u32::from_ne_bytes(word(0))).unwrap_or(0);
        let Some(body) = bytes.get(16..length) else {
            break;
        };
        parts.push(Part {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes(word(8)),
            body,
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    parts
}

/// The (sequence number, code) of each answer in a datagram; 0 is success.
fn answers(bytes: &[u8]) -> Vec<(u32, i32)> {
    let answers = messages(bytes)
        .into_iter()
        .filter(|part| part.kind == ERROR);
    answers.map(|part| (part.sequence, part.code())).collect()
}

/// The attributes of a message, up to the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> Vec<Attribute> {
    let mut found = Vec::new();
    while let Some(&[a, b, c, d]) = bytes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        // Without the bits that say "nested" and "network order".
        found.push((u16::from_ne_bytes([c, d]) & 0x3fff, value.to_vec()));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn attributes_are_read_and_garbage_is_not() {
        let two = [8, 0, 1, 0x80, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0];
        assert_eq!(attributes(&two), [(1, vec![1, 2, 3, 4]), (2, vec![9])]);
        assert_eq!(attributes(&two[..11]), [(1, vec![1, 2, 3, 4])]);
        assert_eq!(attributes(&[0; 16]), []);
        assert_eq!(attributes(&[0xff; 16]), []);
    }
}
