//! What was seen of one generation, and the floor below which nothing is accepted.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::{PacketId, Request};
use std::collections::BTreeSet;

/// More packets than this of one generation are not remembered at a time: when the
/// cache is full, further ones are refused, never forgotten. The key's rate keeps it
/// far from full.
const MOST: usize = 1 << 21;

/// The replay cache of one generation.
///
/// The floor follows the packets, never the clock: it is the greatest timestamp that was
/// pruned. A clock that was a year ahead for a moment locks nobody out.
#[derive(Debug, Default)]
pub struct Replay {
    seen: BTreeSet<(Timestamp, PacketId)>,
    floor: Option<Timestamp>,
}

impl Replay {
    /// Whether the floor forbids this timestamp.
    #[must_use]
    pub fn is_below_floor(&self, at: Timestamp) -> bool {
        self.floor.is_some_and(|floor| at <= floor)
    }

    /// Whether this very packet was seen.
    #[must_use]
    pub fn has(&self, request: &Request) -> bool {
        self.seen.contains(&(request.timestamp(), request.id()))
    }

    /// Remembers a packet; false where there is no room.
    pub fn remember(&mut self, request: &Request) -> bool {
        self.seen.len() < MOST && self.seen.insert((request.timestamp(), request.id()))
    }

    /// Forgets what is older than `oldest`; the floor keeps it out from then on. Returns
    /// whether the floor was raised.
    pub fn prune(&mut self, oldest: Timestamp) -> bool {
        let mut raised = false;
        while let Some(&(at, id)) = self.seen.first() {
            if at >= oldest {
                break;
            }
            self.seen.remove(&(at, id));
            raised |= self.raise_floor(at);
        }
        raised
    }

    /// Takes note of a packet that was accepted in an earlier run.
    pub fn restore(&mut self, at: Timestamp, id: PacketId) {
        self.seen.insert((at, id));
    }

    /// Everything that is remembered.
    pub fn seen(&self) -> impl Iterator<Item = (Timestamp, PacketId)> {
        self.seen.iter().copied()
    }

    /// Nothing that is not later is accepted.
    #[must_use]
    pub fn floor(&self) -> Option<Timestamp> {
        self.floor
    }

    /// Raises the floor to at least this. Returns whether it was lower.
    pub fn raise_floor(&mut self, floor: Timestamp) -> bool {
        let raised = self.floor < Some(floor);
        self.floor = self.floor.max(Some(floor));
        raised
    }
}
