//! What is spent, and the replay floors below which nothing is accepted.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::collections::{BTreeMap, HashMap};

/// More packets of one generation are not remembered at a time: further ones are refused,
/// and none is forgotten. The generation's rate keeps it far from that.
const MAX_SEEN: u32 = 1 << 21;

/// What is known of one generation's past. There is none of a generation that was never used.
#[derive(Debug, Default, Clone, Copy)]
struct Past {
    /// How many of its packets are remembered.
    seen: u32,
    /// Nothing that is not later is accepted.
    floor: Option<Timestamp>,
}

/// The replay cache of all generations, those that are gone too: they may come back.
///
/// A floor follows the packets, never the clock: it is the greatest timestamp that was
/// pruned. A clock that was a year ahead for a moment locks nobody out.
#[derive(Debug, Default)]
pub(super) struct ReplayCache {
    seen: BTreeMap<(Timestamp, PacketId), GenerationId>,
    records: HashMap<GenerationId, Past>,
}

impl ReplayCache {
    /// Whether the generation's floor forbids this timestamp.
    pub(super) fn is_below_floor(&self, generation: GenerationId, at: Timestamp) -> bool {
        let record = self.records.get(&generation);
        record.is_some_and(|record| record.floor.is_some_and(|floor| at <= floor))
    }

    /// Whether this very packet was seen.
    pub(super) fn has(&self, at: Timestamp, id: PacketId) -> bool {
        self.seen.contains_key(&(at, id))
    }

    /// Remembers a packet that was not seen before; false where there is no room.
    pub(super) fn insert(&mut self, generation: GenerationId, at: Timestamp, id: PacketId) -> bool {
        let record = self.records.entry(generation).or_default();
        if record.seen >= MAX_SEEN {
            return false;
        }
        let is_new = self.seen.insert((at, id), generation).is_none();
        record.seen += u32::from(is_new);
        is_new
    }

    /// Remembers a packet that was spent in an earlier run, room or not.
    pub(super) fn restore(&mut self, generation: GenerationId, at: Timestamp, id: PacketId) {
        let record = self.records.entry(generation).or_default();
        let is_new = self.seen.insert((at, id), generation).is_none();
        record.seen = record.seen.saturating_add(u32::from(is_new));
    }

    /// Forgets what is older than `oldest`; the floors keep it out from then on.
    pub(super) fn prune(&mut self, oldest: Timestamp) {
        while let Some(first) = self.seen.first_entry()
            && first.key().0 < oldest
        {
            let ((at, _), generation) = first.remove_entry();
            let record = self.records.entry(generation).or_default();
            record.seen = record.seen.saturating_sub(1);
            record.floor = record.floor.max(Some(at));
        }
    }

    /// Raises a generation's floor to at least this.
    pub(super) fn raise_floor(&mut self, generation: GenerationId, floor: Timestamp) {
        let record = self.records.entry(generation).or_default();
        record.floor = record.floor.max(Some(floor));
    }

    /// Raises the floor of every generation of which there is a record.
    pub(super) fn raise_all(&mut self, floor: Timestamp) {
        for record in self.records.values_mut() {
            record.floor = record.floor.max(Some(floor));
        }
    }

    /// Whether there is a record of the generation: it was used, or has a floor.
    pub(super) fn has_record(&self, generation: GenerationId) -> bool {
        self.records.contains_key(&generation)
    }

    /// Everything that is remembered, the oldest first.
    pub(super) fn seen(&self) -> impl Iterator<Item = (GenerationId, Timestamp, PacketId)> {
        let seen = self.seen.iter();
        seen.map(|(&(at, id), &generation)| (generation, at, id))
    }

    /// Every floor.
    pub(super) fn floors(&self) -> impl Iterator<Item = (GenerationId, Timestamp)> {
        let records = self.records.iter();
        records.filter_map(|(&generation, record)| Some((generation, record.floor?)))
    }
}
