//! The settings of the simulated server, and how an administrator changes them.

use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::{GenerationId, Secret, ServerId, Subkeys};
use oneknock_tests::chance::Chance;
use oneknockd::config::{Config, Generation, Key, Policy, Service, Settings};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

const SERVICES: [(&str, &str); 3] = [("ssh", "tcp/22"), ("web", "tcp/443"), ("mosh", "udp/60000")];
/// Keys that there are at most; fewer than [`LEAST_KEYS`] are never left.
pub const MOST_KEYS: usize = 16;
const LEAST_KEYS: usize = 6;
const MOST_GENERATIONS: usize = 3;

/// A generation as its holder has it.
#[derive(Clone)]
pub struct Held {
    pub id: GenerationId,
    pub subkeys: Subkeys,
}

pub struct Site {
    pub settings: Settings,
    /// Every generation that a key ever had, in the order of their making.
    pub rings: BTreeMap<KeyName, Vec<Held>>,
    /// Keys that were removed and may come back.
    gone: Vec<Key>,
    /// Generations that were taken out of their key and may come back.
    parted: Vec<(KeyName, Generation)>,
    ids: HashMap<Secret, GenerationId>,
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

fn service(index: usize) -> Service {
    let (name, port) = SERVICES[index];
    Service::new(name.parse().unwrap(), vec![port.parse().unwrap()])
}

pub fn service_name(index: usize) -> ServiceName {
    SERVICES[index].0.parse().unwrap()
}

impl Site {
    pub fn new(chance: &mut Chance) -> Self {
        let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
        let id = server_id(chance);
        let mut config = Config::new(name, host, 45123, id, "/nowhere".into());
        config.services = (0..SERVICES.len()).map(service).collect();
        let mut site = Self {
            settings: Settings {
                config,
                keys: Vec::new(),
            },
            rings: BTreeMap::new(),
            gone: Vec::new(),
            parted: Vec::new(),
            ids: HashMap::new(),
            made: 0,
        };
        for _ in 0..LEAST_KEYS + 4 {
            site.add(chance);
        }
        site
    }

    fn generation(&mut self, chance: &mut Chance, name: &KeyName, number: u32) -> Generation {
        let secret = secret(chance);
        let subkeys = Subkeys::derive(&secret, &self.settings.config.server_id);
        let id = subkeys.id();
        self.ids.insert(secret.clone(), id);
        let ring = self.rings.entry(name.clone()).or_default();
        ring.push(Held { id, subkeys });
        Generation {
            number,
            secret,
            not_before: None,
            not_after: None,
            overlap_until: None,
            made: None,
        }
    }

    /// What tells the generations of a key apart.
    pub fn ids(&self, key: &Key) -> Vec<GenerationId> {
        let secrets = key.generations.iter().map(|g| &g.secret);
        secrets.map(|secret| self.ids[secret]).collect()
    }

    /// A new key. Its name is never used again by another.
    fn add(&mut self, chance: &mut Chance) -> String {
        self.made += 1;
        let name: KeyName = format!("key{}", self.made).parse().unwrap();
        let mut policy = Policy::new(Vec::new());
        self.draw_policy(chance, &mut policy);
        let generations = vec![self.generation(chance, &name, 1)];
        let text = format!("key {name} is added: {policy:?}");
        self.settings.keys.push(Key {
            name,
            policy,
            generations,
        });
        text
    }

    fn draw_policy(&self, chance: &mut Chance, policy: &mut Policy) {
        let there = self.settings.config.services.iter().map(|s| s.name);
        policy.services = there.filter(|_| chance.percent(60)).collect();
        if policy.services.is_empty() {
            policy.services.push(service_name(0));
        }
        policy.max_open_for = chance
            .percent(30)
            .then(|| Duration::from_secs(chance.between(1, 90)));
        policy.signed_address = chance.percent(20);
        policy.admit_others = chance.percent(30);
        policy.grants = *chance.pick(&[1, 2, 4, 16, 1000]);
        policy.knocks_per_minute = *chance.pick(&[3, 20, 60, 600, 6000]);
    }

    /// Changes something. Returns what, for the history.
    pub fn change(&mut self, chance: &mut Chance, wall: Timestamp) -> String {
        match chance.below(11) {
            0 if self.settings.keys.len() < MOST_KEYS => self.add(chance),
            1 | 2 if self.settings.keys.len() > LEAST_KEYS => {
                let at = chance.index(self.settings.keys.len());
                let key = self.settings.keys.remove(at);
                let text = format!("key {} is removed", key.name);
                self.gone.push(key);
                text
            }
            0..=3 if !self.gone.is_empty() => {
                // Who was removed last comes back soonest.
                let back = chance.index(self.gone.len().min(3));
                let mut key = self.gone.remove(self.gone.len() - 1 - back);
                let config = &self.settings.config;
                key.policy.services.retain(|s| config.service(*s).is_some());
                if key.policy.services.is_empty() {
                    key.policy.services.push(service_name(0));
                }
                let text = format!("key {} is back", key.name);
                self.settings.keys.push(key);
                text
            }
            0..=5 => self.change_generations(chance, wall),
            6 | 7 => {
                let at = chance.index(self.settings.keys.len());
                let mut policy = self.settings.keys[at].policy.clone();
                self.draw_policy(chance, &mut policy);
                let text = format!("key {}: {policy:?}", self.settings.keys[at].name);
                self.settings.keys[at].policy = policy;
                text
            }
            8 => self.change_services(chance),
            9 if chance.percent(60) => {
                let grace = *chance.pick(&[1, 10, 60, 300, 24 * 3600]);
                self.settings.config.rotation_grace = Duration::from_secs(grace);
                format!("rotation_grace is {grace} s")
            }
            9 => {
                let skew = *chance.pick(&[1, 10, 30, 30, 30, 30, 120, 600]);
                self.settings.config.skew = Duration::from_secs(skew);
                format!("skew is {skew} s")
            }
            _ => {
                let config = &mut self.settings.config;
                config.admit_gateway = !config.admit_gateway;
                format!("admit_gateway is {}", config.admit_gateway)
            }
        }
    }

    fn change_generations(&mut self, chance: &mut Chance, wall: Timestamp) -> String {
        let at = chance.index(self.settings.keys.len());
        let name = self.settings.keys[at].name.clone();
        let count = self.settings.keys[at].generations.len();
        let back = self.parted.iter().rposition(|(of, _)| *of == name);
        match chance.below(5) {
            0 | 1 if count < MOST_GENERATIONS => {
                let number = u32::try_from(self.rings[&name].len()).unwrap() + 1;
                let new = self.generation(chance, &name, number);
                self.settings.keys[at].generations.push(new);
                format!("key {name} has a new generation, number {number}")
            }
            2 if count > 1 => {
                let parted = self.settings.keys[at].generations.remove(0);
                let text = format!("key {name} loses generation {}", parted.number);
                self.parted.push((name, parted));
                text
            }
            3 if back.is_some() && count < MOST_GENERATIONS => {
                let (_, generation) = self.parted.remove(back.unwrap());
                let text = format!("key {name} has generation {} again", generation.number);
                self.settings.keys[at].generations.push(generation);
                text
            }
            _ => {
                let of = chance.index(count);
                let generation = &mut self.settings.keys[at].generations[of];
                let around = |chance: &mut Chance| {
                    let ms = chance.below(300_000);
                    chance
                        .percent(50)
                        .then(|| Timestamp((wall.0 + ms).saturating_sub(150_000)))
                };
                generation.not_before = around(chance);
                generation.not_after = around(chance).max(generation.not_before);
                if chance.percent(40) {
                    // As a rotation has it: an end that only a newer one's use brings near.
                    let overlap = Timestamp(wall.0 + chance.below(7 * 24 * 3_600_000));
                    let end = chance.percent(70).then_some(overlap);
                    (generation.not_before, generation.not_after) = (None, end);
                }
                let (number, not_before) = (generation.number, generation.not_before);
                let not_after = generation.not_after;
                format!("key {name}, generation {number}: {not_before:?} to {not_after:?}")
            }
        }
    }

    /// The first service stays; the others come and go.
    fn change_services(&mut self, chance: &mut Chance) -> String {
        let index = chance.between(1, 2);
        let index = usize::try_from(index).unwrap();
        let name = service_name(index);
        let services = &mut self.settings.config.services;
        if let Some(at) = services.iter().position(|s| s.name == name) {
            services.remove(at);
            for key in &mut self.settings.keys {
                key.policy.services.retain(|s| *s != name);
                if key.policy.services.is_empty() {
                    key.policy.services.push(service_name(0));
                }
            }
            return format!("service {name} is removed");
        }
        let mut new = service(index);
        new.open_for = Duration::from_secs(chance.between(1, 60));
        new.max_open_for = Duration::from_secs(chance.between(60, 4000));
        services.push(new);
        format!("service {name} is there")
    }
}
