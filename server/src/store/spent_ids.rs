//! The packets that the log's segments hold, so that none is spent twice even where the caller
//! has forgotten it.

use oneknock_shared::packet::PacketId;
use std::collections::{HashSet, VecDeque};

/// The first 8 bytes of each packet's HMAC, by segment. Two packets that share them are taken
/// for one: by chance that never happens, and the holder of a key can only look for his own.
#[derive(Debug)]
pub(super) struct SpentIds {
    number: u32,
    current: HashSet<u64>,
    /// Of the segments before, by their numbers.
    older: VecDeque<(u32, HashSet<u64>)>,
}

impl SpentIds {
    /// Of a log that begins with this segment.
    pub fn new(number: u32) -> Self {
        Self {
            number,
            current: HashSet::new(),
            older: VecDeque::new(),
        }
    }

    /// Adds a packet to the current segment; false where it is in any.
    pub fn insert(&mut self, id: PacketId) -> bool {
        let id = prefix(id);
        !self.older.iter().any(|(_, ids)| ids.contains(&id)) && self.current.insert(id)
    }

    /// Removes a packet that was not written.
    pub fn remove(&mut self, id: PacketId) {
        self.current.remove(&prefix(id));
    }

    /// The log goes on in this segment; those before `first` are gone.
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
