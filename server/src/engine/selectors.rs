//! The table of selectors: one probe says whether a packet may be a key's.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::{Selector, Slot};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::RangeInclusive;

/// The table is filled this far ahead, in milliseconds.
const AHEAD_MS: u64 = 60_000;

/// Which generation's selector it is, and of which minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SelectorOwner {
    /// The generation's index.
    pub(super) generation: usize,
    /// The minute.
    pub(super) slot: Slot,
}

/// The selectors of all generations for the minutes that are current and the next. The keys
/// of the table are HMACs that nobody outside can choose; `SipHash` guards the probes.
#[derive(Debug, Default)]
pub(super) struct SelectorTable {
    slots: Option<RangeInclusive<u64>>,
    owners: HashMap<Selector, SelectorOwner>,
    /// The owners of selectors that another one has too: one in 2^64.
    equal: Vec<(Selector, SelectorOwner)>,
    /// Slots that came into the table since [`SelectorTable::take_new_slots`].
    new: Vec<Slot>,
}

impl SelectorTable {
    /// Whether every slot of `now - skew` to `now + skew` is in the table.
    pub(super) fn covers(&self, now: Timestamp, skew_ms: u64) -> bool {
        let want = Slot::around(now, skew_ms);
        let has = |slots: &RangeInclusive<u64>| {
            slots.contains(want.start()) && slots.contains(want.end())
        };
        self.slots.as_ref().is_some_and(has)
    }

    /// Makes the table hold the slots around `now` and those of the minute to come, and no
    /// others. Only the selectors of slots that were not there are computed.
    pub(super) fn cover<'k>(
        &mut self,
        now: Timestamp,
        skew_ms: u64,
        generations: &(impl Iterator<Item = (usize, &'k Subkeys)> + Clone),
    ) {
        let last = Timestamp(now.0.saturating_add(AHEAD_MS));
        let want = *Slot::around(now, skew_ms).start()..=*Slot::around(last, skew_ms).end();
        if self.slots.as_ref() == Some(&want) {
            return;
        }
        // With equal selectors the table is made again: which of them goes is not worth a rule.
        let had = self.slots.replace(want.clone());
        let had = had.filter(|_| self.equal.is_empty());
        if had.is_none() {
            self.owners.clear();
            self.equal.clear();
        }
        self.owners.retain(|_, owner| want.contains(&owner.slot.0));
        self.new.retain(|slot| want.contains(&slot.0));
        for slot in want.filter(|slot| !had.as_ref().is_some_and(|had| had.contains(slot))) {
            let slot = Slot(slot);
            for (generation, subkeys) in generations.clone() {
                let owner = SelectorOwner { generation, slot };
                self.insert(Selector::new(subkeys, slot), owner);
            }
            if !self.new.contains(&slot) {
                self.new.push(slot);
            }
        }
    }

    fn insert(&mut self, selector: Selector, owner: SelectorOwner) {
        match self.owners.entry(selector) {
            Entry::Vacant(free) => drop(free.insert(owner)),
            Entry::Occupied(_) => self.equal.push((selector, owner)),
        }
    }

    /// Whose it may be: nobody's, one generation's, or (two selectors may be equal) more.
    pub(super) fn probe(&self, selector: Selector) -> impl Iterator<Item = SelectorOwner> {
        let equal = self.equal.iter().filter(move |(of, _)| *of == selector);
        let owner = self.owners.get(&selector).copied();
        owner.into_iter().chain(equal.map(|(_, owner)| *owner))
    }

    /// Every selector in the table with its slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Selector, Slot)> {
        let all = self
            .owners
            .iter()
            .map(|(selector, owner)| (*selector, owner.slot));
        let equal = self.equal.iter();
        all.chain(equal.map(|(selector, owner)| (*selector, owner.slot)))
    }

    /// The slots that came into the table since the last call and are still in it.
    pub(super) fn take_new_slots(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oneknock_shared::secret::{Secret, ServerId};

    const MINUTE: u64 = 60_000;

    fn subkeys() -> Subkeys {
        let id = ServerId::generate().unwrap();
        Subkeys::derive(&Secret::generate().unwrap(), &id)
    }

    fn cover(selectors: &mut SelectorTable, now: u64, keys: &[Subkeys]) {
        selectors.cover(Timestamp(now), 30_000, &keys.iter().enumerate());
    }

    #[test]
    fn equal_selectors_have_both_their_owners() {
        // One secret in two generations has equal selectors.
        let keys = [subkeys(), subkeys()];
        let keys = [keys[0].clone(), keys[1].clone(), keys[0].clone()];
        let mut selectors = SelectorTable::default();
        for minute in [10, 11, 13, 10] {
            cover(&mut selectors, minute * MINUTE, &keys);
            let slot = Slot(minute);
            let owners = selectors.probe(Selector::new(&keys[0], slot));
            let owners: Vec<usize> = owners.map(|owner| owner.generation).collect();
            assert_eq!(owners, [0, 2]);
            let owners = selectors.probe(Selector::new(&keys[1], slot));
            assert_eq!(owners.count(), 1);
            assert_eq!(selectors.iter().count() % 3, 0);
        }
    }

    #[test]
    fn slot_is_new_once_and_again_when_it_came_back() {
        let (keys, mut selectors) = ([subkeys()], SelectorTable::default());
        cover(&mut selectors, 10 * MINUTE, &keys);
        assert_eq!(selectors.take_new_slots(), [Slot(9), Slot(10), Slot(11)]);
        cover(&mut selectors, 10 * MINUTE + 1, &keys);
        assert_eq!(selectors.take_new_slots(), []);
        cover(&mut selectors, 10 * MINUTE + 30_000, &keys);
        assert_eq!(selectors.take_new_slots(), [Slot(12)]);
        cover(&mut selectors, 100 * MINUTE, &keys);
        cover(&mut selectors, 10 * MINUTE, &keys);
        assert_eq!(selectors.take_new_slots(), [Slot(9), Slot(10), Slot(11)]);
    }
}
