//! The rules of the simulated server, and how an administrator changes them.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::{GenerationId, Secret, ServerId, Subkeys};
use oneknock_tests::chance::Chance;
use oneknockd::engine::{GenerationRules, KeyRules, Rules, ServiceRules};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SERVICES: [&str; 3] = ["ssh", "web", "mosh"];
/// Keys that there are at most; fewer than [`MIN_KEYS`] are never left.
const MAX_KEYS: usize = 16;
const MIN_KEYS: usize = 6;
const MAX_GENERATIONS: usize = 3;

pub struct Site {
    pub rules: Rules,
    /// The secrets that each key ever had, in the order of their making: its holders keep
    /// them all.
    pub rings: BTreeMap<KeyName, Vec<Subkeys>>,
    /// Keys that were removed and may come back.
    removed: Vec<KeyRules>,
    /// Generations that were taken out of their key and may come back.
    retired: Vec<(Arc<KeyName>, GenerationRules)>,
    server_id: ServerId,
    made: u32,
}

/// `letters` of base64 whose last one leaves no bit over, with the padding.
fn base64(chance: &mut Chance, letters: usize, last: &[u8], padding: &str) -> String {
    const ALL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text: String = (1..letters)
        .map(|_| char::from(*chance.pick(ALL)))
        .collect();
    text.push(char::from(*chance.pick(last)));
    text + padding
}

fn secret(chance: &mut Chance) -> Secret {
    base64(chance, 43, b"AEIMQUYcgkosw048", "=")
        .parse()
        .unwrap()
}

fn server_id(chance: &mut Chance) -> ServerId {
    base64(chance, 22, b"AQgw", "==").parse().unwrap()
}

fn service(index: usize) -> ServiceRules {
    ServiceRules {
        name: service_name(index),
        default_time: Duration::from_secs(30),
        max_time: Duration::from_secs(8 * 3600),
    }
}

pub fn service_name(index: usize) -> ServiceName {
    SERVICES[index].parse().unwrap()
}

/// What tells the generations of a key apart.
pub fn ids(key: &KeyRules) -> impl Iterator<Item = GenerationId> {
    key.generations.iter().map(|g| g.subkeys.id())
}

impl Site {
    pub fn new(chance: &mut Chance) -> Self {
        let server_id = server_id(chance);
        let mut site = Self {
            rules: Rules {
                skew: Duration::from_secs(30),
                rotation_grace: Duration::from_secs(24 * 3600),
                allow_gateway: false,
                services: (0..SERVICES.len()).map(service).collect(),
                keys: Vec::new(),
            },
            rings: BTreeMap::new(),
            removed: Vec::new(),
            retired: Vec::new(),
            server_id,
            made: 0,
        };
        for _ in 0..MIN_KEYS + 4 {
            site.add(chance);
        }
        site
    }

    fn generation(&mut self, chance: &mut Chance, name: &KeyName) -> GenerationRules {
        let subkeys = Subkeys::derive(&secret(chance), &self.server_id);
        let ring = self.rings.entry(name.clone()).or_default();
        ring.push(subkeys.clone());
        GenerationRules {
            number: u32::try_from(ring.len()).unwrap(),
            subkeys,
            not_before: None,
            not_after: None,
        }
    }

    /// A new key. Its name is never used again by another.
    fn add(&mut self, chance: &mut Chance) -> String {
        self.made += 1;
        let name: KeyName = format!("key{}", self.made).parse().unwrap();
        let mut key = KeyRules {
            generations: vec![self.generation(chance, &name)],
            name: Arc::new(name),
            services: Vec::new(),
            max_time: None,
            require_signed_address: false,
            allow_other_address: false,
            max_grants: 0,
            knocks_per_minute: 0,
        };
        self.draw_policy(chance, &mut key);
        let text = format!("key {} is added", key.name);
        self.rules.keys.push(key);
        text
    }

    fn draw_policy(&self, chance: &mut Chance, key: &mut KeyRules) {
        let there = self.rules.services.iter().map(|s| s.name);
        key.services = there.filter(|_| chance.percent(60)).collect();
        if key.services.is_empty() && chance.percent(95) {
            key.services.push(service_name(0));
        }
        key.max_time = chance
            .percent(30)
            .then(|| Duration::from_secs(chance.between(1, 90)));
        key.require_signed_address = chance.percent(20);
        key.allow_other_address = chance.percent(30);
        key.max_grants = *chance.pick(&[1, 2, 4, 16, 1000]);
        key.knocks_per_minute = *chance.pick(&[3, 20, 60, 600, 6000]);
    }

    fn has_service(&self, name: ServiceName) -> bool {
        self.rules.services.iter().any(|s| s.name == name)
    }

    /// Removes a key, where enough are left. Returns its name.
    pub fn remove(&mut self, chance: &mut Chance) -> Option<Arc<KeyName>> {
        if self.rules.keys.len() <= MIN_KEYS {
            return None;
        }
        let at = chance.index(self.rules.keys.len());
        let key = self.rules.keys.remove(at);
        let name = Arc::clone(&key.name);
        self.removed.push(key);
        Some(name)
    }

    fn bring_back(&mut self, chance: &mut Chance) -> String {
        // The key that was removed last comes back soonest.
        let back = chance.index(self.removed.len().min(3));
        let mut key = self.removed.remove(self.removed.len() - 1 - back);
        key.services.retain(|service| self.has_service(*service));
        let text = format!("key {} is back", key.name);
        self.rules.keys.push(key);
        text
    }

    /// Changes something. Returns what, for the history.
    pub fn change(&mut self, chance: &mut Chance, wall: Timestamp) -> String {
        match chance.below(11) {
            0 if self.rules.keys.len() < MAX_KEYS => self.add(chance),
            1 | 2 if self.rules.keys.len() > MIN_KEYS => match self.remove(chance) {
                Some(name) => format!("key {name} is removed"),
                None => "nothing is changed".into(),
            },
            0..=3 if !self.removed.is_empty() => self.bring_back(chance),
            0..=5 => self.change_generations(chance, wall),
            6 | 7 => {
                let at = chance.index(self.rules.keys.len());
                let mut key = self.rules.keys[at].clone();
                self.draw_policy(chance, &mut key);
                let text = format!("key {} has another policy", key.name);
                self.rules.keys[at] = key;
                text
            }
            8 => self.change_services(chance),
            9 if chance.percent(60) => {
                let grace = *chance.pick(&[0, 1, 10, 60, 300, 24 * 3600]);
                self.rules.rotation_grace = Duration::from_secs(grace);
                format!("rotation_grace is {grace} s")
            }
            9 => {
                let skew = *chance.pick(&[1, 10, 30, 30, 30, 30, 120, 600]);
                self.rules.skew = Duration::from_secs(skew);
                format!("skew is {skew} s")
            }
            _ => {
                self.rules.allow_gateway = !self.rules.allow_gateway;
                format!("allow_gateway is {}", self.rules.allow_gateway)
            }
        }
    }

    fn change_generations(&mut self, chance: &mut Chance, wall: Timestamp) -> String {
        let at = chance.index(self.rules.keys.len());
        let name = Arc::clone(&self.rules.keys[at].name);
        let count = self.rules.keys[at].generations.len();
        let back = self.retired.iter().rposition(|(of, _)| *of == name);
        match chance.below(5) {
            0 | 1 if count < MAX_GENERATIONS => {
                let new = self.generation(chance, &name);
                let text = format!("key {name} has a new generation, number {}", new.number);
                // As a rotation writes it: the older ones end, and a newer one's use brings
                // that end near.
                let overlap = Timestamp(wall.0 + chance.below(7 * 24 * 3_600_000));
                for older in &mut self.rules.keys[at].generations {
                    let end = older.not_after.map_or(overlap, |end| end.min(overlap));
                    older.not_after = chance.percent(80).then_some(end);
                }
                self.rules.keys[at].generations.push(new);
                text
            }
            2 if count > 1 => {
                let gone = self.rules.keys[at].generations.remove(0);
                let text = format!("key {name} loses generation {}", gone.number);
                self.retired.push((name, gone));
                text
            }
            3 if back.is_some() && count < MAX_GENERATIONS => {
                let (_, generation) = self.retired.remove(back.unwrap());
                let text = format!("key {name} has generation {} again", generation.number);
                self.rules.keys[at].generations.push(generation);
                text
            }
            _ => {
                let of = chance.index(count);
                let generation = &mut self.rules.keys[at].generations[of];
                let around = |chance: &mut Chance| {
                    let ms = chance.below(300_000);
                    chance
                        .percent(50)
                        .then(|| Timestamp((wall.0 + ms).saturating_sub(150_000)))
                };
                generation.not_before = around(chance);
                generation.not_after = around(chance).max(generation.not_before);
                if chance.percent(40) {
                    (generation.not_before, generation.not_after) = (None, None);
                }
                let (number, not_before) = (generation.number, generation.not_before);
                let not_after = generation.not_after;
                format!("key {name}, generation {number}: {not_before:?} to {not_after:?}")
            }
        }
    }

    /// The first service stays; the others come and go.
    fn change_services(&mut self, chance: &mut Chance) -> String {
        let index = usize::try_from(chance.between(1, 2)).unwrap();
        let name = service_name(index);
        if self.has_service(name) {
            self.rules.services.retain(|s| s.name != name);
            // The keys that may open it may be left to name it: it may come back.
            if chance.percent(50) {
                for key in &mut self.rules.keys {
                    key.services.retain(|s| *s != name);
                }
            }
            return format!("service {name} is removed");
        }
        self.rules.services.push(ServiceRules {
            default_time: Duration::from_secs(chance.between(1, 60)),
            max_time: Duration::from_secs(chance.between(60, 4000)),
            ..service(index)
        });
        format!("service {name} is there")
    }
}
