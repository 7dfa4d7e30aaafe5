//! Questions to the kernel over netlink: lists, and single requests.

use super::message::{RawMessage, messages};
use netlink_packet_core::{Emitable, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// Larger than any datagram of a dump, which the kernel bounds at 32 KiB.
const BUFFER: usize = 64 * 1024;
/// How often a list is read again that the kernel says has changed while it was read.
const MAX_DUMPS: usize = 5;

/// A socket for questions: the kernel answers before a send or receive returns, so nothing
/// is ever waited for.
#[derive(Debug)]
pub struct QuerySocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl QuerySocket {
    /// Opens a socket of this netlink protocol.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Everything in the list asked for that `read` makes something of. A list that has
    /// changed while it was read is read again; after five times it is an error.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        request: &[u8],
        mut read: impl FnMut(&RawMessage<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..MAX_DUMPS {
            found.clear();
            self.send(kind, NLM_F_DUMP, request)?;
            let mut answer = DumpAnswer::new(self.sequence);
            while !answer.is_over {
                self.receive()?;
                answer.read(&self.buffer, |part| found.extend(read(part)))?;
            }
            if !answer.was_interrupted {
                return Ok(found);
            }
        }
        Err(io::Error::other(
            "the kernel's list changed each time while it was read",
        ))
    }

    /// Asks for one thing to be done.
    pub fn request(&mut self, kind: u16, request: &[u8]) -> io::Result<()> {
        self.send(kind, NLM_F_ACK, request)?;
        loop {
            self.receive()?;
            let mut answers = messages(&self.buffer);
            let is_answer = |m: &RawMessage| m.sequence == self.sequence && m.kind == NLMSG_ERROR;
            if let Some(answer) = answers.find(is_answer) {
                return outcome(answer.code());
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, request: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        let length = header.buffer_len() + request.len();
        header.length = u32::try_from(length).unwrap_or(u32::MAX);
        header.message_type = kind;
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut bytes = vec![0; header.buffer_len()];
        header.emit(&mut bytes);
        bytes.extend(request);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Takes the next datagram into the buffer. One that does not come is an error.
    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::other("the kernel's answer has no end"))
            }
            Err(error) => Err(error),
        }
    }
}

/// How far the answer to a dump has been read.
#[derive(Debug)]
struct DumpAnswer {
    sequence: u32,
    is_over: bool,
    /// The kernel has said that its list changed meanwhile.
    was_interrupted: bool,
}

impl DumpAnswer {
    fn new(sequence: u32) -> Self {
        Self {
            sequence,
            is_over: false,
            was_interrupted: false,
        }
    }

    /// Reads a datagram of it.
    fn read(&mut self, bytes: &[u8], mut each: impl FnMut(&RawMessage<'_>)) -> io::Result<()> {
        for part in messages(bytes).filter(|part| part.sequence == self.sequence) {
            self.was_interrupted |= part.flags & NLM_F_DUMP_INTR != 0;
            match part.kind {
                // The end of a dump has a code too: it may have stopped half-way.
                NLMSG_DONE | NLMSG_ERROR => {
                    self.is_over = true;
                    return outcome(part.code());
                }
                _ => each(&part),
            }
        }
        Ok(())
    }
}

fn outcome(code: i32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of eight bytes' body that answers request 7.
    fn part(kind: u16, flags: u16, code: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(20_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes
    }

    fn read(sequence: u32, bytes: &[u8]) -> (io::Result<()>, DumpAnswer, usize) {
        let (mut answer, mut count) = (DumpAnswer::new(sequence), 0);
        let result = answer.read(bytes, |_| count += 1);
        (result, answer, count)
    }

    #[test]
    fn dump_is_over_at_its_end_and_not_before() {
        let list = [part(24, 2, 0), part(24, 2, 0)].concat();
        let (result, answer, count) = read(7, &list);
        assert!(result.is_ok() && !answer.is_over && !answer.was_interrupted);
        assert_eq!(count, 2);
        let (result, answer, _) = read(7, &[list, part(NLMSG_DONE, 2, 0)].concat());
        assert!(result.is_ok() && answer.is_over);
    }

    #[test]
    fn dump_that_was_interrupted_says_so_in_any_part() {
        for flagged in [
            [part(24, 2 | NLM_F_DUMP_INTR, 0), part(NLMSG_DONE, 2, 0)],
            [part(24, 2, 0), part(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, 0)],
        ] {
            assert!(read(7, &flagged.concat()).1.was_interrupted);
        }
    }

    #[test]
    fn dump_that_ends_with_a_code_is_an_error() {
        for kind in [NLMSG_DONE, NLMSG_ERROR] {
            let error = read(7, &part(kind, 2, -1)).0.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn answers_to_an_earlier_request_are_passed_over() {
        let (result, answer, count) = read(8, &part(NLMSG_ERROR, 0, -1));
        assert!(result.is_ok() && !answer.is_over);
        assert_eq!(count, 0);
    }

    #[test]
    fn code_that_cannot_be_negated_is_still_an_error() {
        outcome(i32::MIN).unwrap_err();
    }
}
