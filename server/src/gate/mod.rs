//! The gate: what a datagram is worth. Sans-IO: time, source and bytes come in, a
//! [`Verdict`] goes out; no clock, socket or file is read here.
//!
//! The order of the checks is that of `PROTOCOL.md`. Steps 1 to 3 are all that a sender
//! without a key can reach: they look up, compute one HMAC for a known selector, count,
//! and allocate nothing.

mod admin;
mod claims;
mod memory;
mod policy;
mod rate;
mod replay;
mod retiring;
mod selectors;
mod verdict;

pub use admin::{Ended, Held};
pub use claims::{Change, Claims, Place};
pub use memory::{Claim, Forgotten, Lost, Memory};
pub use replay::Replay;
pub use retiring::{Retired, end as end_of_generation};
pub use verdict::{Accepted, Counters, Ignored, Junk, Refusal, Refused, Verdict};

use crate::config::{Policy, Service, Settings};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::{Packet, Request};
use oneknock_shared::secret::{GenerationId, Subkeys};
use oneknock_shared::selector::{Selector, Slot};
use rate::Bucket;
use selectors::{Owner, Selectors};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A point in time, read once at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: for packets' timestamps and keys' validity. May jump.
    pub wall: Timestamp,
    /// Since the machine's start: for grants and rates. Never jumps.
    pub mono: Duration,
}

/// A generation that expired longer ago than this is not even looked up, in ms.
const FORGET_EXPIRED: u64 = 30 * 24 * 3600 * 1000;

struct Generation {
    key: usize,
    number: u32,
    subkeys: Subkeys,
    not_before: Option<Timestamp>,
    /// The earlier of what the key's file says and of when it retires.
    not_after: Option<Timestamp>,
    bucket: Bucket,
}

struct GateKey {
    name: Arc<KeyName>,
    policy: Policy,
}

/// The gate. Holds the keys, the policy, the replay cache and the claims.
pub struct Gate {
    skew_ms: u64,
    admit_gateway: bool,
    gateways: Vec<IpAddr>,
    services: Vec<Service>,
    keys: Vec<GateKey>,
    generations: Vec<Generation>,
    selectors: Selectors,
    replay: BTreeMap<GenerationId, Replay>,
    /// Whose floor was raised since [`Gate::forgotten`].
    raised: BTreeSet<GenerationId>,
    closes: BTreeMap<(Arc<KeyName>, Place), Timestamp>,
    grace_ms: u64,
    /// When older generations end, since a newer one was used.
    retires: BTreeMap<GenerationId, Timestamp>,
    claims: Claims,
    counters: Counters,
}

impl Gate {
    /// A gate for these settings that has seen nothing yet.
    #[must_use]
    pub fn new(settings: &Settings, now: Now) -> Self {
        let mut gate = Self {
            skew_ms: 0,
            admit_gateway: false,
            gateways: Vec::new(),
            services: Vec::new(),
            keys: Vec::new(),
            generations: Vec::new(),
            selectors: Selectors::default(),
            replay: BTreeMap::new(),
            raised: BTreeSet::new(),
            closes: BTreeMap::new(),
            grace_ms: 0,
            retires: BTreeMap::new(),
            claims: Claims::default(),
            counters: Counters::default(),
        };
        gate.install(settings, now);
        gate
    }

    /// Puts other settings in force. What was accepted stays accepted, also of keys that
    /// are gone: they may come back. Grants whose key has lost its right to them are
    /// closed.
    pub fn reconfigure(&mut self, settings: &Settings, now: Now) -> Lost {
        let before = self.generations_by_name();
        self.install(settings, now);
        self.cover_new(now);
        let after = self.generations_by_name();
        let keys = self.keys.iter().map(|k| (&*k.name, &k.policy));
        let keys: BTreeMap<_, _> = keys.collect();
        let allowed = |name: &KeyName, place: &Place| {
            // Another key under an old name, with none of its secrets, inherits nothing.
            let same = match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) => before.iter().any(|id| after.contains(id)),
                _ => true,
            };
            let policy = keys.get(name);
            same && policy.is_some_and(|policy| policy.services.contains(&place.service))
        };
        self.claims.retain(now.mono, allowed)
    }

    fn generations_by_name(&self) -> BTreeMap<KeyName, Vec<GenerationId>> {
        let mut names: BTreeMap<KeyName, Vec<GenerationId>> = BTreeMap::new();
        for generation in &self.generations {
            let name = (*self.keys[generation.key].name).clone();
            names.entry(name).or_default().push(generation.subkeys.id());
        }
        names
    }

    fn install(&mut self, settings: &Settings, now: Now) {
        let config = &settings.config;
        self.skew_ms = u64::try_from(config.skew.as_millis()).unwrap_or(u64::MAX);
        self.grace_ms = u64::try_from(config.rotation_grace.as_millis()).unwrap_or(u64::MAX);
        self.admit_gateway = config.admit_gateway;
        self.services.clone_from(&config.services);
        let mut old: BTreeMap<GenerationId, Bucket> = self
            .generations
            .drain(..)
            .map(|g| (g.subkeys.id(), g.bucket))
            .collect();
        self.keys.clear();
        for (index, key) in settings.keys.iter().enumerate() {
            self.keys.push(GateKey {
                name: Arc::new(key.name.clone()),
                policy: key.policy.clone(),
            });
            let per_minute = key.policy.knocks_per_minute;
            for generation in &key.generations {
                let subkeys = Subkeys::derive(&generation.secret, &config.server_id);
                let mut bucket = old.remove(&subkeys.id()).unwrap_or_default();
                bucket.set_rate(per_minute, now.mono);
                let retires = self.retires.get(&subkeys.id()).copied();
                self.generations.push(Generation {
                    key: index,
                    number: generation.number,
                    subkeys,
                    not_before: generation.not_before,
                    not_after: retiring::end(generation.end(), retires),
                    bucket,
                });
            }
        }
        self.selectors = Selectors::default();
        self.tick(now);
    }

    /// What this machine's default gateways are now.
    pub fn set_gateways(&mut self, gateways: Vec<IpAddr>) {
        self.gateways = gateways;
    }

    /// What they are, as far as it was told.
    #[must_use]
    pub fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    /// All live grants with the time that they have left.
    #[must_use]
    pub fn grants(&mut self, now: Now) -> Vec<Change> {
        self.claims.all(now.mono)
    }

    /// Whether the place is admitted.
    #[must_use]
    pub fn admits(&self, now: Now, place: Place) -> bool {
        self.claims.admits(now.mono, place)
    }

    /// The addresses that have ceased to be admitted somewhere since the last call.
    pub fn take_left(&mut self) -> BTreeSet<IpAddr> {
        self.claims.take_left()
    }

    /// They were not dealt with: they come again with the next call of
    /// [`Gate::take_left`].
    pub fn put_back_left(&mut self, left: BTreeSet<IpAddr>) {
        self.claims.put_back_left(left);
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Work that is better done ahead of packets: selectors of the minutes to come, what
    /// has expired. To be called about once a second; correct, only slower, without.
    pub fn tick(&mut self, now: Now) {
        let known = |g: &Generation| {
            let gone = g.not_after.map(|end| end.0.saturating_add(FORGET_EXPIRED));
            gone.is_none_or(|gone| now.wall.0 <= gone)
        };
        let keys = self
            .generations
            .iter()
            .enumerate()
            .filter(|(_, g)| known(g));
        let keys = keys.map(|(index, g)| (index, &g.subkeys));
        self.selectors.cover(now.wall, self.skew_ms, &keys);
        self.claims.expire(now.mono);
        let oldest = self.oldest(now);
        for (&id, replay) in &mut self.replay {
            if replay.prune(oldest) {
                self.raised.insert(id);
            }
        }
        self.forget_closes(oldest);
    }

    /// The claims that have ended in their time since the last call.
    pub fn take_over(&mut self) -> Vec<(Arc<KeyName>, Place)> {
        self.claims.take_over()
    }

    /// The minutes, as slots, for which selectors are in the table: those in force and the
    /// next. After a step of the clock, those that have come into force are among them.
    pub fn slots(&mut self, now: Now) -> BTreeSet<u64> {
        if !self.selectors.covers(now.wall, self.skew_ms) {
            self.tick(now);
        }
        self.selectors.slots()
    }

    /// The selectors of all generations for these minutes.
    pub fn selectors(&self) -> impl Iterator<Item = (Selector, Slot)> {
        self.selectors.all()
    }

    /// Nothing older than this passes the time window.
    fn oldest(&self, now: Now) -> Timestamp {
        Timestamp(now.wall.0.saturating_sub(self.skew_ms))
    }

    /// A close that no open could precede any more is forgotten; the floor of the key's
    /// generations takes its place, in case the clock goes back.
    fn forget_closes(&mut self, oldest: Timestamp) {
        let (keys, generations) = (&self.keys, &self.generations);
        let (replay, raised) = (&mut self.replay, &mut self.raised);
        self.closes.retain(|(name, _), closed| {
            if *closed >= oldest {
                return true;
            }
            for generation in generations.iter().filter(|g| *keys[g.key].name == **name) {
                let id = generation.subkeys.id();
                if replay.entry(id).or_default().raise_floor(*closed) {
                    raised.insert(id);
                }
            }
            false
        });
    }

    /// Judges a datagram. An accepted one is in the replay cache, and its grants are
    /// among the claims, when this returns; [`Gate::undo`] takes the grants back where
    /// they cannot be recorded or made.
    pub fn handle(&mut self, now: Now, source: IpAddr, datagram: &[u8]) -> Verdict {
        let verdict = self.judge(now, source.to_canonical(), datagram);
        self.counters.count(&verdict);
        verdict
    }

    fn judge(&mut self, now: Now, source: IpAddr, datagram: &[u8]) -> Verdict {
        let Some(packet) = Packet::read(datagram) else {
            return Verdict::Junk(Junk::Length);
        };
        if !self.selectors.covers(now.wall, self.skew_ms) {
            self.tick(now);
        }
        let window = Slot::around(now.wall, self.skew_ms);
        let owners = self.selectors.probe(packet.selector());
        let mut found = false;
        for &Owner { generation, slot } in owners {
            if !window.contains(&slot.0) {
                continue;
            }
            found = true;
            if let Some(authentic) = packet.verify(&self.generations[generation].subkeys) {
                let opened = authentic.open();
                return self.decide(now, source, generation, opened);
            }
        }
        Verdict::Junk(if found { Junk::Mac } else { Junk::Selector })
    }

    /// Steps 4 to 8, for a packet that a holder of the key has made.
    fn decide(
        &mut self,
        now: Now,
        source: IpAddr,
        index: usize,
        opened: Result<Request, oneknock_shared::knock::Malformed>,
    ) -> Verdict {
        let generation = &mut self.generations[index];
        let key = &self.keys[generation.key];
        let refused = |service, proven, why| {
            let key = Arc::clone(&key.name);
            Verdict::Refused(Refused {
                key,
                source,
                service,
                proven,
                why,
            })
        };
        let ignored = |why| Verdict::Ignored {
            key: Arc::clone(&key.name),
            source,
            why,
        };
        let request = match opened {
            Ok(request) => request,
            Err(why) => return refused(None, false, Refusal::Malformed(why)),
        };
        let (at, service) = (request.timestamp(), request.knock().service);
        let replay = self.replay.entry(generation.subkeys.id()).or_default();
        if at.0.abs_diff(now.wall.0) > self.skew_ms {
            return ignored(Ignored::Stale { at, now: now.wall });
        }
        if replay.is_below_floor(at) {
            return ignored(Ignored::BelowFloor);
        }
        if replay.has(&request) {
            return ignored(Ignored::Replayed);
        }
        // What is refused from here on, until it is remembered, is refused for its sender
        // or its moment, not for good: whoever caught a packet and sends it from another
        // address must not spend it, nor its owner's rate, nor get an address banned.
        if generation.not_before.is_some_and(|first| now.wall < first) {
            return refused(service, false, Refusal::NotYetValid);
        }
        if generation.has_ended(now) {
            return refused(service, false, Refusal::Expired);
        }
        let address = match policy::address_to_admit(&key.policy, source, &request) {
            Ok(address) => address,
            Err(why) => return refused(service, false, why),
        };
        if !generation.bucket.take(now.mono) || !replay.remember(&request) {
            return refused(service, false, Refusal::TooManyKnocks);
        }
        self.claims.expire(now.mono);
        let view = policy::View {
            key,
            services: &self.services,
            gateways: if self.admit_gateway {
                &[]
            } else {
                &self.gateways
            },
            closes: &self.closes,
            claims: &self.claims,
        };
        let wanted = match view.judge(now, address, &request) {
            Ok(wanted) => wanted,
            // Unsigned, the packet may come from a thief who was quicker.
            Err(why) => {
                let proven = request.knock().address == Some(source);
                return refused(service, proven, why);
            }
        };
        let name = Arc::clone(&key.name);
        let by = (generation.subkeys.id(), generation.number);
        let mut accepted = Accepted::new(Arc::clone(&name), by, source, &request);
        for (place, open_for) in wanted {
            if let Some(time) = open_for {
                accepted.opened(self.claims.admit(now.mono, &name, place, time), place, time);
            } else {
                // One that comes late must not let in what a later one holds back.
                let before = self.closes.get(&(Arc::clone(&name), place)).copied();
                let last = before.map_or(at, |before| before.max(at));
                self.closes.insert((Arc::clone(&name), place), last);
                let done = self.claims.withdraw(now.mono, &name, place);
                let (_, (_, was)) = done;
                if before.is_some() && was.is_none() {
                    accepted.again.insert(place);
                }
                accepted.closed(done, place);
            }
        }
        accepted.retired = self.retire_older(index, now.wall);
        Verdict::Accepted(accepted)
    }

    /// Takes back the grants of an accepted packet that could not be recorded or made.
    /// The packet stays in the replay cache: it is spent.
    pub fn undo(&mut self, accepted: &Accepted) {
        self.claims.undo(&accepted.key, &accepted.undo);
        self.unretire(accepted);
    }
}

#[cfg(test)]
mod tests;
