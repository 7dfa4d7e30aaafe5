//! nftables' notifications, decoded: which changes concern the guard's table, and which
//! process made them.

use super::message::{RawMessage, attribute, messages};

/// The guard's table; its family is inet.
const TABLE: &[u8] = b"oneknock";
const INET: u8 = 1;

// The kernel's numbers (linux/netfilter/nfnetlink.h, nf_tables.h).
const NFTABLES: u16 = 10;
const DELETE_TABLE: u16 = 2;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
const NEW_GENERATION: u16 = 15;
/// The first attribute of every message about a table or what is in it.
const TABLE_NAME: u16 = 1;
const GENERATION_PID: u16 = 2;
const GENERATION_PROGRAM: u16 = 3;

/// What another program has done to the guard's table, in order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableChange {
    /// Elements of its sets came or went.
    Elements,
    /// Its chains, rules or sets are others.
    Ruleset,
    /// It was deleted, and perhaps made again.
    Deleted,
    /// Notifications were lost, or could not be read: anything may have been done.
    Unknown,
}

/// A change that another program has made, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChange {
    /// The worst that was done.
    pub change: TableChange,
    /// The process that made the latest: its name, with "?" for every character that could
    /// spoil a log line, and its id as the machine's first process namespace has it. `None`
    /// where it is not known.
    pub program: Option<(String, u32)>,
    /// Why the notifications cannot be read, where they cannot. It is told again each second
    /// while that lasts.
    pub failure: Option<String>,
}

impl ForeignChange {
    /// A change of which nothing else is known.
    pub(super) fn unknown(failure: Option<String>) -> Self {
        Self {
            change: TableChange::Unknown,
            program: None,
            failure,
        }
    }

    /// This change and an earlier one that was not taken yet, as one.
    pub(super) fn after(self, earlier: Option<Self>) -> Self {
        let Some(earlier) = earlier else {
            return self;
        };
        Self {
            change: self.change.max(earlier.change),
            program: self.program.or(earlier.program),
            failure: self.failure.or(earlier.failure),
        }
    }
}

/// Puts together the notifications of a transaction: its changes come first, and then the
/// process that made it.
#[derive(Debug)]
pub struct TransactionReader {
    own_port: u32,
    pending: Option<TableChange>,
}

impl TransactionReader {
    /// Skips what the socket with this netlink port has done.
    pub fn new(own_port: u32) -> Self {
        Self {
            own_port,
            pending: None,
        }
    }

    /// Reads a datagram; gives each transaction that has changed the guard's table.
    pub fn read(&mut self, datagram: &[u8], mut each: impl FnMut(ForeignChange)) {
        for message in messages(datagram) {
            if message.port == self.own_port || message.kind >> 8 != NFTABLES {
                continue;
            }
            if message.kind & 0xff == NEW_GENERATION {
                each_pending(self.pending.take(), &message, &mut each);
            } else {
                self.pending = self.pending.max(change(&message));
            }
        }
    }
}

fn each_pending(
    pending: Option<TableChange>,
    message: &RawMessage<'_>,
    each: &mut impl FnMut(ForeignChange),
) {
    if let Some(change) = pending {
        each(ForeignChange {
            change,
            program: program(message.body.get(4..).unwrap_or_default()),
            failure: None,
        });
    }
}

/// What a message says about the guard's table.
fn change(message: &RawMessage<'_>) -> Option<TableChange> {
    let (header, rest) = message.body.split_at_checked(4)?;
    let name = attribute(rest, TABLE_NAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    if header[0] != INET || name != TABLE {
        return None;
    }
    Some(match message.kind & 0xff {
        NEW_ELEMENT | DELETE_ELEMENT => TableChange::Elements,
        DELETE_TABLE => TableChange::Deleted,
        _ => TableChange::Ruleset,
    })
}

fn program(generation: &[u8]) -> Option<(String, u32)> {
    let pid = attribute(generation, GENERATION_PID)?.try_into().ok()?;
    let name = attribute(generation, GENERATION_PROGRAM)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name).iter();
    let plain = |byte: &u8| match byte {
        b'!'..=b'~' => char::from(*byte),
        _ => '?',
    };
    Some((name.map(plain).collect(), u32::from_be_bytes(pid)))
}

#[cfg(test)]
#[path = "tests/notification.rs"]
mod tests;
