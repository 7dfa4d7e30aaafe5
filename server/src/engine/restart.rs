//! What outlives the process: read back before the first packet, and written for the store.

use super::event::{EndReason, Event};
use super::state::State;
use super::{Engine, Now};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use std::sync::Arc;

impl Engine {
    /// Takes over what an earlier run knew, before the first packet. Its grants go on
    /// ([`Event::Restored`]), but for those whose time is over or whose key has no right to
    /// them any more ([`Event::Ended`]).
    pub fn load(&mut self, state: State, now: Now) {
        for (generation, at, id) in state.seen {
            self.replay.restore(generation, at, id);
        }
        for (generation, floor) in state.floors {
            self.replay.raise_floor(generation, floor);
        }
        self.default_floor = self.default_floor.max(state.default_floor);
        for close in state.closes {
            let key = Arc::new(close.key);
            self.closes
                .insert(&key, close.service, close.source, close.at);
        }
        for (generation, ends) in state.retirements {
            self.retirements.insert(generation, ends);
            if let Some(index) = self.keys.index_of(generation) {
                self.keys.bring_end_forward(index, ends);
            }
        }
        self.apply_default_floor(now);
        for grant in state.grants {
            let event = if grant.until <= now.mono {
                let why = EndReason::Expired;
                Event::Ended { grant, why }
            } else if self.is_entitled(&grant, now) {
                Event::Restored(self.grants.open(grant).0)
            } else {
                // The kernel may hold its entry still.
                self.grants.refresh(grant.target);
                let why = EndReason::KeyChanged;
                Event::Ended { grant, why }
            };
            self.events.push(event);
        }
        self.tick(now);
    }

    /// Accepts nothing that is not later than `floor`, of any generation that is known, that
    /// was known, or that comes in later without a record: the last for a skew at most, see
    /// [`Engine::reconfigure`].
    pub fn raise_floors(&mut self, floor: Timestamp) {
        for (_, generation) in self.keys.iter() {
            let id = generation.rules.subkeys.id();
            self.replay.raise_floor(id, floor);
        }
        self.replay.raise_all(floor);
        self.default_floor = self.default_floor.max(Some(floor));
    }

    /// A generation of which there is no record may have been away when a state was lost: its
    /// file was invalid, or had another name. It has the floor of that time, but never waits
    /// for longer than one skew: one that is really new is the remedy for a floor that is
    /// wrong.
    pub(super) fn apply_default_floor(&mut self, now: Now) {
        let Some(floor) = self.default_floor else {
            return;
        };
        let floor = floor.min(Timestamp(now.wall.0.saturating_add(self.skew_ms)));
        for (_, generation) in self.keys.iter() {
            let id = generation.rules.subkeys.id();
            if !self.replay.has_record(id) {
                self.replay.raise_floor(id, floor);
            }
        }
    }

    /// The replay floors that the log may not have: those that [`Engine::reconfigure`] gave to
    /// generations without a record, since a state was lost.
    #[must_use]
    pub fn floors_without_record(&self) -> Vec<(GenerationId, Timestamp)> {
        let lost = self.default_floor.is_some();
        self.replay.floors().filter(|_| lost).collect()
    }

    /// Everything that the store must hold, for a new segment of its log.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> State {
        let live = self.grants.iter().filter(|grant| grant.until > now.mono);
        State {
            seen: self.replay.seen().collect(),
            floors: self.replay.floors().collect(),
            default_floor: self.default_floor,
            closes: self.closes.iter().collect(),
            grants: live.cloned().collect(),
            retirements: self.retirements.iter().map(|(&id, &at)| (id, at)).collect(),
        }
    }
}
