//! The socket to the kernel's nftables: batches of changes, each entirely or not at all,
//! and answers to questions. No process is started.
//!
//! A table may be owned by this socket: then only what is sent here can change it.
//!
//! The messages are written by one small writer. `netlink-packet-netfilter` 0.4 encodes
//! tables, chains, sets and elements well, at twice the time, but lacks six of the twelve
//! expressions that the rules are made of (ct, fib, counter, limit, notrack, dynset), and its
//! parser takes 0.5 s for a dump of 1,000 elements.

mod answers;
mod read;
#[cfg(test)]
pub mod tests;
mod write;

pub use read::Attributes;
pub use write::{Batch, CREATE, CREATE_NEW, Writer};

use answers::{BatchAnswers, ListAnswers};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;

/// The kinds of nftables' messages.
pub mod kind {
    pub const NEW_TABLE: u8 = 0;
    pub const GET_TABLE: u8 = 1;
    pub const DELETE_TABLE: u8 = 2;
    pub const NEW_CHAIN: u8 = 3;
    pub const GET_CHAIN: u8 = 4;
    pub const DELETE_CHAIN: u8 = 5;
    pub const NEW_RULE: u8 = 6;
    pub const GET_RULE: u8 = 7;
    pub const DELETE_RULE: u8 = 8;
    pub const NEW_SET: u8 = 9;
    pub const GET_SET: u8 = 10;
    pub const DELETE_SET: u8 = 11;
    pub const NEW_ELEMENT: u8 = 12;
    pub const GET_ELEMENT: u8 = 13;
    pub const DELETE_ELEMENT: u8 = 14;
    pub const GET_GENERATION: u8 = 16;
}

/// Elements in one message: so many stay below what its length field can say, with the
/// longest names too.
pub const MAX_BATCH_ELEMENTS: usize = 256;
/// How often an interrupted dump is begun again.
const MAX_DUMPS: usize = 16;
/// Larger than any datagram of a dump.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// What a batch may be without asking for more room: below every default.
const SEND_BUFFER: usize = 100 * 1024;

/// Why a batch was refused. Nothing of it was applied.
#[derive(Debug)]
pub struct RefusedBatch {
    /// The message that the kernel refused first; `None` where it was none of them.
    pub subject: Option<Subject>,
    /// The kernel's error.
    pub error: io::Error,
}

/// What a message of a batch is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its kind, of [`kind`].
    pub kind: u8,
    /// The chain's or set's name; the table's, where it is about the table as a whole.
    pub name: String,
    /// Which of the batch's rules for that chain it is, from 1.
    pub rule: usize,
}

impl Subject {
    /// Whether it is elements of a set.
    pub fn is_of_elements(&self) -> bool {
        [kind::NEW_ELEMENT, kind::DELETE_ELEMENT].contains(&self.kind)
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

impl From<io::Error> for RefusedBatch {
    fn from(error: io::Error) -> Self {
        let subject = None;
        Self { subject, error }
    }
}

/// An open netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    port: u32,
    sequence: u32,
    /// For answers; kept, since a new one each time costs more than what is in it.
    buffer: Vec<u8>,
    send_buffer: usize,
}

impl Netlink {
    /// Opens the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let address = socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers before a send returns: there is never anything to wait for.
        socket.set_non_blocking(true)?;
        // A failing batch is answered message by message: without what was sent, all the
        // answers of a large one fit.
        socket.set_cap_ack(true)?;
        Ok(Self {
            socket,
            port: address.port_number(),
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            send_buffer: SEND_BUFFER,
        })
    }

    /// The socket's port, which tells it from others.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends a batch. Where it fails, nothing of it was done. An empty one is no change.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), RefusedBatch> {
        if batch.is_empty() {
            return Ok(());
        }
        let (first, count) = (self.sequence.wrapping_add(1), batch.len());
        let length = batch.finish(first);
        let number = u32::try_from(count).map_err(io::Error::other)?;
        // The batch's begin and end have numbers too.
        self.sequence = first.wrapping_add(number).wrapping_add(1);
        self.make_room(length)?;
        if self.socket.send(batch.bytes(), 0)? != length {
            return Err(io::Error::other("the kernel took a part of a batch").into());
        }
        self.outcome(first, count)
            .map_err(|(at, error)| RefusedBatch {
                subject: at.and_then(|at| batch.subject(at)),
                error,
            })
    }

    /// A table with very many elements is more than a socket's usual buffer lets through.
    fn make_room(&mut self, length: usize) -> io::Result<()> {
        if length > self.send_buffer {
            setsockopt(&self.socket, sockopt::SndBufForce, &(2 * length))?;
            self.send_buffer = length;
        }
        Ok(())
    }

    /// Reads the answers to a batch of so many messages, whose begin has the number `first`.
    fn outcome(&mut self, first: u32, count: usize) -> Result<(), (Option<usize>, io::Error)> {
        let mut answers = BatchAnswers::new(first, count);
        loop {
            match self.receive() {
                Ok(true) => answers.read(&self.buffer),
                // More failed than there is room to say. What was said is read still.
                Err(error) if answers.is_silent() => answers.fail(error),
                Ok(false) | Err(_) => break,
            }
        }
        answers.outcome()
    }

    /// Asks for one thing; gives what `read` makes of the answer. `NotFound` where there is
    /// no such thing.
    pub fn get<T>(
        &mut self,
        kind: u8,
        write: impl Fn(&mut Writer<'_>),
        read: impl FnMut(Attributes<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let (found, _) = self.ask(kind, write::ACK, &write, read)?;
        Ok(found.into_iter().next())
    }

    /// Lists all of a kind; gives what `read` makes of each. A list that has changed while
    /// it was read is read again, so that nothing is missing.
    pub fn dump<T>(
        &mut self,
        kind: u8,
        write: impl Fn(&mut Writer<'_>),
        mut read: impl FnMut(Attributes<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..MAX_DUMPS {
            let (found, is_whole) = self.ask(kind, write::DUMP, &write, &mut read)?;
            if is_whole {
                return Ok(found);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "other programs change the ruleset as fast as it is listed",
        ))
    }

    fn ask<T>(
        &mut self,
        kind: u8,
        flags: u16,
        write: impl Fn(&mut Writer<'_>),
        mut read: impl FnMut(Attributes<'_>) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let number = self.sequence;
        let bytes = write::question(kind, flags, number, write);
        self.socket.send(&bytes, 0)?;
        let (mut found, mut answers) = (Vec::new(), ListAnswers::new(number));
        // A dump goes on as its parts are read; the last says that it is.
        while self.receive()? {
            let ended = answers.read(&self.buffer, |one| found.extend(read(one)));
            if let Some(is_whole) = ended {
                return Ok((found, is_whole?));
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
