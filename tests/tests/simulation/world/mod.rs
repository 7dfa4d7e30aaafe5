//! Time, and all that happens in it.

mod batch;
mod check;
mod clients;
mod network;
mod trouble;

use crate::disk::End;
use crate::history::{History, Note};
use crate::model::{Made, Model, ms};
use crate::server::Server;
use crate::site::Site;
use clients::{Device, Session};
use network::{Datagram, Line};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_tests::chance::Chance;
use oneknockd::engine::{Now, Spend, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The simulation begins then, in milliseconds since 1970.
const BEGIN: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

enum Happening {
    Arrive(Datagram, IpAddr),
    /// The device begins something.
    Act(usize),
    Step(Box<Session>),
    Close(usize, usize, Option<ServiceName>),
    /// The store has recorded the batch, in this run of the daemon.
    Recorded(u64),
    /// A grant is to end just then, in this run of the machine.
    Ends(Target, u64),
    /// The daemon's tick, in this run of it.
    Second(u64),
    Trouble,
    Kill,
    /// The kernel can be written to again.
    KernelWorks,
    /// The server's clock is right again, if it has not jumped since.
    ClockIsRight(u64),
    Start(End),
    /// In this run of the daemon.
    Synchronised(u64),
    LineChanges,
}

pub struct World {
    chance: Chance,
    /// Milliseconds since the begin, by the right clock.
    time: u64,
    queue: BTreeMap<(u64, u64), Happening>,
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
    line: Line,
    made: Vec<Made>,
    /// What was made, by its timestamp: the thief has seen it all.
    caught: BTreeSet<(u64, usize)>,
    /// What was judged, and is not recorded yet.
    batch: Vec<Spend>,
    /// Whether the store still writes an earlier part of it.
    is_recording: bool,
    history: History,
    delivered: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl World {
    pub fn new(mut chance: Chance) -> Self {
        let site = Site::new(&mut chance);
        let now = Now {
            wall: Timestamp(BEGIN + HOUR),
            mono: Duration::from_millis(HOUR),
        };
        let mut world = Self {
            server: Server::new(&site.rules, now),
            model: Model::new(&site.rules, now),
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
            line: Line::good(),
            made: Vec::new(),
            caught: BTreeSet::new(),
            batch: Vec::new(),
            is_recording: false,
            history: History::default(),
            delivered: 0,
            counts: BTreeMap::new(),
        };
        for event in [
            Happening::Second(0),
            Happening::Trouble,
            Happening::LineChanges,
        ] {
            world.after(1000, event);
        }
        world.equip();
        world
    }

    /// Lets it run until so many datagrams have reached the engine.
    pub fn run(&mut self, datagrams: u64) {
        while self.delivered < datagrams {
            let ((at, _), event) = self.queue.pop_first().unwrap();
            self.time = at;
            self.happen(event);
            self.record_soon();
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

    fn happen(&mut self, event: Happening) {
        match event {
            Happening::Arrive(datagram, from) => self.arrive(&datagram, from),
            Happening::Act(device) => self.act(device),
            Happening::Step(session) => self.step(session),
            Happening::Close(device, generation, service) => {
                self.close(device, generation, service);
            }
            Happening::Recorded(run) if run == self.run && self.is_up => {
                self.is_recording = false;
                self.record_and_commit();
            }
            Happening::Ends(target, booted) if booted == self.booted => self.check_end(target),
            Happening::Second(run) if run == self.run && self.is_up => self.second(),
            Happening::Trouble => self.trouble(),
            Happening::Kill if self.is_up => self.stop(End::Killed),
            Happening::KernelWorks => self.server.kernel_fails = false,
            Happening::ClockIsRight(jump) if jump == self.jumps => self.set_clock(0),
            Happening::Start(end) => self.start(end),
            Happening::Synchronised(run) if run == self.run && self.is_up => self.synchronised(),
            Happening::LineChanges => self.change_line(),
            // Of a run, or a jump, that is over.
            Happening::Recorded(_)
            | Happening::Ends(..)
            | Happening::Second(_)
            | Happening::Kill
            | Happening::ClockIsRight(_)
            | Happening::Synchronised(_) => {}
        }
    }

    fn after(&mut self, delay: u64, event: Happening) {
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
        ms(self.site.rules.skew)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, text: String) {
        let now = self.now();
        self.history.add(self.time, now, Note::Text(text));
    }

    fn fail(&self, key: Option<&KeyName>, target: Option<Target>, text: &str) -> ! {
        let history = self.history.tell(key, target, &self.made);
        panic!(
            "{text}\nafter {} datagrams; LAB_SEED={}\n{history}",
            self.delivered,
            self.chance.seed()
        );
    }

    /// The daemon's tick.
    fn second(&mut self) {
        let now = self.now();
        let is = self.server.tick(now);
        let right = self.model.tick(now);
        self.expect("a tick", &is, &right);
        self.note_events(&is);
        let seconds = self.time / 1000;
        if seconds.is_multiple_of(10) {
            if self.chance.percent(50) {
                self.begin_segment();
            }
            if self.chance.percent(80) {
                self.server.disk.sync();
            }
            self.compare_all();
        }
        if seconds.is_multiple_of(1000) && !self.server.waits {
            self.storm();
        }
        self.after(1000, Happening::Second(self.run));
    }
}
