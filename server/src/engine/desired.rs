//! What the kernel is to hold for the grants. Whoever writes it there reads this state, not
//! a list of changes: what could not be written stays dirty and is written the next time.

use super::grant::{AllowEntry, Target};
use std::collections::{BTreeMap, BTreeSet};

/// The allow entries that are to stand, and which of them the kernel may not have yet.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Desired {
    allow: BTreeMap<Target, AllowEntry>,
    dirty: BTreeSet<Target>,
}

impl Desired {
    /// Makes the target's entry this one, or none; the kernel is to be told.
    pub fn set(&mut self, target: Target, entry: Option<AllowEntry>) {
        match entry {
            Some(entry) => drop(self.allow.insert(target, entry)),
            None => drop(self.allow.remove(&target)),
        }
        self.dirty.insert(target);
    }

    /// Removes the entry of a target whose time is over: the kernel has ended it by itself.
    pub fn expire(&mut self, target: Target) {
        self.allow.remove(&target);
        self.dirty.remove(&target);
    }

    /// Every entry that is to stand.
    #[must_use]
    pub fn allow(&self) -> &BTreeMap<Target, AllowEntry> {
        &self.allow
    }

    /// The targets that the kernel may not hold as they are to stand: each with an entry in
    /// [`Desired::allow`], or to be removed where there is none.
    #[must_use]
    pub fn dirty(&self) -> &BTreeSet<Target> {
        &self.dirty
    }

    /// The kernel holds these targets as they are to stand.
    pub fn clean(&mut self, written: &[Target]) {
        for target in written {
            self.dirty.remove(target);
        }
    }

    /// The kernel holds everything as it is to stand.
    pub fn clean_all(&mut self) {
        self.dirty.clear();
    }
}
