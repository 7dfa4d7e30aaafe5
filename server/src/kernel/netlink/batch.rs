//! Batches: changes of the ruleset that the kernel makes all together or not at all.

use super::message::{NETFILTER_HEADER, Writer, messages};
use super::{INET, kind};
use netlink_packet_core::NLM_F_ACK;
use std::fmt;
use std::io;

/// `NLM_F_CREATE`: makes what is not there.
pub const CREATE: u16 = 0x400;
/// `NLM_F_CREATE | NLM_F_EXCL`: makes what must not be there yet.
pub const CREATE_NEW: u16 = 0x600;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, and the header that says which subsystem
/// it is for.
const BEGIN: u16 = 16;
const END: u16 = 17;
const FOR_NFTABLES: [u8; NETFILTER_HEADER] = [0, 0, 0, 10];

/// Changes that the kernel makes all together or not at all.
#[derive(Debug)]
pub struct Batch {
    bytes: Writer,
    /// Where each message begins, without the batch's own first and last.
    starts: Vec<usize>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        let mut bytes = Writer(Vec::with_capacity(512));
        bytes.message(BEGIN, 0, |begin| begin.0.extend_from_slice(&FOR_NFTABLES));
        let starts = Vec::new();
        Self { bytes, starts }
    }

    /// A batch of what is appended.
    pub fn of(write: impl FnOnce(&mut Self)) -> Self {
        let mut batch = Self::new();
        write(&mut batch);
        batch
    }

    /// Adds a message of nftables, of the family inet.
    pub fn push(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Writer)) {
        self.starts.push(self.bytes.0.len());
        self.bytes.message(kind, flags, |message| {
            message.0.extend_from_slice(&[INET, 0, 0, 0]);
            write(message);
        });
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

    fn kind_and_name(&self, at: usize) -> Option<(u16, &str)> {
        let message = messages(self.bytes.0.get(*self.starts.get(at)?..)?).next()?;
        let attributes = message.attributes();
        // The table's name is the first attribute, and a chain's the third of its own.
        let named = match message.kind {
            kind::NEW_TABLE => None,
            kind::NEW_CHAIN | kind::DELETE_CHAIN => attributes.text(3),
            _ => attributes.text(2),
        };
        Some((message.kind, named.or_else(|| attributes.text(1))?))
    }

    /// Completes the batch: the begin has the number `first`, and the messages and the end
    /// have those that follow. Only the last message is acknowledged: hundreds of
    /// acknowledgements overflow the socket's buffer. Returns what is to be sent.
    pub fn finish(&mut self, first: u32) -> &[u8] {
        if let Some(last) = self.starts.last() {
            let flags = &mut self.bytes.0[last + 6..last + 8];
            let with = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&with.to_ne_bytes());
        }
        let end = self.bytes.0.len();
        self.bytes
            .message(END, 0, |end| end.0.extend_from_slice(&FOR_NFTABLES));
        let starts = std::iter::once(&0).chain(&self.starts).chain([&end]);
        let mut number = first;
        for start in starts {
            self.bytes.number_message(*start, number);
            number = number.wrapping_add(1);
        }
        &self.bytes.0
    }
}

/// Why a batch was refused. Nothing of it was applied.
#[derive(Debug)]
pub struct RefusedBatch {
    /// The message that the kernel refused first; `None` where it was none of them.
    pub subject: Option<Subject>,
    /// The kernel's error.
    pub error: io::Error,
}

impl From<io::Error> for RefusedBatch {
    fn from(error: io::Error) -> Self {
        let subject = None;
        Self { subject, error }
    }
}

/// What a message of a batch is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its kind, of [`kind`].
    pub kind: u16,
    /// The chain's or set's name; the table's, where it is about the table as a whole.
    pub name: String,
    /// Which of the batch's rules for that chain it is, from 1.
    pub rule: usize,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rule, .. } = self;
        match self.kind {
            kind::NEW_CHAIN => write!(f, "chain {name}"),
            kind::DELETE_CHAIN => write!(f, "the removal of chain {name}"),
            kind::NEW_RULE => write!(f, "rule {rule} of chain {name}"),
            kind::DELETE_RULE => write!(f, "the removal of the rules of {name}"),
            kind::NEW_SET => write!(f, "set {name}"),
            kind::DELETE_SET => write!(f, "the removal of set {name}"),
            kind::NEW_ELEMENT => write!(f, "elements of set {name}"),
            kind::DELETE_ELEMENT => write!(f, "the removal of elements of set {name}"),
            _ => write!(f, "table {name}"),
        }
    }
}
