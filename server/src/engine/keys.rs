//! The keys and their generations as the rules have them, and how they are found.

use super::Now;
use super::rules::{GenerationRules, KeyRules};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use std::collections::HashMap;
use std::ops::Range;

/// A generation that ended longer ago than this is not even looked up, in milliseconds.
const LOOK_UP_ENDED_MS: u64 = 30 * 24 * 3600 * 1000;

/// A generation of a key, as it is now.
#[derive(Clone, Copy)]
pub struct GenerationView<'k> {
    /// Its key.
    pub key: &'k KeyRules,
    /// Its number, subkeys and validity as the rules have them.
    pub rules: &'k GenerationRules,
    /// Valid up to and including then: its `not_after`, or the earlier end that the use of a
    /// newer generation has given it. For ever, where there is none.
    pub ends: Option<Timestamp>,
}

impl GenerationView<'_> {
    /// Whether it is not valid yet.
    #[must_use]
    pub fn is_early(&self, now: Now) -> bool {
        let first = self.rules.not_before;
        first.is_some_and(|first| now.wall < first)
    }

    /// Whether it is valid no longer.
    #[must_use]
    pub fn has_ended(&self, now: Now) -> bool {
        self.ends.is_some_and(|last| now.wall > last)
    }
}

/// Where the rules of a generation are, and its end, which its rules alone do not give.
struct Position {
    key: usize,
    /// Its index among the key's generations.
    nth: usize,
    ends: Option<Timestamp>,
}

impl Position {
    fn has_ended(&self, now: Now) -> bool {
        self.ends.is_some_and(|last| now.wall > last)
    }
}

/// All keys. A generation has an index that is the same until the rules change.
#[derive(Default)]
pub(super) struct KeyTable {
    /// In the order of their names.
    rules: Vec<KeyRules>,
    /// Those of one key stand together.
    positions: Vec<Position>,
    by_id: HashMap<GenerationId, usize>,
}

impl KeyTable {
    /// The keys of these rules. `retires` says of a generation whether, and when, the use of
    /// a newer one ends it.
    pub(super) fn new(
        mut keys: Vec<KeyRules>,
        retires: impl Fn(GenerationId) -> Option<Timestamp>,
    ) -> Self {
        keys.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let count = keys.iter().map(|key| key.generations.len()).sum();
        let mut positions = Vec::with_capacity(count);
        let mut by_id = HashMap::with_capacity(count);
        for (key, rules) in keys.iter().enumerate() {
            for (nth, generation) in rules.generations.iter().enumerate() {
                let id = generation.subkeys.id();
                by_id.entry(id).or_insert(positions.len());
                let ends = generation
                    .not_after
                    .map(|end| retires(id).map_or(end, |at| at.min(end)));
                positions.push(Position { key, nth, ends });
            }
        }
        Self {
            rules: keys,
            positions,
            by_id,
        }
    }

    /// The generation of this index; none where its key was removed since.
    pub(super) fn at(&self, index: usize) -> Option<GenerationView<'_>> {
        let position = self.positions.get(index)?;
        let key = self.rules.get(position.key)?;
        Some(GenerationView {
            key,
            rules: key.generations.get(position.nth)?,
            ends: position.ends,
        })
    }

    /// The index of a generation.
    pub(super) fn index_of(&self, id: GenerationId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    /// The generation, unless it has ended.
    pub(super) fn live(&self, id: GenerationId, now: Now) -> Option<GenerationView<'_>> {
        let generation = self.at(self.index_of(id)?)?;
        (!generation.has_ended(now)).then_some(generation)
    }

    /// Every generation with its index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, GenerationView<'_>)> + Clone {
        let all = 0..self.positions.len();
        all.filter_map(|index| Some((index, self.at(index)?)))
    }

    /// Those that have ended.
    pub(super) fn ended(&self, now: Now) -> impl Iterator<Item = GenerationView<'_>> {
        let positions = self.positions.iter().enumerate();
        // Nearly all have no end, and their rules are not looked at.
        let ended = positions.filter(move |(_, position)| position.has_ended(now));
        ended.filter_map(|(index, _)| self.at(index))
    }

    /// Those whose selectors are looked up: all but those that ended long ago.
    pub(super) fn looked_up(
        &self,
        now: Now,
    ) -> impl Iterator<Item = (usize, GenerationView<'_>)> + Clone {
        self.iter().filter(move |(_, generation)| {
            let end = generation.ends;
            end.is_none_or(|end| now.wall.0 <= end.0.saturating_add(LOOK_UP_ENDED_MS))
        })
    }

    /// The indices of the generations of the key that has this one.
    pub(super) fn siblings(&self, index: usize) -> Range<usize> {
        let (Some(position), Some(generation)) = (self.positions.get(index), self.at(index)) else {
            return 0..0;
        };
        let first = index - position.nth;
        first..first + generation.key.generations.len()
    }

    /// What tells the generations of the key of this name apart.
    pub(super) fn ids_of(&self, name: &KeyName) -> impl Iterator<Item = GenerationId> {
        let key = self.find(name).and_then(|at| self.rules.get(at));
        let generations = key.into_iter().flat_map(|key| &key.generations);
        generations.map(|generation| generation.subkeys.id())
    }

    fn find(&self, name: &KeyName) -> Option<usize> {
        self.rules
            .binary_search_by(|key| (*key.name).cmp(name))
            .ok()
    }

    /// Brings the end of a generation forward.
    pub(super) fn bring_end_forward(&mut self, index: usize, to: Timestamp) {
        if let Some(position) = self.positions.get_mut(index) {
            position.ends = position.ends.map(|end| end.min(to));
        }
    }

    /// Removes the generations of the key of this name, and their secrets.
    pub(super) fn remove(&mut self, name: &KeyName) {
        let at = self.find(name);
        if let Some(key) = at.and_then(|at| self.rules.get_mut(at)) {
            for generation in std::mem::take(&mut key.generations) {
                self.by_id.remove(&generation.subkeys.id());
            }
        }
    }
}
