//! Time, and all that happens in it.

mod check;
mod clients;
mod network;
mod trouble;

use crate::disk::End;
use crate::history::{History, Note};
use crate::model::{Before, Look, Made, Model, Wish};
use crate::server::Server;
use crate::site::Site;
use clients::{Device, Session};
use network::{Weather, What};
use oneknock::schedule::{Step, timeline};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_tests::chance::Chance;
use oneknockd::gate::{Now, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// The simulation begins then, in milliseconds since 1970.
const BEGIN: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

enum Event {
    Arrive(What, IpAddr),
    /// The device begins something.
    Act(usize),
    Step(Box<Session>),
    Close(usize, usize, Option<ServiceName>),
    /// A grant is to end just then, in this run of the machine.
    Ends(Place, u64),
    /// The daemon's tick, in this run of it.
    Second(u64),
    Trouble,
    Kill,
    /// The server's clock is right again, if it has not jumped since.
    ClockIsRight(u64),
    Start(End),
    /// In this run of the daemon.
    Synchronised(u64),
    Weather,
}

/// A step of a client's timetable.
type Steps = Rc<[(Duration, Step)]>;

pub struct World {
    chance: Chance,
    /// Milliseconds since the begin, by the right clock.
    time: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    site: Site,
    server: Server,
    model: Model,
    is_up: bool,
    /// Counts the daemon's starts.
    run: u64,
    /// When the machine started.
    booted: u64,
    /// How far the server's clock is ahead, in milliseconds.
    ahead: i64,
    jumps: u64,
    devices: Vec<Device>,
    /// So many of them have begun.
    begun: usize,
    weather: Weather,
    made: Vec<Made>,
    /// What was made, by its timestamp: the thief has seen it all.
    caught: BTreeSet<(u64, usize)>,
    /// What was accepted, and is not recorded and granted yet.
    batch: Vec<(usize, Vec<Wish>, Before)>,
    history: History,
    delivered: u64,
    counts: BTreeMap<&'static str, u64>,
    /// Of a client that may fall back to the packet's source, and of one that may not.
    timelines: [Steps; 2],
}

impl World {
    pub fn new(mut chance: Chance) -> Self {
        let site = Site::new(&mut chance);
        let now = Now {
            wall: Timestamp(BEGIN + HOUR),
            mono: Duration::from_millis(HOUR),
        };
        let in_ten_seconds = |fall_back| timeline(Duration::from_secs(10), fall_back).into();
        let mut world = Self {
            server: Server::new(&site.settings, now),
            model: Model::new(&site, now),
            chance,
            time: HOUR,
            queue: BTreeMap::new(),
            queued: 0,
            site,
            is_up: true,
            run: 0,
            booted: 0,
            ahead: 0,
            jumps: 0,
            devices: Vec::new(),
            begun: 0,
            weather: Weather::calm(),
            made: Vec::new(),
            caught: BTreeSet::new(),
            batch: Vec::new(),
            history: History::default(),
            delivered: 0,
            counts: BTreeMap::new(),
            timelines: [true, false].map(in_ten_seconds),
        };
        for event in [Event::Second(0), Event::Trouble, Event::Weather] {
            world.after(1000, event);
        }
        world.equip();
        world
    }

    /// Lets it run until so many datagrams have reached the gate.
    pub fn run(&mut self, datagrams: u64) {
        while self.delivered < datagrams {
            let ((at, _), event) = self.queue.pop_first().unwrap();
            self.time = at;
            self.happen(event);
            self.settle();
        }
        self.compare_all();
    }

    /// How often each outcome came.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The simulated time, in hours.
    pub fn hours(&self) -> u64 {
        self.time / HOUR
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(what, source) => self.arrive(&what, source),
            Event::Act(device) => self.act(device),
            Event::Step(session) => self.step(session),
            Event::Close(device, generation, service) => self.close(device, generation, service),
            Event::Ends(place, booted) if booted == self.booted => self.check_end(place),
            Event::Second(run) if run == self.run && self.is_up => self.second(),
            Event::Trouble => self.trouble(),
            Event::Kill if self.is_up => self.stop(End::Killed),
            Event::ClockIsRight(jump) if jump == self.jumps => self.set_clock(0),
            Event::Start(end) => self.start(end),
            Event::Synchronised(run) if run == self.run && self.is_up => self.synchronised(),
            Event::Weather => self.change_weather(),
            // Of a run, or a jump, that is over.
            Event::Ends(..)
            | Event::Second(_)
            | Event::Kill
            | Event::ClockIsRight(_)
            | Event::Synchronised(_) => {}
        }
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.time + delay, self.queued), event);
    }

    fn right_clock(&self) -> u64 {
        BEGIN + self.time
    }

    /// What the server's clocks say.
    fn now(&self) -> Now {
        let wall = self.right_clock().saturating_add_signed(self.ahead);
        Now {
            wall: Timestamp(wall),
            mono: Duration::from_millis(self.time - self.booted),
        }
    }

    fn skew(&self) -> u64 {
        u64::try_from(self.site.settings.config.skew.as_millis()).unwrap()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, text: String) {
        let now = self.now();
        self.history.add(self.time, now, Note::Event(text));
    }

    fn fail(&self, key: Option<&KeyName>, place: Option<Place>, text: &str) -> ! {
        let history = self.history.tell(key, place, &self.made);
        panic!(
            "{text}\nafter {} datagrams; LAB_SEED={}\n{history}",
            self.delivered,
            self.chance.seed()
        );
    }

    /// The daemon's tick.
    fn second(&mut self) {
        let now = self.now();
        self.server.tick(now);
        self.model.look(now, Look::Second);
        let seconds = self.time / 1000;
        if seconds.is_multiple_of(10) {
            let disk_takes_it = self.chance.percent(95);
            if !self.server.waits && self.server.tidy(now, disk_takes_it) {
                self.model.tidied();
            }
            if self.chance.percent(80) {
                self.server.disk.sync();
            }
            self.compare_all();
        }
        if seconds.is_multiple_of(1000) && !self.server.waits {
            self.storm();
        }
        self.after(1000, Event::Second(self.run));
    }
}
