//! The server: the engine, and around it what the daemon does in the order in which it does
//! it, with a store and a kernel in memory.

use crate::disk::{Disk, End};
use crate::fold::PlainFold;
use crate::model::ms;
use oneknock_shared::knock::Timestamp;
use oneknock_tests::chance::Chance;
use oneknockd::engine::{Engine, Event, Now, Rules, Spend, State, Target};
use std::collections::BTreeMap;
use std::time::Duration;

pub struct Server {
    pub engine: Engine,
    /// Until when the kernel admits a target.
    pub kernel: BTreeMap<Target, Duration>,
    /// Whether nothing can be written to the kernel.
    pub kernel_fails: bool,
    pub disk: Disk<PlainFold>,
    rules: Rules,
    /// Nothing is accepted until the clock is synchronised.
    pub waits: bool,
}

/// What a start has found.
pub struct Start {
    /// `None`: no state.
    pub state: Option<State>,
    /// The floor after a power cut.
    pub floor: Option<Timestamp>,
    /// Written by an append that failed, and read all the same.
    pub torn: Vec<Spend>,
    pub events: Vec<Event>,
}

impl Server {
    /// A first start after `init`.
    pub fn new(rules: &Rules, now: Now) -> Self {
        Self {
            engine: Engine::new(rules.clone(), now),
            kernel: BTreeMap::new(),
            kernel_fails: false,
            disk: Disk::new(),
            rules: rules.clone(),
            waits: false,
        }
    }

    fn drain(&mut self) -> Vec<Event> {
        self.engine.drain_events().collect()
    }

    /// Starts again after a run that ended so.
    pub fn start(&mut self, end: End, rules: &Rules, chance: &mut Chance, now: Now) -> Start {
        if end == End::PowerCut {
            self.kernel.clear();
        }
        self.rules = rules.clone();
        self.engine = Engine::new(rules.clone(), now);
        let found = self.disk.start(end, chance);
        self.waits = found.is_none();
        let (state, floor) = found.unzip();
        let floor = floor.flatten();
        let torn = self.disk.torn().to_vec();
        let mut events = Vec::new();
        if let Some(state) = &state {
            self.engine.load(state.clone(), now);
            events = self.drain();
            self.begin(floor, now);
        }
        self.sync_all(now);
        Start {
            state,
            floor,
            torn,
            events,
        }
    }

    /// Begins a segment, after this floor.
    fn begin(&mut self, floor: Option<Timestamp>, now: Now) {
        if let Some(floor) = floor {
            self.engine.raise_floors(floor);
            self.disk.raise_mark(floor);
        }
        self.disk.begin(self.engine.snapshot(now));
    }

    /// The clock is right after a state that was lost. Returns the floor.
    pub fn synchronised(&mut self, now: Now) -> Timestamp {
        let floor = Timestamp(now.wall.0 + ms(self.rules.skew));
        self.begin(Some(floor), now);
        self.waits = false;
        floor
    }

    /// A new segment, as the daemon begins one now and then, and after a reload.
    pub fn begin_segment(&mut self, now: Now) {
        self.begin(None, now);
    }

    pub fn reload(&mut self, rules: &Rules, now: Now) -> Vec<Event> {
        self.rules = rules.clone();
        self.engine.reconfigure(rules.clone(), now);
        let events = self.drain();
        self.sync_all(now);
        events
    }

    /// A key is removed without a reload.
    pub fn drop_key(&mut self, rules: &Rules, now: Now) -> Vec<Event> {
        let before = std::mem::replace(&mut self.rules, rules.clone());
        for key in before.keys {
            if rules.keys.iter().all(|other| other.name != key.name) {
                self.engine.drop_key(now, &key.name);
            }
        }
        self.sync();
        self.drain()
    }

    /// The administrator ends what is open for these targets.
    pub fn revoke(&mut self, now: Now, meant: impl Fn(&Target) -> bool) -> Vec<Event> {
        let revoked = self.engine.revoke(now, |grant| meant(&grant.target));
        self.sync();
        let events = self.drain();
        let are_told = revoked.iter().all(|revoked| {
            let is_its_end =
                |event: &Event| matches!(event, Event::Ended { grant, .. } if grant == revoked);
            events.iter().any(is_its_end)
        });
        assert!(are_told, "{revoked:?} and {events:?}");
        events
    }

    /// Does what recorded packets ask.
    pub fn commit(&mut self, now: Now, spends: &[Spend]) -> Vec<Event> {
        self.engine.commit(now, spends);
        self.drain()
    }

    /// What the daemon does every second.
    pub fn tick(&mut self, now: Now) -> Vec<Event> {
        self.engine.tick(now);
        self.kernel.retain(|_, until| *until > now.mono);
        self.sync();
        self.drain()
    }

    /// Writes to the kernel what it may lack.
    pub fn sync(&mut self) {
        if self.kernel_fails {
            return;
        }
        let desired = self.engine.desired_mut();
        for target in desired.dirty() {
            match desired.allow().get(target) {
                Some(entry) => {
                    let services = &self.rules.services;
                    let is_there = services.iter().any(|s| s.name == target.service);
                    assert!(is_there, "there is no such set: {target:?}");
                    self.kernel.insert(*target, entry.until);
                }
                None => drop(self.kernel.remove(target)),
            }
        }
        desired.clean_all();
    }

    /// Makes the kernel's sets what they are to be, whatever is in them: after a start, a
    /// reload, and when another program has changed them. The daemon does not go on before.
    pub fn sync_all(&mut self, now: Now) {
        let desired = self.engine.desired_mut();
        let entries = desired.allow().iter();
        let lasting = entries.filter(|(_, entry)| entry.until > now.mono);
        self.kernel = lasting
            .map(|(target, entry)| (*target, entry.until))
            .collect();
        desired.clean_all();
    }
}
