//! The gate, without a socket or a clock.

use super::*;
use crate::config::{Config, Key};
use oneknock_shared::knock::{Action, Knock};
use oneknock_shared::packet::seal;
use oneknock_shared::secret::{Secret, ServerId, random};

mod admin;
mod claims;
mod clocks;
mod packets;
mod policy;
mod reload;
mod retiring;

const T0: u64 = 1_800_000_000_000;
const LAPTOP: [u8; 4] = [192, 0, 2, 7];
const STRANGER: [u8; 4] = [192, 0, 2, 9];

/// A server with services ssh and web, key laptop for ssh and key phone for both.
struct Site {
    settings: Settings,
    gate: Gate,
    wall: u64,
    mono: Duration,
}

fn key(name: &str, services: &[&str]) -> Key {
    let services = services.iter().map(|s| s.parse().unwrap()).collect();
    Key {
        name: name.parse().unwrap(),
        policy: Policy::new(services),
        generations: vec![crate::config::Generation {
            number: 1,
            secret: Secret::generate().unwrap(),
            not_before: None,
            not_after: None,
            overlap_until: None,
            made: None,
        }],
    }
}

fn settings() -> Settings {
    let id = ServerId::generate().unwrap();
    let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
    let mut config = Config::new(name, host, 45123, id, "/nowhere".into());
    for (name, port) in [("ssh", "tcp/22"), ("web", "tcp/443")] {
        let port = port.parse().unwrap();
        config
            .services
            .push(Service::new(name.parse().unwrap(), vec![port]));
    }
    let keys = vec![key("laptop", &["ssh"]), key("phone", &["ssh", "web"])];
    Settings { config, keys }
}

impl Site {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let mono = Duration::from_secs(1000);
        let now = Now {
            wall: Timestamp(T0),
            mono,
        };
        let gate = Gate::new(&settings, now);
        Self {
            settings,
            gate,
            wall: T0,
            mono,
        }
    }

    /// A site whose key laptop was changed.
    fn edited(edit: impl FnOnce(&mut Key)) -> Self {
        let mut settings = settings();
        edit(&mut settings.keys[0]);
        Self::with(settings)
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

    fn packet(&self, key: usize, edit: impl FnOnce(&mut Knock)) -> Vec<u8> {
        let secret = &self.settings.keys[key].generations[0].secret;
        let subkeys = Subkeys::derive(secret, &self.settings.config.server_id);
        let mut knock = Knock {
            action: Action::Open { seconds: 0 },
            timestamp: Timestamp(self.wall),
            address: None,
            service: Some("ssh".parse().unwrap()),
        };
        edit(&mut knock);
        seal(&subkeys, &knock, random().unwrap()).to_vec()
    }

    /// The outcome as a word.
    fn send_from(&mut self, source: [u8; 4], packet: &[u8]) -> String {
        let now = self.now();
        word(&self.gate.handle(now, source.into(), packet))
    }

    fn send(&mut self, packet: &[u8]) -> String {
        self.send_from(LAPTOP, packet)
    }

    fn knock(&mut self, key: usize, edit: impl FnOnce(&mut Knock)) -> String {
        let packet = self.packet(key, edit);
        self.send(&packet)
    }

    fn admitted(&mut self) -> Vec<String> {
        let now = self.now();
        self.gate.grants(now).iter().map(change).collect()
    }
}

fn change(change: &Change) -> String {
    match change {
        Change::Admit { place, key, time } => {
            format!(
                "{} {} {key} {}",
                place.service,
                place.address,
                time.as_secs()
            )
        }
        Change::Shut { place } => format!("{} {} shut", place.service, place.address),
    }
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Junk(why) => format!("{why:?}").to_lowercase(),
        Verdict::Ignored { why, .. } => match why {
            Ignored::Stale { .. } => "stale".into(),
            Ignored::BelowFloor => "below-floor".into(),
            Ignored::Replayed => "replayed".into(),
        },
        Verdict::Refused(refused) => refused.why.word().into(),
        Verdict::Accepted(accepted) => accepted
            .changes
            .iter()
            .map(change)
            .collect::<Vec<_>>()
            .join("; "),
    }
}

fn close(knock: &mut Knock) {
    knock.action = Action::Close;
}

fn ask(seconds: u16) -> impl Fn(&mut Knock) {
    move |knock| knock.action = Action::Open { seconds }
}
