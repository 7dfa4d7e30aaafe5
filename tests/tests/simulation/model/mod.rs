//! What `PROTOCOL.md` promises, written down once more without a look at the gate: plain
//! tables, nothing forgotten, nothing quick.
//!
//! Where the protocol leaves the moment open (an entry is pruned "when" it is old), or a
//! rate's last fraction is a matter of rounding, more than one outcome is allowed, and the
//! model follows the one that came.

mod past;
mod rate;
mod steps;

pub use past::Look;

use crate::site::Site;
use oneknock_shared::knock::{Knock, Timestamp};
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use oneknockd::config::{Generation, Key, Settings};
use oneknockd::gate::{Now, Place};
use past::{Close, Past, Unknown, ms};
use rate::Rate;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// A packet as its maker knows it.
pub struct Made {
    pub key: KeyName,
    pub generation: GenerationId,
    pub knock: Knock,
    pub bytes: [u8; 112],
}

impl Made {
    pub fn id(&self) -> PacketId {
        PacketId(std::array::from_fn(|i| self.bytes[80 + i]))
    }
}

/// A place that a packet opens for so long, or closes.
pub type Wish = (Place, Option<Duration>);

/// What may come of a packet.
pub struct Judged {
    /// The log's words; `accepted` where it opens or closes.
    pub allowed: Vec<&'static str>,
    /// What it does where it is accepted.
    pub wishes: Vec<Wish>,
}

/// Refusals after the packet was counted against its rate: it is spent.
const SPENT: [&str; 5] = [
    "no-such-service",
    "service-not-allowed",
    "gateway",
    "closed-since",
    "too-many-grants",
];

/// Whether a refusal for this reason spends the packet.
pub fn is_spent(word: &str) -> bool {
    SPENT.contains(&word)
}

/// What a start finds.
pub struct Start<'s> {
    /// The power was cut: nothing up to here is accepted.
    pub floor: Option<Timestamp>,
    /// The generations of which the disk has a record.
    pub known: &'s BTreeSet<GenerationId>,
    /// The older generations that a newer one's use has brought to an end, as the disk
    /// has it.
    pub retires: &'s BTreeMap<GenerationId, Timestamp>,
}

#[derive(Clone, Copy)]
struct Claim {
    /// Whose last knock opened it.
    generation: GenerationId,
    until: Duration,
}

/// What an accepted packet has changed, as it was before.
pub struct Before {
    claims: Vec<((Place, KeyName), Option<Claim>)>,
    closes: Vec<((KeyName, Place), Option<Close>)>,
    pub retired: Vec<GenerationId>,
}

pub struct Model {
    settings: Settings,
    /// The generations of each key, as the settings have them.
    ids: Vec<Vec<GenerationId>>,
    pub gateways: Vec<IpAddr>,
    past: BTreeMap<GenerationId, Past>,
    rates: HashMap<GenerationId, Rate>,
    accepted: HashMap<PacketId, (GenerationId, u64)>,
    /// Refused in this run after they were counted against the rate.
    refused: HashSet<PacketId>,
    closes: HashMap<(KeyName, Place), Close>,
    /// Closes that no tick has found old; whether the server knows each for sure.
    young_closes: BTreeMap<(u64, KeyName, Place), bool>,
    claims: BTreeMap<(Place, KeyName), Claim>,
    /// When older generations end, since a newer one was used.
    retires: BTreeMap<GenerationId, Timestamp>,
    /// What the daemon's clock said when it looked last.
    looked: Option<u64>,
    /// The floor of what there is no record of.
    unknown: Unknown,
}

impl Model {
    pub fn new(site: &Site, now: Now) -> Self {
        let mut model = Self {
            settings: site.settings.clone(),
            ids: Vec::new(),
            gateways: Vec::new(),
            past: BTreeMap::new(),
            rates: HashMap::new(),
            accepted: HashMap::new(),
            refused: HashSet::new(),
            closes: HashMap::new(),
            young_closes: BTreeMap::new(),
            claims: BTreeMap::new(),
            retires: BTreeMap::new(),
            looked: None,
            unknown: Unknown::default(),
        };
        model.install(site, now);
        model
    }

    fn install(&mut self, site: &Site, now: Now) {
        self.settings = site.settings.clone();
        let keys = &self.settings.keys;
        self.ids = keys.iter().map(|key| site.ids(key)).collect();
        let mut rates = HashMap::new();
        for (key, ids) in keys.iter().zip(&self.ids) {
            let per_minute = u64::from(key.policy.knocks_per_minute);
            for id in ids {
                let rate = self.rates.remove(id);
                let mut rate = rate.unwrap_or_else(|| Rate::full(per_minute, now.mono));
                rate.set(per_minute, now.mono);
                rates.insert(*id, rate);
            }
        }
        self.rates = rates;
    }

    fn key(&self, name: &KeyName) -> Option<&Key> {
        self.settings.keys.iter().find(|key| key.name == *name)
    }

    fn ids_of(&self, name: &KeyName) -> BTreeSet<GenerationId> {
        let keys = self.settings.keys.iter().zip(&self.ids);
        let ids = keys.filter(|(key, _)| key.name == *name);
        ids.flat_map(|(_, ids)| ids.iter().copied()).collect()
    }

    /// Other settings are in force: claims end whose key has lost its right to them.
    pub fn reconfigure(&mut self, site: &Site, now: Now) {
        let claims = std::mem::take(&mut self.claims);
        let before = claims.keys().map(|(_, name)| self.ids_of(name));
        let before: Vec<_> = before.collect();
        let mut ended = self.in_force(now);
        self.install(site, now);
        self.cover(now);
        ended.retain(|id| !self.in_force(now).contains(id));
        self.look(now, Look::Settings);
        let kept = claims.into_iter().zip(before).filter(|(claim, before)| {
            let (place, name) = &claim.0;
            let same = !before.is_disjoint(&self.ids_of(name));
            let key = self.key(name);
            let is_over = ended.contains(&claim.1.generation);
            same && !is_over && key.is_some_and(|k| k.policy.services.contains(&place.service))
        });
        self.claims = kept.map(|(claim, _)| claim).collect();
    }

    /// A run has ended and another begins. What the disk had is known again; so are the
    /// claims, where the machine ran on.
    pub fn restart(&mut self, site: &Site, now: Now, start: &Start<'_>) {
        self.begin(site, now);
        if let Some(floor) = start.floor {
            self.claims.clear();
            self.forget();
            self.raise_floors(floor, start.known);
        }
        self.retires.clone_from(start.retires);
        let in_force = self.in_force(now);
        self.claims.retain(|_, c| in_force.contains(&c.generation));
        self.reconfigure(site, now);
    }

    /// As [`Model::restart`], where there is no state.
    pub fn restart_without_state(&mut self, site: &Site, now: Now) {
        self.begin(site, now);
        self.claims.clear();
        self.retires.clear();
        self.forget();
    }

    /// When a generation ends: as its key's file says, or sooner, since a newer one was used.
    fn end_of(&self, id: GenerationId, generation: &Generation) -> Option<u64> {
        let end = generation.not_after?.0;
        Some(
            self.retires
                .get(&id)
                .map_or(end, |retires| end.min(retires.0)),
        )
    }

    /// The generations that have not ended.
    fn in_force(&self, now: Now) -> HashSet<GenerationId> {
        let keys = self.settings.keys.iter().zip(&self.ids);
        let all = keys.flat_map(|(key, ids)| key.generations.iter().zip(ids));
        let lasting =
            all.filter(|(g, id)| self.end_of(**id, g).is_none_or(|end| now.wall.0 <= end));
        lasting.map(|(_, id)| *id).collect()
    }

    /// A newer generation is used: older ones of the key that have an end retire, once.
    fn retire(&mut self, now: Now, by: GenerationId) -> Vec<GenerationId> {
        let keys = self.settings.keys.iter().zip(&self.ids);
        let Some((key, ids)) = keys.into_iter().find(|(_, ids)| ids.contains(&by)) else {
            return Vec::new();
        };
        let all = key.generations.iter().zip(ids);
        let number = all
            .clone()
            .find(|(_, id)| **id == by)
            .map(|(g, _)| g.number);
        let older = all.filter(|(g, id)| {
            Some(g.number) < number && g.not_after.is_some() && !self.retires.contains_key(id)
        });
        let older: Vec<GenerationId> = older.map(|(_, id)| *id).collect();
        let at = Timestamp(now.wall.0 + ms(self.settings.config.rotation_grace));
        self.retires.extend(older.iter().map(|id| (*id, at)));
        older
    }

    fn begin(&mut self, site: &Site, now: Now) {
        self.rates.clear();
        self.refused.clear();
        self.looked = None;
        self.install(site, now);
        for past in self.past.values_mut() {
            past.restart();
        }
    }

    /// What became of the packet. It counts as granted unless it is taken back.
    pub fn settle(&mut self, now: Now, made: &Made, word: &str, wishes: &[Wish]) -> Option<Before> {
        let is_accepted = word == "accepted";
        if !is_accepted && !is_spent(word) {
            return None;
        }
        if let Some(rate) = self.rates.get_mut(&made.generation) {
            rate.take();
        }
        let at = made.knock.timestamp.0;
        let past = self.past.entry(made.generation).or_default();
        past.remember(at, is_accepted);
        if !is_accepted {
            self.refused.insert(made.id());
            return None;
        }
        self.accepted.insert(made.id(), (made.generation, at));
        let mut before = Before {
            claims: Vec::new(),
            closes: Vec::new(),
            retired: self.retire(now, made.generation),
        };
        for &(place, time) in wishes {
            let claim = (place, made.key.clone());
            let had = self.claims.get(&claim).copied();
            before.claims.push((claim.clone(), had));
            if let Some(time) = time {
                let until = had.map_or(Duration::ZERO, |had| had.until);
                let new = Claim {
                    generation: made.generation,
                    until: until.max(now.mono + time),
                };
                self.claims.insert(claim, new);
            } else {
                self.claims.remove(&claim);
                before.closes.push(self.close(&made.key, place, at));
            }
        }
        Some(before)
    }

    fn close(&mut self, key: &KeyName, place: Place, at: u64) -> ((KeyName, Place), Option<Close>) {
        let of = (key.clone(), place);
        let had = self.closes.get(&of).copied();
        let close = self.closes.entry(of.clone()).or_default();
        close.sure = close.sure.max(Some(at));
        let young = self.young_closes.entry((at, key.clone(), place));
        *young.or_default() = true;
        (of, had)
    }

    /// The packet could not be made so: the claims are as before, and it is spent; for
    /// good, where it was recorded.
    pub fn take_back(&mut self, made: &Made, before: Before, is_recorded: bool) {
        let at = made.knock.timestamp.0;
        for (claim, had) in before.claims {
            match had {
                Some(mut had) => {
                    if is_recorded {
                        had.generation = made.generation;
                    }
                    self.claims.insert(claim, had);
                }
                None => drop(self.claims.remove(&claim)),
            }
        }
        for (of, had) in before.closes {
            let close = self.closes.entry(of.clone()).or_default();
            close.sure = had.and_then(|had| had.sure);
            close.perhaps = close.perhaps.max(Some(at));
            self.young_closes.insert((at, of.0, of.1), false);
        }
        self.retires.retain(|id, _| !before.retired.contains(id));
        if !is_recorded {
            self.accepted.remove(&made.id());
            self.refused.insert(made.id());
            let past = self.past.entry(made.generation).or_default();
            past.take_back(at);
        }
    }

    /// An administrator has ended these.
    pub fn revoke(&mut self, meant: impl Fn(&Place) -> bool) {
        self.claims.retain(|(place, _), _| !meant(place));
    }

    /// The claims that last, in the order of place and key.
    pub fn live(&self, now: Now) -> impl Iterator<Item = (Place, &KeyName, Duration)> {
        let live = self.claims.iter().filter(move |(_, c)| c.until > now.mono);
        live.map(|((place, key), claim)| (*place, key, claim.until))
    }

    /// Until when the place is admitted.
    pub fn until(&self, now: Now, place: Place) -> Option<Duration> {
        let of = self.live(now).filter(|(p, _, _)| *p == place);
        of.map(|(_, _, until)| until).max()
    }
}
