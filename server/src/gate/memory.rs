//! What a gate knows that must outlive the process.

use super::replay::Replay;
use super::{Change, Gate, Now, Place};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// In the place of a generation: all of which there is no record. No secret has this
/// identity but by a chance of one in 2^128.
const UNKNOWN: GenerationId = GenerationId([0; 16]);

/// A live claim: who opened what for whom, until when on the clock that never jumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The generation that opened it, so that another key under an old name inherits
    /// nothing.
    pub generation: GenerationId,
    /// The key's name then.
    pub key: KeyName,
    /// What is opened for whom.
    pub place: Place,
    /// Since boot.
    pub until: Duration,
}

/// Everything of an earlier run that bears on what is accepted now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Memory {
    /// The packets that could still pass the time window.
    pub seen: Vec<(GenerationId, Timestamp, PacketId)>,
    /// Below which nothing is accepted.
    pub floors: Vec<(GenerationId, Timestamp)>,
    /// Each key's last close of a place.
    pub closes: Vec<(KeyName, Place, Timestamp)>,
    /// The claims that have not ended.
    pub claims: Vec<Claim>,
    /// When older generations end, since a newer one was used.
    pub retires: Vec<(GenerationId, Timestamp)>,
}

/// What was forgotten since the last time: the ledger may forget it too, once it has the
/// floors.
#[derive(Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Packets and closes below this are not needed any more.
    pub oldest: Timestamp,
    /// The floors that were raised.
    pub floors: Vec<(GenerationId, Timestamp)>,
}

/// Claims that ended before their time.
#[derive(Debug, Default)]
pub struct Lost {
    /// What to change in the firewall.
    pub changes: Vec<Change>,
    /// Which claims ended.
    pub claims: Vec<(Arc<KeyName>, Place)>,
}

impl Gate {
    /// Takes note of what an earlier run knew, but for its claims: [`Gate::resume`].
    pub fn restore(&mut self, memory: &Memory) {
        for &(generation, at, id) in &memory.seen {
            self.replay.entry(generation).or_default().restore(at, id);
        }
        for &(generation, floor) in &memory.floors {
            let replay = self.replay.entry(generation).or_default();
            replay.raise_floor(floor);
        }
        self.restore_retiring(&memory.retires);
        for (key, place, at) in &memory.closes {
            let last = self.closes.entry((Arc::new(key.clone()), *place));
            let last = last.or_insert(*at);
            *last = (*last).max(*at);
        }
    }

    /// Accepts nothing that is not later than this, from any generation that there is, that
    /// was there once, or that comes in later without a record: [`Gate::cover_new`].
    pub fn raise_floors(&mut self, floor: Timestamp) {
        let there = self.generations.iter().map(|g| g.subkeys.id());
        let known = there.chain(self.replay.keys().copied()).chain([UNKNOWN]);
        for id in known.collect::<BTreeSet<_>>() {
            self.raise_floor(id, floor);
        }
    }

    fn raise_floor(&mut self, id: GenerationId, floor: Timestamp) {
        if self.replay.entry(id).or_default().raise_floor(floor) {
            self.raised.insert(id);
        }
    }

    /// A generation of which there is no record may have been away when a state was lost: its
    /// file had a mistake, or another name. It has the floor of that time, but never waits for
    /// longer than one skew: one that is really new is the remedy for a floor that is wrong.
    /// For a start, after [`Gate::restore`]; whoever calls [`Gate::reconfigure`] has it done.
    pub fn cover_new(&mut self, now: Now) {
        let Some(floor) = self.replay.get(&UNKNOWN).and_then(Replay::floor) else {
            return;
        };
        let floor = floor.min(Timestamp(now.wall.0.saturating_add(self.skew_ms)));
        let ids: Vec<_> = self.generations.iter().map(|g| g.subkeys.id()).collect();
        for id in ids {
            if !self.replay.contains_key(&id) {
                self.raise_floor(id, floor);
            }
        }
    }

    /// Takes up the claims of an earlier run. One whose generation is gone, has ended,
    /// or belongs to a key of another name now, is lost.
    pub fn resume(&mut self, now: Now, claims: &[Claim]) -> Lost {
        let mut lost = Lost::default();
        let generations = self.generations.iter().filter(|g| !g.has_ended(now));
        let owners: BTreeMap<_, _> = generations.map(|g| (g.subkeys.id(), g.key)).collect();
        for claim in claims {
            let owner = owners.get(&claim.generation).map(|&at| &self.keys[at].name);
            if let Some(key) = owner.filter(|name| ***name == claim.key) {
                self.claims.adopt(key, claim.place, claim.until);
            } else {
                let key = Arc::new(claim.key.clone());
                lost.claims.push((key, claim.place));
            }
        }
        lost
    }

    /// What was forgotten since the last call, and now: what is older than `oldest` is
    /// covered by the floors that were told, in this call or an earlier one.
    pub fn forgotten(&mut self, now: Now) -> Forgotten {
        self.tick(now);
        let raised = std::mem::take(&mut self.raised);
        let floor = |id: GenerationId| Some((id, self.replay.get(&id)?.floor()?));
        Forgotten {
            oldest: self.oldest(now),
            floors: raised.into_iter().filter_map(floor).collect(),
        }
    }

    /// Takes back what [`Gate::forgotten`] has told, since it could not be written: it is
    /// told again.
    pub fn remind(&mut self, forgotten: &Forgotten) {
        self.raised
            .extend(forgotten.floors.iter().map(|(id, _)| *id));
    }

    /// Everything that a ledger must hold, for one that was lost.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for (&id, replay) in &self.replay {
            memory.seen.extend(replay.seen().map(|(at, p)| (id, at, p)));
            memory
                .floors
                .extend(replay.floor().map(|floor| (id, floor)));
        }
        memory.retires = self.retires.iter().map(|(&id, &at)| (id, at)).collect();
        let closes = self.closes.iter();
        memory.closes = closes
            .map(|((key, place), at)| ((**key).clone(), *place, *at))
            .collect();
        let names = self.generations.iter().map(|g| {
            let name = Arc::clone(&self.keys[g.key].name);
            (name, g.subkeys.id())
        });
        let names: BTreeMap<_, _> = names.collect();
        for (key, place, until) in self.claims.iter() {
            memory
                .claims
                .extend(names.get(key).map(|&generation| Claim {
                    generation,
                    key: (**key).clone(),
                    place,
                    until,
                }));
        }
        memory
    }
}
