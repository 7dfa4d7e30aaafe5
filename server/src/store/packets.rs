//! The packets in the log's segments: a second defence, behind the engine's own, and what says
//! which segments are needed.

use crate::engine::Spend;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::collections::{HashMap, HashSet, VecDeque};

/// The packets in the segments that are needed.
#[derive(Debug)]
pub(super) struct SpentPackets {
    current: SegmentPackets,
    /// Of the segments before, in their order, without a gap.
    older: VecDeque<SegmentPackets>,
}

#[derive(Debug, Default)]
struct SegmentPackets {
    number: u32,
    /// The first 8 bytes of each packet's HMAC. Two packets with the same 8 bytes are taken for
    /// one. By chance that never happens; the holder of a key can make two such packets of its
    /// own, of which the second is then refused.
    ids: HashSet<u64>,
    /// The greatest timestamp of each generation.
    newest: HashMap<GenerationId, Timestamp>,
}

impl SpentPackets {
    /// Begins with this segment.
    pub fn new(number: u32) -> Self {
        Self {
            current: SegmentPackets {
                number,
                ..SegmentPackets::default()
            },
            older: VecDeque::new(),
        }
    }

    /// Adds a packet to the current segment. False where it is in one of the segments already.
    pub fn insert(&mut self, id: PacketId) -> bool {
        let id = prefix(id);
        !self.older.iter().any(|segment| segment.ids.contains(&id)) && self.current.ids.insert(id)
    }

    /// Removes a packet that could not be written.
    pub fn remove(&mut self, spend: &Spend) {
        self.current.ids.remove(&prefix(spend.id));
    }

    /// Keeps the segment of a packet that was written until a floor refuses the packet.
    pub fn keep(&mut self, generation: GenerationId, at: Timestamp) {
        let newest = self.current.newest.entry(generation).or_insert(at);
        *newest = at.max(*newest);
    }

    /// Goes on in this segment.
    pub fn switch(&mut self, number: u32) {
        let next = Self::new(number).current;
        self.older
            .push_back(std::mem::replace(&mut self.current, next));
    }

    /// Forgets the first segments, as long as these floors refuse all of their packets.
    pub fn forget_below(&mut self, floors: &[(GenerationId, Timestamp)]) {
        let floors: HashMap<_, _> = floors.iter().copied().collect();
        let is_needed = |segment: &SegmentPackets| {
            let mut newest = segment.newest.iter();
            newest.any(|(generation, at)| floors.get(generation) < Some(at))
        };
        while self.older.front().is_some_and(|first| !is_needed(first)) {
            self.older.pop_front();
        }
    }

    /// The number of the first segment that is needed: the current one at the latest.
    pub fn first(&self) -> u32 {
        self.older
            .front()
            .map_or(self.current.number, |first| first.number)
    }
}

fn prefix(id: PacketId) -> u64 {
    id.0.first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}
