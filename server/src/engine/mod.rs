//! The engine: what a datagram is worth, what it opens, and what the kernel is to hold.
//! Sans-IO: time, source and bytes come in; events and a desired state go out. No clock,
//! socket, file, configuration or control socket is known here.
//!
//! A packet's way, and nothing on it is ever undone:
//!
//! 1. [`Engine::judge`] verifies it. What passes is a [`Spend`].
//! 2. The store appends the batch of spends to its log. Where it cannot, [`Engine::reject`].
//! 3. [`Engine::commit`] does what they ask: it changes [`Engine::desired`] and queues
//!    [`Event`]s.
//!
//! What no spend says is in [`Engine::snapshot`]: floors, retirements and grants. The store
//! begins a run with it after [`Engine::load`] and [`Engine::raise_floors`], and a new segment when
//! it likes; after [`Engine::reconfigure`] it records the floors.
//!
//! The order of the checks is that of `PROTOCOL.md`.

mod closes;
mod commit;
mod desired;
mod entitlement;
mod event;
mod grant;
mod grants;
mod judge;
mod keys;
mod policy;
mod query;
mod rate;
mod reason;
mod replay;
mod restart;
mod retirement;
mod revoke;
mod rules;
mod selectors;
mod spend;
mod state;
#[cfg(test)]
mod tests;

pub use desired::Desired;
pub use event::{EndReason, Event, Junk, Rejection};
pub use grant::{AllowEntry, Grant, Source, Target};
pub use keys::GenerationView;
pub use reason::{Reason, ReasonKind};
pub use rules::{GenerationRules, KeyRules, Rules, ServiceRules};
pub use spend::Spend;
pub use state::{Close, State};

use closes::Closes;
use grants::GrantTable;
use keys::KeyTable;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use oneknock_shared::selector::Slot;
use rate::TokenBucket;
use replay::ReplayCache;
use selectors::SelectorTable;
use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::net::IpAddr;
use std::time::Duration;

/// A point in time, read once at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: for packets' timestamps and keys' validity. May jump.
    pub wall: Timestamp,
    /// Since boot: for grants and rates. Never jumps.
    pub mono: Duration,
}

/// The engine. Holds the rules, what is spent, and the grants.
#[derive(Default)]
pub struct Engine {
    skew_ms: u64,
    /// How long an older generation works on after the first use of a newer one.
    grace_ms: u64,
    allow_gateway: bool,
    gateways: Vec<IpAddr>,
    services: Vec<ServiceRules>,
    keys: KeyTable,
    /// Of each generation, by its index in `keys`.
    buckets: Vec<TokenBucket>,
    selectors: SelectorTable,
    replay: ReplayCache,
    /// The replay floor of generations without a record, where a state was lost.
    default_floor: Option<Timestamp>,
    closes: Closes,
    /// When older generations end, since a newer one was used.
    retirements: BTreeMap<GenerationId, Timestamp>,
    grants: GrantTable,
    events: Vec<Event>,
}

impl Engine {
    /// An engine with these rules that has seen nothing yet.
    #[must_use]
    pub fn new(rules: Rules, now: Now) -> Self {
        let mut engine = Self::default();
        engine.install(rules, now);
        engine
    }

    /// Replaces the rules. What is spent stays spent, also of keys that are gone: they may
    /// come back. Grants whose key has lost its right to them end. A generation without a
    /// record has the floor of a state that was lost; it never waits for it longer than one
    /// skew.
    pub fn reconfigure(&mut self, rules: Rules, now: Now) {
        self.expire(now);
        self.install(rules, now);
        self.apply_default_floor(now);
        self.end_unentitled(now);
    }

    fn install(&mut self, rules: Rules, now: Now) {
        let in_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (self.skew_ms, self.grace_ms) = (in_ms(rules.skew), in_ms(rules.rotation_grace));
        self.allow_gateway = rules.allow_gateway;
        self.services = rules.services;
        let (keys, buckets) = (take(&mut self.keys), take(&mut self.buckets));
        let used = buckets.into_iter().enumerate();
        let used = used.filter_map(|(at, bucket)| Some((keys.at(at)?.rules.subkeys.id(), bucket)));
        let mut used: HashMap<GenerationId, TokenBucket> = used.collect();
        drop(keys);
        let retires = |id| self.retirements.get(&id).copied();
        self.keys = KeyTable::new(rules.keys, retires);
        let buckets = self.keys.iter().map(|(_, generation)| {
            let per_minute = generation.key.knocks_per_minute;
            let used = used.remove(&generation.rules.subkeys.id());
            let mut bucket = used.unwrap_or_else(|| TokenBucket::new(per_minute, now.mono));
            bucket.set_rate(per_minute, now.mono);
            bucket
        });
        self.buckets = buckets.collect();
        self.selectors = SelectorTable::default();
        self.cover_selectors(now);
    }

    /// What falls due with time: the selectors of the minutes to come, grants that end, spent
    /// packets that are too old to come again. To be called about once a second; without it
    /// everything is slower, and grants of a generation that has ended last.
    pub fn tick(&mut self, now: Now) {
        self.cover_selectors(now);
        self.expire(now);
        if self.has_ended_grants(now) {
            self.end_unentitled(now);
        }
        let oldest = self.oldest(now);
        self.replay.prune(oldest);
        let (keys, replay) = (&self.keys, &mut self.replay);
        // The floors stand for a close from then on, in case the clock goes back.
        self.closes.prune(oldest, |key, closed| {
            for id in keys.ids_of(key) {
                replay.raise_floor(id, closed);
            }
        });
    }

    fn cover_selectors(&mut self, now: Now) {
        let generations = self.keys.looked_up(now);
        let subkeys = generations.map(|(index, view)| (index, &view.rules.subkeys));
        self.selectors.cover(now.wall, self.skew_ms, &subkeys);
    }

    /// The minutes whose selectors are new since the last call: all, after the rules were
    /// replaced.
    pub fn take_new_slots(&mut self) -> Vec<Slot> {
        self.selectors.take_new_slots()
    }

    /// What this machine's default gateways are now.
    pub fn set_gateways(&mut self, gateways: Vec<IpAddr>) {
        self.gateways = gateways;
    }

    /// What the kernel is to hold, for the writer that marks what it has written as clean.
    pub fn desired_mut(&mut self) -> &mut Desired {
        &mut self.grants.desired
    }

    /// What happened since the last call, in its order.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, Event> {
        self.events.drain(..)
    }
}
