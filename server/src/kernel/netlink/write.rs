//! Messages as the kernel wants them: attributes one after the other, numbers big-endian,
//! each at a multiple of four.

use super::{Attributes, Subject, kind};

/// `NLM_F_REQUEST`.
pub(super) const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`: makes what is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_CREATE | NLM_F_EXCL`: makes what must not be there yet.
pub const CREATE_NEW: u16 = 0x600;
/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const NFTABLES: u16 = 10;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// Length of a message's two headers: netlink's and netfilter's.
pub(super) const HEADERS: usize = 20;

/// Attributes that are written one after the other.
#[derive(Debug)]
pub struct Writer<'b>(&'b mut Vec<u8>);

impl Writer<'_> {
    /// An attribute of these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, 4 + value.len());
        self.0.extend_from_slice(value);
        self.align();
    }

    /// An attribute of one byte string with its final zero.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.header(kind, 5 + text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        self.align();
    }

    /// A number of 32 bits.
    pub fn number(&mut self, kind: u16, number: u32) {
        self.bytes(kind, &number.to_be_bytes());
    }

    /// A number of 64 bits.
    pub fn long(&mut self, kind: u16, number: u64) {
        self.bytes(kind, &number.to_be_bytes());
    }

    /// An attribute that holds others.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Writer<'_>)) {
        const NESTED: u16 = 0x8000;
        let start = self.0.len();
        self.header(kind | NESTED, 4);
        write(&mut Writer(self.0));
        let length = length16(self.0.len() - start);
        self.0[start..start + 2].copy_from_slice(&length);
    }

    fn header(&mut self, kind: u16, length: usize) {
        self.0.extend_from_slice(&length16(length));
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// What is longer than the length field can say is refused by the kernel as malformed: the
/// callers write at most [`super::MAX_BATCH_ELEMENTS`] elements into one message.
fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes()
}

/// Changes that the kernel makes all together or not at all.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message begins, without the batch's own first and last.
    starts: Vec<usize>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        let mut bytes = Vec::with_capacity(512);
        push(&mut bytes, BATCH_BEGIN, 0, 0, NFTABLES, |_| {});
        Self {
            bytes,
            starts: Vec::new(),
        }
    }

    /// Adds a message of nftables, of the family inet.
    pub fn push(&mut self, kind: u8, flags: u16, write: impl FnOnce(&mut Writer<'_>)) {
        self.starts.push(self.bytes.len());
        let kind = NFTABLES << 8 | u16::from(kind);
        push(&mut self.bytes, kind, flags, INET, 0, write);
    }

    /// Whether it holds no message.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// What a message is about.
    pub fn subject(&self, at: usize) -> Option<Subject> {
        let (kind, name) = self.kind_and_name(at)?;
        let before = (0..=at).filter(|at| self.kind_and_name(*at) == Some((kind, name)));
        Some(Subject {
            kind,
            name: name.to_owned(),
            rule: before.count(),
        })
    }

    fn kind_and_name(&self, at: usize) -> Option<(u8, &str)> {
        let start = *self.starts.get(at)?;
        let end = self.starts.get(at + 1).copied();
        let bytes = self.bytes.get(start..end.unwrap_or(self.bytes.len()))?;
        let (kind, attributes) = (bytes[4], Attributes::new(bytes.get(HEADERS..)?));
        // The table's name is the first attribute, and a chain's the third of its own.
        let named = match kind {
            kind::NEW_CHAIN | kind::DELETE_CHAIN => attributes.text(3),
            _ => attributes.text(2),
        };
        let named = named.filter(|_| kind != kind::NEW_TABLE);
        Some((kind, named.or_else(|| attributes.text(1))?))
    }

    /// The batch, complete once it is finished.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Completes the batch: the begin has the number `first`, and the messages and the end
    /// have those that follow. Only the last message is acknowledged: hundreds of
    /// acknowledgements overflow the socket's buffer. Returns its length.
    pub(super) fn finish(&mut self, first: u32) -> usize {
        number(&mut self.bytes, 0, first);
        let mut sequence = first;
        for start in &self.starts {
            sequence = sequence.wrapping_add(1);
            number(&mut self.bytes, *start, sequence);
        }
        if let Some(last) = self.starts.last() {
            let flags = u16::from_ne_bytes([self.bytes[last + 6], self.bytes[last + 7]]) | ACK;
            self.bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        }
        let end = self.bytes.len();
        push(&mut self.bytes, BATCH_END, 0, 0, NFTABLES, |_| {});
        number(&mut self.bytes, end, sequence.wrapping_add(1));
        self.bytes.len()
    }
}

/// A question, numbered.
pub(super) fn question(
    kind: u8,
    flags: u16,
    sequence: u32,
    write: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    let kind = NFTABLES << 8 | u16::from(kind);
    push(&mut bytes, kind, flags, INET, 0, write);
    number(&mut bytes, 0, sequence);
    bytes
}

fn number(bytes: &mut [u8], start: usize, sequence: u32) {
    bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
}

fn push(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    write: impl FnOnce(&mut Writer<'_>),
) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    // The sequence number follows when it is sent; the port is the kernel's to know.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, 0]);
    bytes.extend_from_slice(&resource.to_be_bytes());
    write(&mut Writer(bytes));
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}
