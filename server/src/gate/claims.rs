//! Grants as claims: (key, service, address, until). An address is admitted until the
//! latest of its claims; a close removes the claims of its own key only.

use super::memory::Lost;
use oneknock_shared::name::{KeyName, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// What a grant admits to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The service.
    pub service: ServiceName,
    /// The admitted address, never an IPv4-mapped one.
    pub address: IpAddr,
}

/// What the firewall has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Admit the address for this time from now; more than zero.
    Admit {
        /// Who to where.
        place: Place,
        /// The key to name in the set's comment: the one whose claim lasts longest.
        key: Arc<KeyName>,
        /// How long from now.
        time: Duration,
    },
    /// Admit the address no longer.
    Shut {
        /// Who to where.
        place: Place,
    },
}

/// One claim as it was before a packet: what [`Claims::undo`] restores.
pub type Before = (Place, Option<Duration>);

/// All claims. Times are of the clock that never jumps.
#[derive(Debug, Default)]
pub struct Claims {
    at: BTreeMap<Place, BTreeMap<Arc<KeyName>, Duration>>,
    ends: BTreeSet<(Duration, Place, Arc<KeyName>)>,
    of_key: BTreeMap<Arc<KeyName>, BTreeSet<Place>>,
    /// Who ceased to be admitted to anything since [`Claims::take_left`].
    left: BTreeSet<IpAddr>,
    /// Which claims have ended in their time since [`Claims::take_over`].
    over: Vec<(Arc<KeyName>, Place)>,
}

impl Claims {
    /// Sets or removes one claim in all three tables. Returns it as it was.
    fn set(
        &mut self,
        key: &Arc<KeyName>,
        place: Place,
        until: Option<Duration>,
    ) -> Option<Duration> {
        let own = self.of_key.entry(Arc::clone(key)).or_default();
        let claims = self.at.entry(place).or_default();
        let before = if let Some(until) = until {
            own.insert(place);
            claims.insert(Arc::clone(key), until)
        } else {
            own.remove(&place);
            claims.remove(key)
        };
        if own.is_empty() {
            self.of_key.remove(key);
        }
        if claims.is_empty() {
            self.at.remove(&place);
            self.left.insert(place.address);
        }
        if let Some(before) = before {
            self.ends.remove(&(before, place, Arc::clone(key)));
        }
        if let Some(until) = until {
            self.ends.insert((until, place, Arc::clone(key)));
        }
        before
    }

    fn until(&self, key: &Arc<KeyName>, place: Place) -> Option<Duration> {
        self.at.get(&place)?.get(key).copied()
    }

    /// What the firewall must do so that the place stands as its claims say.
    pub(super) fn change(&self, now: Duration, place: Place) -> Change {
        let claims = self.at.get(&place).into_iter().flatten();
        let lasting = claims.max_by_key(|(_, until)| **until);
        match lasting.filter(|(_, until)| **until > now) {
            Some((key, &until)) => {
                let (key, time) = (Arc::clone(key), until.saturating_sub(now));
                Change::Admit { place, key, time }
            }
            None => Change::Shut { place },
        }
    }

    /// A claim for `time` from now; an earlier one of the same key is never shortened.
    /// Returns the change and the claim as it was.
    pub fn admit(
        &mut self,
        now: Duration,
        key: &Arc<KeyName>,
        place: Place,
        time: Duration,
    ) -> (Change, Before) {
        let had = self.until(key, place);
        let until = had.unwrap_or_default().max(now.saturating_add(time));
        let before = self.set(key, place, Some(until));
        (self.change(now, place), (place, before))
    }

    /// Removes the key's claim. Returns the change and the claim as it was.
    pub fn withdraw(
        &mut self,
        now: Duration,
        key: &Arc<KeyName>,
        place: Place,
    ) -> (Change, Before) {
        let before = self.set(key, place, None);
        (self.change(now, place), (place, before))
    }

    /// Restores the key's claims as they were.
    pub fn undo(&mut self, key: &Arc<KeyName>, before: &[Before]) {
        for &(place, until) in before {
            self.set(key, place, until);
        }
    }

    /// Takes note of a claim that the kernel already knows.
    pub fn adopt(&mut self, key: &Arc<KeyName>, place: Place, until: Duration) {
        self.set(key, place, Some(until));
    }

    /// Forgets what has ended.
    pub fn expire(&mut self, now: Duration) {
        while let Some((until, place, key)) = self.ends.first().cloned() {
            if until > now {
                return;
            }
            self.set(&key, place, None);
            self.over.push((key, place));
        }
    }

    /// The claims that have ended in their time since the last call.
    pub fn take_over(&mut self) -> Vec<(Arc<KeyName>, Place)> {
        std::mem::take(&mut self.over)
    }

    /// Whether the key has a live claim there.
    #[must_use]
    pub fn has(&self, now: Duration, key: &Arc<KeyName>, place: Place) -> bool {
        self.until(key, place).is_some_and(|until| until > now)
    }

    /// The number of the key's claims; live ones alone after [`Claims::expire`].
    #[must_use]
    pub fn count_of(&self, key: &Arc<KeyName>) -> usize {
        self.of_key.get(key).map_or(0, BTreeSet::len)
    }

    /// Removes the claims that are no longer allowed.
    pub fn retain(&mut self, now: Duration, allowed: impl Fn(&KeyName, &Place) -> bool) -> Lost {
        let claims = self.iter().map(|(key, place, _)| (Arc::clone(key), place));
        let gone: Vec<_> = claims.filter(|(key, place)| !allowed(key, place)).collect();
        for (key, place) in &gone {
            self.set(key, *place, None);
        }
        let changes = gone.iter().map(|(_, place)| self.change(now, *place));
        Lost {
            changes: changes.collect(),
            claims: gone,
        }
    }

    /// Every claim and when it ends, the first to end first.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<KeyName>, Place, Duration)> {
        self.ends
            .iter()
            .map(|(until, place, key)| (key, *place, *until))
    }

    /// Whether anybody's claim admits the place.
    #[must_use]
    pub fn admits(&self, now: Duration, place: Place) -> bool {
        let mut claims = self.at.get(&place).into_iter().flatten();
        claims.any(|(_, until)| *until > now)
    }

    /// The addresses that have lost a place since the last call.
    pub fn take_left(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.left)
    }

    /// Live claims in the order of place and key, with the time that they have left,
    /// from the first on that comes after this one.
    pub fn after<'c>(
        &'c self,
        now: Duration,
        after: Option<(Place, &'c KeyName)>,
    ) -> impl Iterator<Item = (&'c Arc<KeyName>, Place, Duration)> {
        let start = after.map_or(Bound::Unbounded, |(place, _)| Bound::Included(place));
        let places = self.at.range((start, Bound::Unbounded));
        let claims = places.flat_map(|(place, keys)| keys.iter().map(|(k, u)| (k, *place, *u)));
        claims
            .filter(move |(key, place, _)| after.is_none_or(|a| (*place, &***key) > a))
            .filter_map(move |(key, place, until)| {
                let left = until.checked_sub(now).filter(|left| !left.is_zero())?;
                Some((key, place, left))
            })
    }

    /// Undoes [`Claims::take_left`].
    pub fn put_back_left(&mut self, left: BTreeSet<IpAddr>) {
        self.left.extend(left);
    }

    /// Every admitted place.
    pub fn all(&mut self, now: Duration) -> Vec<Change> {
        self.expire(now);
        self.at
            .keys()
            .map(|&place| self.change(now, place))
            .collect()
    }
}
