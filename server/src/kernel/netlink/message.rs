//! Netlink messages and their attributes, written and read in place. Whatever is cut short
//! ends the reading; nothing here can fail otherwise.

use netlink_packet_core::{NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_REQUEST, NetlinkBuffer};
use std::io;

/// Bytes of netlink's own header.
pub const HEADER: usize = 16;
/// Bytes of netfilter's, which follows it.
pub const NETFILTER_HEADER: usize = 4;

/// A message within a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawMessage<'b> {
    /// Its type; the subsystem is the upper byte where netfilter sends it.
    pub kind: u16,
    /// `NLM_F_DUMP_INTR` and its like.
    pub flags: u16,
    /// The number of the request that it answers, or that has caused it.
    pub sequence: u32,
    /// The netlink port of the socket that has asked for it, or has caused it.
    pub port: u32,
    /// What follows its header.
    pub body: &'b [u8],
}

impl<'b> RawMessage<'b> {
    /// The code of an `NLMSG_ERROR` or `NLMSG_DONE`: 0 is success, a negative error number
    /// is none, and neither is a message without a code.
    pub fn code(&self) -> i32 {
        self.body
            .first_chunk()
            .map_or(-1, |code| i32::from_ne_bytes(*code))
    }

    /// The error that such a code is.
    pub fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.code().saturating_neg())
    }

    /// The attributes of a message of netfilter's.
    pub fn attributes(&self) -> Attributes<'b> {
        Attributes(self.body.get(NETFILTER_HEADER..).unwrap_or_default())
    }
}

/// The messages of a datagram, up to the first that is cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = RawMessage<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let body = message.payload();
        let length = HEADER + body.len();
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(RawMessage {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            port: message.port_number(),
            body,
        })
    })
}

/// Attributes of a message, or of an attribute that holds others.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'b>(pub &'b [u8]);

impl<'b> Attributes<'b> {
    /// The number and value of each, up to the first that is cut short. The bits that say
    /// "nested" and "network order" are not part of the number.
    pub fn each(self) -> impl Iterator<Item = (u16, &'b [u8])> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let &[a, b, c, d] = bytes.first_chunk()?;
            let length = usize::from(u16::from_ne_bytes([a, b]));
            let value = bytes.get(4..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
        })
    }

    /// The value of the first of this number.
    pub fn get(self, number: u16) -> Option<&'b [u8]> {
        let mut each = self.each();
        each.find_map(|(found, value)| (found == number).then_some(value))
    }

    /// The value of the first of this number, where it has this length.
    pub fn array<const N: usize>(self, number: u16) -> Option<[u8; N]> {
        self.get(number)?.try_into().ok()
    }

    /// The attributes in the first of this number; none where there is none.
    pub fn nested(self, number: u16) -> Self {
        Self(self.get(number).unwrap_or_default())
    }

    /// A text without its final zero.
    pub fn text(self, number: u16) -> Option<&'b str> {
        let bytes = self.get(number)?;
        str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }

    /// A number of 32 bits.
    pub fn number(self, number: u16) -> Option<u32> {
        self.array(number).map(u32::from_be_bytes)
    }

    /// A number of 64 bits.
    pub fn long(self, number: u16) -> Option<u64> {
        self.array(number).map(u64::from_be_bytes)
    }
}

/// Bytes that are written one behind the other: messages, and attributes, whose numbers are
/// in network order, each at a multiple of four.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// The body of a message of netfilter's: its header, and attributes.
    pub fn body(family: u8, write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut body = Self(vec![family, 0, 0, 0]);
        write(&mut body);
        body.0
    }

    /// A message; its number is 0 still, and the port is the kernel's to know.
    pub fn message(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0
            .extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        self.0.extend_from_slice(&[0; 8]);
        write(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Numbers the message that begins there.
    pub fn number_message(&mut self, start: usize, sequence: u32) {
        self.0[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// An attribute of these bytes.
    pub fn bytes(&mut self, number: u16, value: &[u8]) {
        self.attribute(number, |writer| writer.0.extend_from_slice(value));
    }

    /// An attribute of a text with its final zero.
    pub fn text(&mut self, number: u16, text: &str) {
        self.attribute(number, |writer| {
            writer.0.extend_from_slice(text.as_bytes());
            writer.0.push(0);
        });
    }

    /// A number of 32 bits.
    pub fn number(&mut self, number: u16, value: u32) {
        self.bytes(number, &value.to_be_bytes());
    }

    /// A number of 64 bits.
    pub fn long(&mut self, number: u16, value: u64) {
        self.bytes(number, &value.to_be_bytes());
    }

    /// An attribute that holds others.
    pub fn nest(&mut self, number: u16, write: impl FnOnce(&mut Self)) {
        self.attribute(NLA_F_NESTED | number, write);
    }

    /// What is longer than the length field can say is refused by the kernel as malformed:
    /// nobody writes more than [`super::MAX_BATCH_ELEMENTS`] elements into one message.
    fn attribute(&mut self, number: u16, write: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&number.to_ne_bytes());
        write(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}
