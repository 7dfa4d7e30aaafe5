//! What the kernel sends over netlink, read in place: messages and their attributes.

use netlink_packet_core::{NLA_F_NESTED, NLA_TYPE_MASK, NetlinkBuffer};

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

impl RawMessage<'_> {
    /// The code of an `NLMSG_ERROR` or `NLMSG_DONE`: 0 is success, a negative error number
    /// is none, and neither is a message without a code.
    pub fn code(&self) -> i32 {
        self.body
            .first_chunk()
            .map_or(-1, |code| i32::from_ne_bytes(*code))
    }
}

/// The messages of a datagram, up to the first that is cut short.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = RawMessage<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let body = message.payload();
        let length = 16 + body.len();
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

/// The number and value of each attribute, up to the first that is cut short. The bits
/// that say "nested" and "network order" are not part of the number.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, c, d] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & NLA_TYPE_MASK, value))
    })
}

/// The value of the first attribute of this number.
pub fn attribute(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == number).then_some(value))
}

/// Appends an attribute; [`NESTED`] in its number says that attributes are its value.
pub fn push_attribute(bytes: &mut Vec<u8>, number: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The bit in an attribute's number that says that attributes are its value.
pub const NESTED: u16 = NLA_F_NESTED;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0x10_u16.to_ne_bytes());
        bytes.extend(5_u32.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_are_read_up_to_the_first_that_is_cut_short() {
        let two = [message(2, &(-5_i32).to_ne_bytes()), message(3, b"abcde")].concat();
        let read: Vec<_> = messages(&two).collect();
        let first = RawMessage {
            kind: 2,
            flags: 0x10,
            sequence: 5,
            port: 7,
            body: &(-5_i32).to_ne_bytes(),
        };
        assert_eq!(read[0], first);
        assert_eq!((read[0].code(), read[1].body), (-5, &b"abcde"[..]));
        assert_eq!(messages(&two[..two.len() - 4]).count(), 1);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn error_without_a_code_is_no_success() {
        assert_eq!(messages(&message(2, &[0])).next().unwrap().code(), -1);
    }

    #[test]
    fn attributes_are_found_by_number_without_their_flags() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, NESTED | 1, &[1, 2, 3, 4, 5]);
        push_attribute(&mut bytes, 2, &[9]);
        assert_eq!(attribute(&bytes, 1), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(attribute(&bytes, 2), Some(&[9][..]));
        assert_eq!(attribute(&bytes, 3), None);
        assert_eq!(attributes(&bytes[..15]).count(), 1);
    }

    proptest! {
        #[test]
        fn garbage_ends(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
