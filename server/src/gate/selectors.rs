//! The table of selectors: one probe says whether a packet may be anybody's.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::{Selector, Slot};
use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

/// The table is filled this far ahead, in milliseconds.
const AHEAD_MS: u64 = 60_000;

/// Whose selector it is, and in which minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The generation's index.
    pub generation: usize,
    /// The minute.
    pub slot: Slot,
}

/// The selectors of all generations for the minutes in force and the next. The keys of
/// the table are HMACs that nobody outside can choose; `SipHash` guards the probes.
#[derive(Debug, Default)]
pub struct Selectors {
    slots: Option<RangeInclusive<u64>>,
    owners: HashMap<Selector, Vec<Owner>>,
}

impl Selectors {
    /// Whether every slot of `now - skew` to `now + skew` is in the table.
    pub fn covers(&self, now: Timestamp, skew_ms: u64) -> bool {
        let want = Slot::around(now, skew_ms);
        let has = |slots: &RangeInclusive<u64>| {
            slots.contains(want.start()) && slots.contains(want.end())
        };
        self.slots.as_ref().is_some_and(has)
    }

    /// Makes the table hold the slots around `now` and those of the minute to come, and
    /// no others. Only the slots that were not there are computed.
    pub fn cover<'k>(
        &mut self,
        now: Timestamp,
        skew_ms: u64,
        keys: &(impl Iterator<Item = (usize, &'k Subkeys)> + Clone),
    ) {
        let last = Timestamp(now.0.saturating_add(AHEAD_MS));
        let want = *Slot::around(now, skew_ms).start()..=*Slot::around(last, skew_ms).end();
        if self.slots.as_ref() == Some(&want) {
            return;
        }
        self.owners.retain(|_, owners| {
            owners.retain(|owner| want.contains(&owner.slot.0));
            !owners.is_empty()
        });
        let had = self.slots.replace(want.clone());
        for slot in want.filter(|slot| !had.as_ref().is_some_and(|had| had.contains(slot))) {
            let slot = Slot(slot);
            for (generation, subkeys) in keys.clone() {
                let owners = self.owners.entry(Selector::new(subkeys, slot)).or_default();
                owners.push(Owner { generation, slot });
            }
        }
    }

    /// The slots that are in the table.
    pub fn slots(&self) -> BTreeSet<u64> {
        self.slots.iter().cloned().flatten().collect()
    }

    /// Every selector in the table, with its slot; where two are equal, with each.
    pub fn all(&self) -> impl Iterator<Item = (Selector, Slot)> {
        let all = self.owners.iter();
        all.flat_map(|(selector, owners)| owners.iter().map(|owner| (*selector, owner.slot)))
    }

    /// Whose it may be: none, one, or (two selectors may be equal) more.
    pub fn probe(&self, selector: Selector) -> &[Owner] {
        self.owners.get(&selector).map_or(&[], Vec::as_slice)
    }
}
