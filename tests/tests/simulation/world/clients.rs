//! Those who hold keys: good clients, by the client's own timetable and its own choice of
//! what to sign, and such as no good client is.

use super::{Happening, World};
use crate::site::service_name;
use oneknock::knock::address::{AddressArg, AddressBinding};
use oneknock::knock::engine::{Binding, Bindings, Candidate, Engine, Goal, Step};
use oneknock::knock::proof::Proof;
use oneknock_shared::invitation::AddressRule;
use oneknock_shared::knock::{Action, Knock, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_tests::chance::Chance;
use oneknockd::engine::{Source, Target};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// How many addresses the holders of keys have among them.
const ADDRESSES: u64 = 60;

/// Someone who holds a key, and knocks with it.
pub struct Device {
    pub key: KeyName,
    pub address: IpAddr,
    /// How far its clock is ahead, in milliseconds.
    ahead: i64,
    choice: AddressArg,
}

/// A client that knocks until it is in.
pub struct Session {
    device: usize,
    generation: usize,
    service: Option<ServiceName>,
    seconds: u16,
    signing: AddressBinding,
    begun: u64,
    engine: Engine,
}

fn some_address(chance: &mut Chance) -> IpAddr {
    let index = chance.below(ADDRESSES);
    if index.is_multiple_of(3) {
        let low = 0x100 + u16::try_from(index).unwrap();
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, low).into()
    } else {
        Ipv4Addr::new(192, 0, 2, 10 + u8::try_from(index).unwrap()).into()
    }
}

/// How far a device's clock is ahead: mostly little.
fn some_error(chance: &mut Chance) -> i64 {
    let most: i64 = *chance.pick(&[70_000, 29_000, 3_000, 3_000, 3_000, 3_000, 3_000, 0]);
    let span = 2 * most.unsigned_abs() + 1;
    i64::try_from(chance.below(span)).unwrap() - most
}

impl World {
    /// Every key has its devices.
    pub(super) fn equip(&mut self) {
        for key in &self.site.rules.keys {
            if self.devices.iter().any(|device| device.key == *key.name) {
                continue;
            }
            for _ in 0..self.chance.between(1, 2) {
                let choice = match self.chance.below(10) {
                    0..=5 => AddressArg::Auto,
                    6..=8 => AddressArg::Source,
                    _ => AddressArg::Given(some_address(&mut self.chance)),
                };
                self.devices.push(Device {
                    key: (*key.name).clone(),
                    address: some_address(&mut self.chance),
                    ahead: some_error(&mut self.chance),
                    choice,
                });
            }
        }
        // One that has begun goes on by itself.
        for device in self.begun..self.devices.len() {
            let delay = self.chance.below(20_000);
            self.after(delay, Happening::Act(device));
        }
        self.begun = self.devices.len();
    }

    /// What the device's clock shows.
    fn clock_of(&self, device: usize) -> u64 {
        let ahead = self.devices[device].ahead;
        self.right_clock().saturating_add_signed(ahead)
    }

    /// Mostly the newest generation of the device's key, sometimes an older one.
    fn generation_of(&mut self, device: usize) -> usize {
        let ring = &self.site.rings[&self.devices[device].key];
        if self.chance.percent(70) {
            ring.len() - 1
        } else {
            self.chance.index(ring.len())
        }
    }

    fn rule_of(&self, device: usize) -> AddressRule {
        let keys = &self.site.rules.keys;
        let key = keys.iter().find(|k| *k.name == self.devices[device].key);
        if key.is_some_and(|key| key.require_signed_address) {
            AddressRule::Signed
        } else {
            AddressRule::Any
        }
    }

    /// One of the services, or all.
    fn some_service(&mut self) -> Option<ServiceName> {
        let index = self.chance.index(4);
        (index < 3).then(|| service_name(index))
    }

    pub(super) fn act(&mut self, device: usize) {
        if self.chance.percent(3) {
            self.devices[device].address = some_address(&mut self.chance);
        }
        if self.chance.percent(1) {
            self.devices[device].ahead = some_error(&mut self.chance);
        }
        match self.chance.below(100) {
            0..60 => self.begin_session(device),
            60..70 => {
                let generation = self.generation_of(device);
                let service = self.some_service();
                self.close(device, generation, service);
            }
            70..99 => {
                for _ in 0..self.chance.between(1, 6) {
                    self.odd_knock(device);
                }
            }
            _ => {
                for _ in 0..self.chance.between(50, 400) {
                    self.odd_knock(device);
                }
            }
        }
        let keys = &self.site.rules.keys;
        let has_key = keys.iter().any(|k| *k.name == self.devices[device].key);
        let next = self.chance.below(if has_key { 20_000 } else { 400_000 });
        self.after(next, Happening::Act(device));
    }

    fn begin_session(&mut self, device: usize) {
        let (choice, rule) = (self.devices[device].choice, self.rule_of(device));
        let Some(signing) = AddressBinding::for_open(choice, rule) else {
            return;
        };
        let local = self.devices[device].address;
        let bindings = match signing {
            AddressBinding::Never => Bindings::Only(Binding::Source),
            AddressBinding::IfGlobal => Bindings::Both(Binding::Signed),
            AddressBinding::Always | AddressBinding::Given(_) => Bindings::Only(Binding::Signed),
        };
        let candidate = Candidate {
            address: local,
            bindings: Ok(bindings),
            round_trip: None,
        };
        let ten_seconds = Duration::from_secs(10);
        let session = Session {
            device,
            generation: self.generation_of(device),
            service: self.some_service(),
            seconds: *self.chance.pick(&[0, 0, 0, 1, 7, 60, 600, 65_535]),
            signing,
            begun: self.time,
            engine: Engine::new(Goal::Connection, Proof::Ssh, ten_seconds, vec![candidate]),
        };
        self.step(Box::new(session));
    }

    pub(super) fn step(&mut self, mut session: Box<Session>) {
        loop {
            let now = Duration::from_millis(self.time - session.begun);
            match session.engine.next(now) {
                Step::Knock { binding, .. } => self.knock(&session, binding),
                // What does not answer at once is silent.
                Step::Connect { .. } if self.is_in(&session) => return,
                Step::Connect { .. } => {}
                Step::Wait(until) => {
                    let wait = u64::try_from(until.saturating_sub(now).as_millis()).unwrap();
                    self.after(wait.max(1), Happening::Step(session));
                    return;
                }
                Step::Done(_) => {
                    self.count("sessions that did not");
                    return;
                }
            }
        }
    }

    /// Whether the port answers; then it is closed again, now and then.
    fn is_in(&mut self, session: &Session) -> bool {
        let target = Target {
            service: session.service.unwrap_or(service_name(0)),
            source: Source::of(self.devices[session.device].address),
        };
        let now = self.now();
        let until = self.server.kernel.get(&target);
        if until.is_none_or(|until| *until <= now.mono) {
            return false;
        }
        self.count("sessions that got in");
        if self.chance.percent(30) {
            let delay = self.chance.below(60_000);
            let close = Happening::Close(session.device, session.generation, session.service);
            self.after(delay, close);
        }
        true
    }

    fn knock(&mut self, session: &Session, binding: Binding) {
        let local = self.devices[session.device].address;
        let signing = match binding {
            Binding::Signed => session.signing,
            Binding::Source => AddressBinding::Never,
        };
        let Ok(address) = signing.address(local) else {
            return;
        };
        let seconds = session.seconds;
        let knock = Knock {
            action: Action::Open { seconds },
            timestamp: Timestamp(self.clock_of(session.device)),
            address,
            service: session.service,
        };
        self.send(session.device, session.generation, knock);
    }

    pub(super) fn close(&mut self, device: usize, generation: usize, service: Option<ServiceName>) {
        let signing = AddressBinding::for_close(self.devices[device].choice, self.rule_of(device));
        let local = self.devices[device].address;
        let Some(Ok(address)) = signing.map(|signing| signing.address(local)) else {
            return;
        };
        let knock = Knock {
            action: Action::Close,
            timestamp: Timestamp(self.clock_of(device)),
            address,
            service,
        };
        self.send(device, generation, knock);
    }

    /// A knock that no good client makes, but a holder of a key can.
    fn odd_knock(&mut self, device: usize) {
        let generation = self.generation_of(device);
        let knock = Knock {
            action: if self.chance.percent(25) {
                Action::Close
            } else {
                let seconds = u16::try_from(self.chance.below(100)).unwrap();
                Action::Open { seconds }
            },
            timestamp: Timestamp(self.odd_time(device)),
            address: match self.chance.below(10) {
                0 => Some(Ipv4Addr::LOCALHOST.into()),
                1 => Some(some_address(&mut self.chance)),
                2..=4 => Some(self.devices[device].address),
                _ => None,
            },
            service: if self.chance.percent(3) {
                Some("nosuch".parse().unwrap())
            } else {
                self.some_service()
            },
        };
        if self.chance.percent(50) {
            self.send(device, generation, knock);
            return;
        }
        let mut source = self.devices[device].address;
        if self.chance.percent(5) {
            let odd = [
                GATEWAY,
                GATEWAY,
                Ipv4Addr::LOCALHOST.into(),
                Ipv6Addr::LOCALHOST.into(),
            ];
            source = *self.chance.pick(&odd);
        }
        self.send_at_once(device, generation, knock, source);
    }

    /// By the server's clock, at the very edges of the window; by the own; or anywhere.
    fn odd_time(&mut self, device: usize) -> u64 {
        let (skew, own) = (self.skew(), self.clock_of(device));
        let mut server = self.now().wall.0;
        // One that is far ahead would be the generation's floor from then on.
        if server > own + 600_000 && self.chance.percent(99) {
            server = own;
        }
        match self.chance.below(12) {
            0 => server + skew,
            1 => server + skew + 1,
            2 => server.saturating_sub(skew),
            3 => server.saturating_sub(skew + 1),
            4 => server,
            5 => (own + self.chance.below(3 * skew)).saturating_sub(3 * skew / 2),
            _ => own,
        }
    }
}
