//! A rotation that finishes by itself: when a newer generation of a key is first used,
//! the end of the older ones is brought forward.
//!
//! Only of those whose file names an end, as `oneknockctl key rotate` writes it. The
//! daemon does not write key files: what it brings forward is in the ledger.

use super::{Accepted, Gate, Generation, Now};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use std::collections::BTreeMap;

/// An older generation that ends, since a newer one was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Which.
    pub generation: GenerationId,
    /// Its number.
    pub number: u32,
    /// Its end, as it is from now on.
    pub at: Timestamp,
    /// Its end, as it was.
    was: Option<Timestamp>,
}

/// When a generation ends that the key's file gives this end, and that retires then.
#[must_use]
pub fn end(not_after: Option<Timestamp>, retires: Option<Timestamp>) -> Option<Timestamp> {
    not_after.map(|end| retires.map_or(end, |retires| retires.min(end)))
}

impl Generation {
    pub(super) fn has_ended(&self, now: Now) -> bool {
        self.not_after.is_some_and(|last| now.wall > last)
    }
}

impl Gate {
    /// Brings the end of the generations forward that are older than this one of the same
    /// key; of each once.
    pub(super) fn retire_older(&mut self, index: usize, now: Timestamp) -> Vec<Retired> {
        let (key, number) = (self.generations[index].key, self.generations[index].number);
        let at = Timestamp(now.0.saturating_add(self.grace_ms));
        // Those of a key stand together.
        let first = self.generations[..index].iter().rposition(|g| g.key != key);
        let first = first.map_or(0, |other| other + 1);
        let own = self.generations[first..].iter_mut();
        let older = own
            .take_while(|g| g.key == key)
            .filter(|g| g.number < number);
        let mut retired = Vec::new();
        for generation in older {
            let id = generation.subkeys.id();
            let was = generation.not_after;
            if was.is_some() && !self.retires.contains_key(&id) {
                self.retires.insert(id, at);
                generation.not_after = end(was, Some(at));
                retired.push(Retired {
                    generation: id,
                    number: generation.number,
                    at: generation.not_after.unwrap_or(at),
                    was,
                });
            }
        }
        retired
    }

    /// Takes that back, since the packet came to nothing.
    pub(super) fn unretire(&mut self, accepted: &Accepted) {
        for retired in &accepted.retired {
            self.retires.remove(&retired.generation);
            let own = |g: &&mut Generation| g.subkeys.id() == retired.generation;
            if let Some(generation) = self.generations.iter_mut().find(own) {
                generation.not_after = retired.was;
            }
        }
    }

    /// The generations that have not ended, each with its key.
    #[must_use]
    pub fn in_force(&self, now: Now) -> BTreeMap<GenerationId, KeyName> {
        let lasting = self.generations.iter().filter(|g| !g.has_ended(now));
        let named = lasting.map(|g| (g.subkeys.id(), (*self.keys[g.key].name).clone()));
        named.collect()
    }

    /// Takes note of what an earlier run brought forward.
    pub(super) fn restore_retiring(&mut self, retires: &[(GenerationId, Timestamp)]) {
        self.retires.extend(retires.iter().copied());
        for generation in &mut self.generations {
            let retires = self.retires.get(&generation.subkeys.id()).copied();
            generation.not_after = end(generation.not_after, retires);
        }
    }
}
