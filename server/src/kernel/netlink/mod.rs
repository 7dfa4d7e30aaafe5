//! The one kind of netlink socket: batches of changes, each entirely or not at all, answers
//! to questions, and notifications. No process is started.
//!
//! A table may be owned by such a socket: then only what is sent here can change it.
//!
//! The messages are written by one small writer. `netlink-packet-netfilter` 0.4 encodes
//! tables, chains, sets and elements well, at twice the time, but lacks six of the twelve
//! expressions that the rules are made of (ct, fib, counter, limit, notrack, dynset), and its
//! parser takes 0.5 s for a dump of 1,000 elements.

mod answers;
mod batch;
mod message;
#[cfg(test)]
pub mod tests;

#[cfg(test)]
pub use batch::Subject;
pub use batch::{Batch, CREATE, CREATE_NEW, RefusedBatch};
pub use message::{Attributes, RawMessage, Writer, messages};

use answers::{batch_outcome, list_outcome};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, SockRef};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The kinds of nftables' messages: its subsystem, and a number.
pub mod kind {
    pub const NEW_TABLE: u16 = 0xa00;
    pub const GET_TABLE: u16 = 0xa01;
    pub const DELETE_TABLE: u16 = 0xa02;
    pub const NEW_CHAIN: u16 = 0xa03;
    pub const GET_CHAIN: u16 = 0xa04;
    pub const DELETE_CHAIN: u16 = 0xa05;
    pub const NEW_RULE: u16 = 0xa06;
    pub const GET_RULE: u16 = 0xa07;
    pub const DELETE_RULE: u16 = 0xa08;
    pub const NEW_SET: u16 = 0xa09;
    pub const GET_SET: u16 = 0xa0a;
    pub const DELETE_SET: u16 = 0xa0b;
    pub const NEW_ELEMENT: u16 = 0xa0c;
    pub const GET_ELEMENT: u16 = 0xa0d;
    pub const DELETE_ELEMENT: u16 = 0xa0e;
    pub const NEW_GENERATION: u16 = 0xa0f;
    pub const GET_GENERATION: u16 = 0xa10;
}

/// `NFPROTO_INET`, the family of the guard's table.
pub const INET: u8 = 1;
/// Elements in one message: so many stay below what its length field can say, with the
/// longest names too.
pub const MAX_BATCH_ELEMENTS: usize = 256;
/// How often a dump is begun again that has changed while it was read.
const MAX_DUMPS: usize = 16;
/// Larger than any datagram: the kernel bounds those of a dump at 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// What a batch may be without asking for more room: below every default.
const SEND_BUFFER: usize = 100 * 1024;

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
    /// Opens a socket of this netlink protocol.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
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

    /// Opens a socket for the notifications of these groups. The kernel does not queue here
    /// what the socket with the netlink port `except` causes.
    pub fn subscribe(protocol: isize, groups: &[u32], except: Option<u32>) -> io::Result<Self> {
        let netlink = Self::open(protocol)?;
        if let Some(port) = except {
            SockRef::from(&netlink.socket).attach_filter(&caused_by_others(port))?;
        }
        for group in groups {
            netlink.socket.add_membership(*group)?;
        }
        Ok(netlink)
    }

    /// The socket's port, which tells it from others.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends a batch. Where it fails, nothing of it was done. An empty one is no change.
    pub fn commit(&mut self, mut batch: Batch) -> Result<(), RefusedBatch> {
        let count = batch.len();
        if count == 0 {
            return Ok(());
        }
        let first = self.sequence.wrapping_add(1);
        let number = u32::try_from(count).map_err(io::Error::other)?;
        // The batch's begin and end have numbers too.
        self.sequence = first.wrapping_add(number).wrapping_add(1);
        let bytes = batch.finish(first);
        self.make_room(bytes.len())?;
        if self.socket.send(bytes, 0)? != bytes.len() {
            return Err(io::Error::other("the kernel took a part of a batch").into());
        }
        batch_outcome(first, count, |each| self.receive(each)).map_err(|(at, error)| {
            let subject = at.and_then(|at| batch.subject(at));
            RefusedBatch { subject, error }
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

    /// Asks for one thing, or for one thing to be done; gives what `read` makes of the
    /// answer. `NotFound` where there is no such thing.
    pub fn get<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut read: impl FnMut(&RawMessage<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let (found, _) = self.ask(kind, NLM_F_ACK, body, &mut read)?;
        Ok(found.into_iter().next())
    }

    /// Lists all of a kind; gives what `read` makes of each. A list that has changed while
    /// it was read is read again, so that nothing is missing.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        mut read: impl FnMut(&RawMessage<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..MAX_DUMPS {
            let (found, is_whole) = self.ask(kind, NLM_F_DUMP, body, &mut read)?;
            if is_whole {
                return Ok(found);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "other programs change the kernel's list as fast as it is read",
        ))
    }

    fn ask<T>(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        read: &mut impl FnMut(&RawMessage<'_>) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let number = self.sequence;
        self.socket.send(&question(kind, flags, number, body), 0)?;
        let mut found = Vec::new();
        let is_whole = list_outcome(
            number,
            |each| self.receive(each),
            |answer| found.extend(read(answer)),
        )?;
        Ok((found, is_whole))
    }

    /// Reads all notifications that are queued. Returns whether some were lost because they
    /// came faster than they were read.
    ///
    /// The kernel says once that the queue is full, and drops what comes until it is empty
    /// again. So the caller looks for what it has missed after this has returned, not before.
    pub fn drain(&mut self, mut each: impl FnMut(&RawMessage<'_>)) -> io::Result<bool> {
        let mut is_lost = false;
        loop {
            match self.receive(&mut each) {
                Ok(true) => {}
                Ok(false) => return Ok(is_lost),
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => is_lost = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands out the messages of the next datagram. Returns whether there was one.
    fn receive(&mut self, each: &mut dyn FnMut(&RawMessage<'_>)) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {
                messages(&self.buffer).for_each(|message| each(&message));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A question, numbered.
fn question(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut question = Writer::default();
    question.message(kind, flags, |message| message.0.extend_from_slice(body));
    question.number_message(0, sequence);
    question.0
}

/// Passes what another socket than that with this port has caused: the port is the fourth
/// word of the first message's header, and the messages of a datagram have one cause.
fn caused_by_others(port: u32) -> [SockFilter; 4] {
    // linux/bpf_common.h. A loaded word is read in network order, a port is written in the
    // machine's.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
