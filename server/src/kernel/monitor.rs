//! What other programs do to the guard's table, as nftables tells it: for a guard that the
//! kernel cannot keep to the daemon alone.
//!
//! A thread of its own reads the notifications, so that the thousands of another table's
//! elements hold nothing up, and wakes the daemon only for a change of another program to
//! the guard's table. The daemon's own changes are kept from the thread by the kernel: what
//! remains of the price of each is that the kernel writes a notification.

use super::names::TABLE;
use super::netlink::{Attributes, INET, Netlink, RawMessage, kind};
use super::watcher::{ThreadEvent, Watch, WatchThread, Watcher};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::io;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

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
    fn unknown(failure: Option<String>) -> Self {
        Self {
            change: TableChange::Unknown,
            program: None,
            failure,
        }
    }

    /// This change and an earlier one that was not taken yet, as one.
    fn after(self, earlier: Option<Self>) -> Self {
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

/// Watches the guard's table. Several changes since the last look are told as one.
pub type Monitor = Watcher<ForeignChange>;

impl Monitor {
    /// Starts to watch the tables of this thread's network namespace. `own_port` is the
    /// netlink port of the socket that writes the guard's table: its changes are skipped.
    ///
    /// Changes before this call are not told: the caller looks at the table after it.
    /// `PermissionDenied` without `CAP_NET_ADMIN`.
    pub fn start(own_port: u32) -> io::Result<Self> {
        let has_failed = false;
        Self::spawn(TableWatch {
            own_port,
            has_failed,
        })
    }
}

struct TableWatch {
    own_port: u32,
    has_failed: bool,
}

impl Watch<ForeignChange> for TableWatch {
    const NAME: &'static str = "nftables";

    fn open(&self) -> io::Result<Netlink> {
        Netlink::subscribe(NETLINK_NETFILTER, &[GROUP], Some(self.own_port))
    }

    fn read(&mut self, mut socket: Netlink, thread: &WatchThread<ForeignChange>) -> io::Result<()> {
        let tell = |change: ForeignChange| thread.tell(|earlier| change.after(earlier));
        if self.has_failed {
            // Since the last socket nobody has listened.
            tell(ForeignChange::unknown(None));
        }
        let mut reader = TransactionReader::new(self.own_port);
        while thread.wait(Some(&socket), None)? != ThreadEvent::Stop {
            if socket.drain(|message| reader.read(message, tell))? {
                tell(ForeignChange::unknown(None));
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: io::Error, thread: &WatchThread<ForeignChange>) {
        self.has_failed = true;
        let change = ForeignChange::unknown(Some(error.to_string()));
        thread.tell(|earlier| change.after(earlier));
    }
}

/// Puts together the notifications of a transaction: its changes come first, and then the
/// process that made it.
#[derive(Debug)]
struct TransactionReader {
    own_port: u32,
    pending: Option<TableChange>,
}

impl TransactionReader {
    /// Skips what the socket with this netlink port has done.
    fn new(own_port: u32) -> Self {
        Self {
            own_port,
            pending: None,
        }
    }

    /// Reads a message; gives a transaction that has changed the guard's table.
    fn read(&mut self, message: &RawMessage<'_>, tell: impl FnOnce(ForeignChange)) {
        if message.port == self.own_port {
            return;
        }
        if message.kind != kind::NEW_GENERATION {
            self.pending = self.pending.max(change(message));
        } else if let Some(change) = self.pending.take() {
            tell(ForeignChange {
                change,
                program: program(message.attributes()),
                failure: None,
            });
        }
    }
}

/// What a message says about the guard's table, whose name is the first attribute of every
/// message about what is in it.
fn change(message: &RawMessage<'_>) -> Option<TableChange> {
    let is_ours =
        message.body.first() == Some(&INET) && message.attributes().text(1) == Some(TABLE);
    match message.kind {
        _ if !is_ours || message.kind >> 8 != kind::NEW_TABLE >> 8 => None,
        kind::NEW_ELEMENT | kind::DELETE_ELEMENT => Some(TableChange::Elements),
        kind::DELETE_TABLE => Some(TableChange::Deleted),
        _ => Some(TableChange::Ruleset),
    }
}

fn program(generation: Attributes<'_>) -> Option<(String, u32)> {
    let name = generation.get(3)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name).iter();
    let plain = |byte: &u8| match byte {
        b'!'..=b'~' => char::from(*byte),
        _ => '?',
    };
    Some((name.map(plain).collect(), generation.number(2)?))
}

#[cfg(test)]
#[path = "tests/monitor.rs"]
mod tests;
