//! All live grants, and the desired state of the kernel that follows from them.

use super::desired::Desired;
use super::grant::{AllowEntry, Grant, Target};
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// The grants of all keys. Whatever changes here changes [`GrantTable::desired`].
#[derive(Debug, Default)]
pub(super) struct GrantTable {
    /// Of each target, in the order of the keys' names; none is empty.
    at: BTreeMap<Target, Vec<Grant>>,
    ends: BTreeSet<(Duration, Target, Arc<KeyName>)>,
    /// How many each generation has; none is zero.
    counts: HashMap<GenerationId, u32>,
    /// What the kernel is to hold for them.
    pub(super) desired: Desired,
}

impl GrantTable {
    /// The key's grant for the target.
    pub(super) fn get(&self, key: &KeyName, target: Target) -> Option<&Grant> {
        let grants = self.at.get(&target)?;
        grants.iter().find(|grant| *grant.key == *key)
    }

    /// How many a generation has opened or renewed last.
    pub(super) fn count(&self, generation: GenerationId) -> usize {
        let count = self.counts.get(&generation).copied();
        count.map_or(0, |count| count as usize)
    }

    /// Opens the target. A grant that the key has already goes on: it keeps its beginning,
    /// and is never shortened. Returns the grant as it is now, and whether there was one.
    pub(super) fn open(&mut self, mut grant: Grant) -> (Grant, bool) {
        let earlier = self.remove(&grant.key, grant.target);
        if let Some(earlier) = &earlier {
            grant.opened = earlier.opened;
            grant.until = grant.until.max(earlier.until);
        }
        self.insert(grant.clone());
        self.refresh(grant.target);
        (grant, earlier.is_some())
    }

    /// Ends the key's grant for the target.
    pub(super) fn end(&mut self, key: &KeyName, target: Target) -> Option<Grant> {
        let ended = self.remove(key, target);
        if ended.is_some() {
            self.refresh(target);
        }
        ended
    }

    /// Ends the first grant whose time is over.
    pub(super) fn pop_expired(&mut self, now: Duration) -> Option<Grant> {
        let (until, target, key) = self.ends.first()?;
        if *until > now {
            return None;
        }
        let (target, key) = (*target, Arc::clone(key));
        let ended = self.remove(&key, target);
        if !self.at.contains_key(&target) {
            self.desired.expire(target);
        }
        ended
    }

    /// Ends those that are `meant`.
    pub(super) fn extract(&mut self, meant: impl Fn(&Grant) -> bool) -> Vec<Grant> {
        let meant: Vec<Grant> = self.iter().filter(|grant| meant(grant)).cloned().collect();
        for grant in &meant {
            self.end(&grant.key, grant.target);
        }
        meant
    }

    /// All, in the order of target and key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.at.values().flatten()
    }

    /// From the first on that comes after this one, in the order of target and key.
    pub(super) fn after<'g>(
        &'g self,
        after: Option<(Target, &'g KeyName)>,
    ) -> impl Iterator<Item = &'g Grant> {
        let start = after.map_or(Bound::Unbounded, |(target, _)| Bound::Included(target));
        let grants = self.at.range((start, Bound::Unbounded));
        let grants = grants.flat_map(|(_, grants)| grants);
        grants.filter(move |grant| after.is_none_or(|after| (grant.target, &*grant.key) > after))
    }

    /// Makes the target's allow entry that of the grant which ends last.
    pub(super) fn refresh(&mut self, target: Target) {
        let grants = self.at.get(&target).into_iter().flatten();
        let last = grants.max_by_key(|grant| grant.until);
        let entry = last.map(|grant| AllowEntry {
            key: Arc::clone(&grant.key),
            until: grant.until,
        });
        self.desired.set(target, entry);
    }

    fn insert(&mut self, grant: Grant) {
        let end = (grant.until, grant.target, Arc::clone(&grant.key));
        self.ends.insert(end);
        *self.counts.entry(grant.generation).or_default() += 1;
        let at = self.at.entry(grant.target);
        let grants = at.or_insert_with(|| Vec::with_capacity(1));
        let index = grants.partition_point(|other| other.key < grant.key);
        grants.insert(index, grant);
    }

    fn remove(&mut self, key: &KeyName, target: Target) -> Option<Grant> {
        let grants = self.at.get_mut(&target)?;
        let index = grants.iter().position(|grant| *grant.key == *key)?;
        let grant = grants.remove(index);
        if grants.is_empty() {
            self.at.remove(&target);
        }
        let end = (grant.until, target, Arc::clone(&grant.key));
        self.ends.remove(&end);
        if let Some(count) = self.counts.get_mut(&grant.generation) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&grant.generation);
            }
        }
        Some(grant)
    }
}
