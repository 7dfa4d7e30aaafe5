//! The ids of the packets in the log's segments: a second defence, behind the engine's own.

use oneknock_shared::packet::PacketId;
use std::collections::{HashSet, VecDeque};

/// The first 8 bytes of each packet's HMAC, by segment. Two packets with the same 8 bytes are
/// taken for one. By chance that never happens; the holder of a key can make two such packets of
/// its own, of which the second is then refused.
#[derive(Debug)]
pub(super) struct SpentIds {
    number: u32,
    current: HashSet<u64>,
    /// Of the segments before, by their numbers.
    older: VecDeque<(u32, HashSet<u64>)>,
}

impl SpentIds {
    /// Begins with this segment.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            current: HashSet::new(),
            older: VecDeque::new(),
        }
    }

    /// Adds a packet to the current segment. False where it is in one of the segments already.
    pub fn insert(&mut self, id: PacketId) -> bool {
        let id = prefix(id);
        !self.older.iter().any(|(_, ids)| ids.contains(&id)) && self.current.insert(id)
    }

    /// Removes a packet that could not be written.
    pub fn remove(&mut self, id: PacketId) {
        self.current.remove(&prefix(id));
    }

    /// Goes on in this segment, and forgets those before `first`.
    pub fn switch(&mut self, number: u32, first: u32) {
        let full = std::mem::take(&mut self.current);
        self.older.push_back((self.number, full));
        self.older.retain(|(number, _)| *number >= first);
        self.number = number;
    }
}

fn prefix(id: PacketId) -> u64 {
    id.0.first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}
