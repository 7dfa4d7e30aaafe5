//! The engine, without a socket, a clock or a disk.

use super::*;
use oneknock_shared::knock::{Action, Knock};
use oneknock_shared::name::KeyName;
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, ServerId, Subkeys, random};
use std::sync::Arc;

mod admin;
mod batches;
mod clocks;
mod closes;
mod grants;
mod packets;
mod policy;
mod reload;
mod restart;
mod retirement;
mod rights;

const T0: u64 = 1_800_000_000_000;
const LAPTOP: [u8; 4] = [192, 0, 2, 7];
const STRANGER: [u8; 4] = [192, 0, 2, 9];
const HOUR: u64 = 3600;

/// A server with services ssh and web, key laptop for ssh and key phone for both.
struct Site {
    rules: Rules,
    engine: Engine,
    wall: u64,
    mono: Duration,
}

fn subkeys() -> Subkeys {
    let id = ServerId::generate().unwrap();
    Subkeys::derive(&Secret::generate().unwrap(), &id)
}

fn generation(number: u32) -> GenerationRules {
    GenerationRules {
        number,
        subkeys: subkeys(),
        not_before: None,
        not_after: None,
    }
}

fn key(name: &str, services: &[&str]) -> KeyRules {
    KeyRules {
        name: Arc::new(name.parse().unwrap()),
        services: services.iter().map(|s| s.parse().unwrap()).collect(),
        max_time: None,
        require_signed_address: false,
        allow_other_address: false,
        max_grants: 16,
        knocks_per_minute: 60,
        generations: vec![generation(1)],
    }
}

fn rules() -> Rules {
    let service = |name: &str| ServiceRules {
        name: name.parse().unwrap(),
        default_time: Duration::from_secs(30),
        max_time: Duration::from_secs(8 * HOUR),
    };
    Rules {
        skew: Duration::from_secs(30),
        rotation_grace: Duration::from_secs(24 * HOUR),
        allow_gateway: false,
        services: vec![service("ssh"), service("web")],
        keys: vec![key("laptop", &["ssh"]), key("phone", &["ssh", "web"])],
    }
}

impl Site {
    fn new() -> Self {
        Self::with(rules())
    }

    fn with(rules: Rules) -> Self {
        let mono = Duration::from_secs(1000);
        let now = Now {
            wall: Timestamp(T0),
            mono,
        };
        let engine = Engine::new(rules.clone(), now);
        Self {
            rules,
            engine,
            wall: T0,
            mono,
        }
    }

    /// A site whose key laptop was changed.
    fn edited(edit: impl FnOnce(&mut KeyRules)) -> Self {
        let mut rules = rules();
        edit(&mut rules.keys[0]);
        Self::with(rules)
    }

    fn now(&self) -> Now {
        Now {
            wall: Timestamp(self.wall),
            mono: self.mono,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.wall += seconds * 1000;
        self.mono += Duration::from_secs(seconds);
    }

    fn tick(&mut self) -> Vec<String> {
        let now = self.now();
        self.engine.tick(now);
        self.events()
    }

    /// The rules are these from now on; what happened by it.
    fn reload(&mut self) -> Vec<String> {
        let (rules, now) = (self.rules.clone(), self.now());
        self.engine.reconfigure(rules, now);
        self.events()
    }

    /// The daemon starts again, with all that it had written; what happened by it.
    fn restart(&mut self) -> Vec<String> {
        let (rules, now) = (self.rules.clone(), self.now());
        let state = self.engine.snapshot(now);
        self.engine = Engine::new(rules, now);
        self.engine.load(state, now);
        self.events()
    }

    fn packet(&self, key: usize, edit: impl FnOnce(&mut Knock)) -> Vec<u8> {
        self.packet_by(key, 0, edit)
    }

    /// A packet made with one of the key's generations.
    fn packet_by(&self, key: usize, generation: usize, edit: impl FnOnce(&mut Knock)) -> Vec<u8> {
        let mut knock = Knock {
            action: Action::Open { seconds: 0 },
            timestamp: Timestamp(self.wall),
            address: None,
            service: Some("ssh".parse().unwrap()),
        };
        edit(&mut knock);
        let subkeys = &self.rules.keys[key].generations[generation].subkeys;
        seal(subkeys, &knock, random().unwrap()).to_vec()
    }

    /// Judges a packet that is to pass.
    fn spend(&mut self, packet: &[u8]) -> Spend {
        let now = self.now();
        self.engine.judge(now, LAPTOP.into(), packet).unwrap()
    }

    fn commit(&mut self, spends: &[Spend]) -> Vec<String> {
        let now = self.now();
        self.engine.commit(now, spends);
        self.events()
    }

    /// The outcome of a packet that is recorded and committed at once; not what ended before.
    fn send_from(&mut self, source: impl Into<IpAddr>, packet: &[u8]) -> String {
        let now = self.now();
        match self.engine.judge(now, source.into(), packet) {
            Ok(spend) => {
                let mut events = self.commit(&[spend]);
                events.retain(|event| !event.ends_with("Expired"));
                events.join("; ")
            }
            Err(event) => self.text(&event),
        }
    }

    fn send(&mut self, packet: &[u8]) -> String {
        self.send_from(LAPTOP, packet)
    }

    fn knock(&mut self, key: usize, edit: impl FnOnce(&mut Knock)) -> String {
        let packet = self.packet(key, edit);
        self.send(&packet)
    }

    fn events(&mut self) -> Vec<String> {
        let events: Vec<Event> = self.engine.drain_events().collect();
        // What an accepted packet did follows it.
        let did = events
            .iter()
            .filter(|e| !matches!(e, Event::Accepted { .. }));
        did.map(|event| self.text(event)).collect()
    }

    /// What the kernel is to hold for the target: whose entry, and its seconds.
    fn entry(&self, target: Target) -> String {
        let Target { service, source } = target;
        match self.engine.desired().allow().get(&target) {
            Some(entry) => {
                let left = entry.until.saturating_sub(self.mono).as_secs();
                format!("{service} {source} {} {left}", entry.key)
            }
            None => format!("{service} {source} shut"),
        }
    }

    /// All allow entries that are to stand.
    fn allowed(&self) -> Vec<String> {
        let targets = self.engine.desired().allow().keys();
        targets.map(|&target| self.entry(target)).collect()
    }

    /// The live grants, with the seconds that they have left.
    fn grants(&self) -> Vec<String> {
        self.grants_after(None)
    }

    fn grants_after(&self, after: Option<(Target, &KeyName)>) -> Vec<String> {
        let grants = self.engine.grants(self.now(), after);
        let text = grants.map(|grant| {
            let Target { service, source } = grant.target;
            let left = grant.until.saturating_sub(self.mono).as_secs();
            format!("{service} {source} {} {left}", grant.key)
        });
        text.collect()
    }

    /// An event as a few words; of a grant or a close, the allow entry that is to stand.
    fn text(&self, event: &Event) -> String {
        match event {
            Event::Junk(why) => format!("{why:?}").to_lowercase(),
            Event::Rejected(rejection) => rejection.reason.name().into(),
            Event::Granted { grant, .. } => self.entry(grant.target),
            Event::Closed { target, .. } => self.entry(*target),
            Event::Ended { grant, why } => {
                format!("{} of {} ended: {why:?}", grant.target.service, grant.key)
            }
            Event::Restored(grant) => format!("{} of {} goes on", grant.target.service, grant.key),
            Event::Retiring { key, number, .. } => format!("{key} {number} retires"),
            Event::Accepted { key, number, .. } => format!("{key} {number} accepted"),
        }
    }
}

fn target(service: &str, source: [u8; 4]) -> Target {
    Target {
        service: service.parse().unwrap(),
        source: Source::of(source.into()),
    }
}

fn close(knock: &mut Knock) {
    knock.action = Action::Close;
}

fn ask(seconds: u16) -> impl Fn(&mut Knock) {
    move |knock| knock.action = Action::Open { seconds }
}

fn of(service: &str) -> impl Fn(&mut Knock) {
    move |knock| knock.service = Some(service.parse().unwrap())
}

fn of_all(knock: &mut Knock) {
    knock.service = None;
}

fn sign(address: [u8; 4]) -> impl Fn(&mut Knock) {
    move |knock| knock.address = Some(address.into())
}
