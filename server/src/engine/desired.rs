//! What the kernel is to hold for the grants. The kernel's writer reads this state, not
//! a list of changes: what could not be written stays dirty and is written the next time.

use super::grant::{AllowEntry, Target};
use std::collections::{BTreeMap, BTreeSet};

/// The allow entries that are to stand, and which of them the kernel may not have yet.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Desired {
    allow: BTreeMap<Target, AllowEntry>,
    dirty: BTreeSet<Target>,
    /// Those of the dirty targets that the kernel holds nothing for.
    new: BTreeSet<Target>,
}

impl Desired {
    /// Makes the target's entry this one, or none; the kernel is to be told.
    pub fn set(&mut self, target: Target, entry: Option<AllowEntry>) {
        let before = match entry {
            Some(entry) => self.allow.insert(target, entry),
            None => self.allow.remove(&target),
        };
        if self.dirty.insert(target) && before.is_none() {
            self.new.insert(target);
        }
    }

    /// Removes the entry of a target whose time is over. The kernel has ended it by itself,
    /// unless the target is dirty: then the kernel may hold an earlier entry with more time,
    /// and the target stays dirty.
    pub fn expire(&mut self, target: Target) {
        self.allow.remove(&target);
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

    /// Whether the kernel holds nothing for this dirty target, as far as is known here: then
    /// an entry can be added without regard for an older one, which is cheaper.
    #[must_use]
    pub fn is_new(&self, target: &Target) -> bool {
        self.new.contains(target)
    }

    /// The kernel holds these targets as they are to stand.
    pub fn clean(&mut self, written: &[Target]) {
        for target in written {
            self.dirty.remove(target);
            self.new.remove(target);
        }
    }

    /// The kernel holds everything as it is to stand.
    pub fn clean_all(&mut self) {
        self.dirty.clear();
        self.new.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn target() -> Target {
        Target {
            service: "ssh".parse().unwrap(),
            source: "192.0.2.7".parse().unwrap(),
        }
    }

    fn entry() -> AllowEntry {
        AllowEntry {
            key: Arc::new("me".parse().unwrap()),
            until: Duration::from_secs(60),
        }
    }

    #[test]
    fn target_is_new_until_kernel_may_hold_an_entry() {
        let mut desired = Desired::default();
        assert!(!desired.is_new(&target()));
        // Twice before the kernel is told.
        for _ in 0..2 {
            desired.set(target(), Some(entry()));
            assert!(desired.is_new(&target()));
        }
        desired.clean(&[target()]);
        assert!(!desired.is_new(&target()));
        desired.set(target(), Some(entry()));
        assert!(!desired.is_new(&target()));
        // A removal that the kernel was not told yet.
        desired.set(target(), None);
        desired.set(target(), Some(entry()));
        assert!(!desired.is_new(&target()));
        desired.clean_all();
        desired.set(target(), None);
        desired.clean_all();
        desired.set(target(), Some(entry()));
        assert!(desired.is_new(&target()));
        desired.clean_all();
        desired.expire(target());
        assert!(desired.dirty().is_empty());
        desired.set(target(), Some(entry()));
        assert!(desired.is_new(&target()));
    }
}
