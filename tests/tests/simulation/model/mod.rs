//! What `PROTOCOL.md` promises, written down once more without a look at the engine: plain
//! tables, nothing quick. It says beforehand what comes of each packet and each change, event
//! by event; and it never forgets what was recorded, whatever becomes of the tables.
//!
//! Where a rate's last fraction is a matter of rounding, more than one outcome is allowed, and
//! the model follows the one that came.

mod commit;
mod known;
mod rate;
mod restart;
mod rights;
mod steps;

pub use commit::rejected;
pub use known::Known;
pub use rate::ms;
pub use restart::Found;

use crate::site::ids;
use oneknock_shared::knock::{Knock, Timestamp};
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use oneknockd::engine::{Event, GenerationRules, Grant, KeyRules, Now, Rules, Spend, Target};
use rate::Rate;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// A key's grant for a target.
pub type TargetKey = (Target, KeyName);

/// A packet as its maker knows it.
pub struct Made {
    pub key: KeyName,
    pub generation: GenerationId,
    pub knock: Knock,
    pub bytes: Vec<u8>,
}

impl Made {
    pub fn id(&self) -> PacketId {
        PacketId(self.bytes[self.bytes.len() - 32..].try_into().unwrap())
    }
}

pub struct Model {
    rules: Rules,
    pub gateways: Vec<IpAddr>,
    rates: HashMap<GenerationId, Rate>,
    /// As the engine knows it.
    run: Known,
    /// As a start would find it.
    disk: Known,
    /// Spent in this run; recorded or not.
    spent: HashMap<PacketId, (GenerationId, Timestamp)>,
    /// Recorded at any time: not one of them may be accepted again.
    recorded: HashMap<PacketId, (GenerationId, Timestamp)>,
    /// Generations that were away when records were lost, and of which there were such.
    away: HashSet<GenerationId>,
}

impl Model {
    pub fn new(rules: &Rules, now: Now) -> Self {
        let mut model = Self {
            rules: rules.clone(),
            gateways: Vec::new(),
            rates: HashMap::new(),
            run: Known::default(),
            disk: Known::default(),
            spent: HashMap::new(),
            recorded: HashMap::new(),
            away: HashSet::new(),
        };
        model.install(rules, now);
        model
    }

    fn install(&mut self, rules: &Rules, now: Now) {
        self.rules = rules.clone();
        let mut rates = HashMap::new();
        for key in &self.rules.keys {
            let per_minute = u64::from(key.knocks_per_minute);
            for id in ids(key) {
                let rate = self.rates.remove(&id);
                let mut rate = rate.unwrap_or_else(|| Rate::full(per_minute, now.mono));
                rate.set(per_minute, now.mono);
                rates.insert(id, rate);
            }
        }
        self.rates = rates;
    }

    fn skew(&self) -> u64 {
        ms(self.rules.skew)
    }

    /// The generation with its key.
    fn generation(&self, id: GenerationId) -> Option<(&KeyRules, &GenerationRules)> {
        let keys = self.rules.keys.iter();
        let mut all = keys.flat_map(|key| key.generations.iter().map(move |g| (key, g)));
        all.find(|(_, generation)| generation.subkeys.id() == id)
    }

    /// When a generation ends: as its rules say, or sooner, since a newer one was used.
    fn end_of(&self, generation: &GenerationRules) -> Option<Timestamp> {
        let end = generation.not_after?;
        let retires = self.run.retirements.get(&generation.subkeys.id());
        Some(retires.map_or(end, |at| end.min(*at)))
    }

    /// The generations that the rules have.
    fn ids(&self) -> BTreeSet<GenerationId> {
        self.rules.keys.iter().flat_map(ids).collect()
    }

    /// The packet is spent, for this run.
    pub fn spend(&mut self, spend: &Spend) {
        if let Some(rate) = self.rates.get_mut(&spend.generation) {
            rate.take();
        }
        self.spent.insert(spend.id, (spend.generation, spend.at));
        self.run.spend(spend);
    }

    /// The disk has these packets.
    pub fn record(&mut self, spends: &[Spend]) {
        for spend in spends {
            self.recorded.insert(spend.id, (spend.generation, spend.at));
            self.disk.record(spend);
        }
    }

    /// The disk has these events.
    pub fn note(&mut self, events: &[Event]) {
        for event in events {
            self.disk.note(event);
        }
    }

    /// The disk has all that the engine knows.
    pub fn begin_segment(&mut self, now: Now) {
        self.disk = self.run.clone();
        self.disk.grants.retain(|_, grant| grant.until > now.mono);
        self.recorded.extend(&self.spent);
    }

    /// Other rules hold from now on.
    pub fn reconfigure(&mut self, rules: &Rules, now: Now) -> Vec<Event> {
        let mut events = self.expire(now);
        self.install(rules, now);
        self.apply_default_floor(now);
        events.extend(self.end_unentitled(now));
        events
    }

    /// A key is gone, and nothing else has changed.
    pub fn drop_key(&mut self, rules: &Rules, now: Now) -> Vec<Event> {
        let mut events = self.expire(now);
        self.install(rules, now);
        events.extend(self.end_unentitled(now));
        events
    }

    /// The daemon's second: what is old is pruned, and a floor stands for it.
    pub fn tick(&mut self, now: Now) -> Vec<Event> {
        let mut events = self.expire(now);
        events.extend(self.end_unentitled(now));
        let oldest = Timestamp(now.wall.0.saturating_sub(self.skew()));
        while let Some((at, _, generation)) = self.run.seen.first().copied()
            && at < oldest
        {
            self.run.seen.pop_first();
            self.run.raise_floor(generation, at);
        }
        for (of, at) in std::mem::take(&mut self.run.closes) {
            if at >= oldest {
                self.run.closes.insert(of, at);
                continue;
            }
            let key = self.rules.keys.iter().find(|key| *key.name == of.0);
            for id in key.into_iter().flat_map(ids) {
                self.run.raise_floor(id, at);
            }
        }
        events
    }

    /// The tables as the engine is to have them.
    pub fn run(&self) -> &Known {
        &self.run
    }

    /// Whether the packet was recorded at any time.
    pub fn is_recorded(&self, id: PacketId) -> bool {
        self.recorded.contains_key(&id)
    }

    /// The grants that last, in the order of target and key.
    pub fn live(&self, now: Now) -> impl Iterator<Item = &Grant> {
        let grants = self.run.grants.values();
        grants.filter(move |grant| grant.until > now.mono)
    }

    /// Until when the target is admitted, for each that is.
    pub fn admitted(&self, now: Now) -> BTreeMap<Target, Duration> {
        let mut admitted = BTreeMap::new();
        for grant in self.live(now) {
            let until = admitted.entry(grant.target).or_insert(grant.until);
            *until = grant.until.max(*until);
        }
        admitted
    }

    /// Until when this target is admitted.
    pub fn until(&self, now: Now, target: Target) -> Option<Duration> {
        let of_target = self.live(now).filter(|grant| grant.target == target);
        of_target.map(|grant| grant.until).max()
    }
}
