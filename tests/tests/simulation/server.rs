//! The server: the gate, and around it what the daemon does in the order in which it does
//! it, with a ledger and a kernel in memory.

use crate::disk::{Disk, End};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_tests::chance::Chance;
use oneknockd::config::Settings;
use oneknockd::gate::{Accepted, Change, Gate, Lost, Memory, Now, Place};
use std::collections::BTreeMap;
use std::time::Duration;

/// A time in the kernel that differs from the gate's by less is the same.
pub const TOLERANCE: Duration = Duration::from_secs(2);
/// Changes that one batch makes at most.
const CHANGES: usize = 64;

/// Whom the kernel admits, until when.
pub type Kernel = BTreeMap<Place, Duration>;

/// What goes wrong after packets were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The ledger cannot record them.
    Unrecorded,
    /// The firewall cannot make it so.
    Ungranted,
    /// The daemon is killed after it recorded them.
    Killed,
}

pub struct Server {
    pub gate: Gate,
    pub kernel: Kernel,
    /// The kernel's times as the last start, or a heal, has left them.
    pub left: Kernel,
    pub disk: Disk,
    settings: Settings,
    /// Nothing is accepted until the clock is synchronised.
    pub waits: bool,
    batch: Vec<Accepted>,
}

impl Server {
    /// A first start after `init`.
    pub fn new(settings: &Settings, now: Now) -> Self {
        Self {
            gate: Gate::new(settings, now),
            kernel: Kernel::new(),
            left: Kernel::new(),
            disk: Disk::new(),
            settings: settings.clone(),
            waits: false,
            batch: Vec::new(),
        }
    }

    /// Starts again after a run that ended so. Returns the floor after a power cut.
    pub fn start(
        &mut self,
        end: End,
        settings: &Settings,
        chance: &mut Chance,
        now: Now,
    ) -> Option<Timestamp> {
        if end == End::PowerCut {
            self.kernel.clear();
        }
        self.put_up(settings, now);
        self.gate = Gate::new(settings, now);
        let found = self.disk.start(end, chance, now);
        self.waits = found.is_none();
        let (memory, floor) = found.unwrap_or((Memory::default(), None));
        if !self.waits {
            self.gate.restore(&memory);
            self.begin(floor, now);
        }
        let lost = self.gate.resume(now, &memory.claims);
        self.disk.lose(&lost);
        let lost = self.gate.reconfigure(settings, now);
        self.disk.lose(&lost);
        self.reconcile(now);
        floor
    }

    fn begin(&mut self, floor: Option<Timestamp>, now: Now) {
        self.gate.cover_new(now);
        if let Some(floor) = floor {
            self.gate.raise_floors(floor);
        }
        let forgotten = self.gate.forgotten(now);
        self.disk.begin(&forgotten, floor.unwrap_or(Timestamp(0)));
    }

    /// The clock is right after a state that was lost. Returns the floor.
    pub fn synchronised(&mut self, now: Now) -> Timestamp {
        let skew = u64::try_from(self.settings.config.skew.as_millis()).unwrap();
        let floor = Timestamp(now.wall.0 + skew);
        self.begin(Some(floor), now);
        self.waits = false;
        floor
    }

    /// The guard as the settings want it: sets of services that are gone go.
    fn put_up(&mut self, settings: &Settings, now: Now) {
        self.settings = settings.clone();
        self.kernel.retain(|_, until| *until > now.mono);
        let is_there = |place: &Place| settings.config.service(place.service).is_some();
        self.kernel.retain(|place, _| is_there(place));
    }

    /// Makes the kernel's sets what the gate knows.
    fn reconcile(&mut self, now: Now) {
        let mut changes = self.gate.grants(now);
        let differs = |change: &Change| match change {
            Change::Admit { place, time, .. } => {
                let until = self.kernel.get(place);
                let fits = |until: &Duration| until.abs_diff(now.mono + *time) < TOLERANCE;
                self.has(place) && !until.is_some_and(fits)
            }
            Change::Shut { .. } => false,
        };
        changes.retain(differs);
        let unclaimed = self.kernel.keys().filter(|p| !self.gate.admits(now, **p));
        changes.extend(unclaimed.map(|&place| Change::Shut { place }));
        self.apply(now, &changes);
        self.left = self.kernel.clone();
    }

    /// Puts right what another program has done to the guard.
    pub fn heal(&mut self, now: Now) {
        self.put_up(&self.settings.clone(), now);
        self.reconcile(now);
    }

    pub fn reload(&mut self, settings: &Settings, now: Now) {
        self.put_up(settings, now);
        self.reconcile(now);
        let mut ended = self.gate.in_force(now);
        let lost = self.gate.reconfigure(settings, now);
        self.end(&lost, now);
        let after = self.gate.in_force(now);
        ended.retain(|id, _| !after.contains_key(id));
        let opened = self.disk.opened_by(&ended.into_keys().collect());
        let is_one = |key: &KeyName, place: &Place| opened.contains(&(key.clone(), *place));
        let ended = self.gate.end(now, is_one);
        self.end(&ended.lost, now);
    }

    /// The administrator ends what one address holds.
    pub fn revoke(&mut self, now: Now, meant: impl Fn(&Place) -> bool) {
        let ended = self.gate.end(now, |_, place| meant(place));
        self.end(&ended.lost, now);
    }

    fn end(&mut self, lost: &Lost, now: Now) {
        self.disk.lose(lost);
        let is_there = |change: &&Change| {
            let (Change::Admit { place, .. } | Change::Shut { place }) = change;
            self.has(place)
        };
        let changes = lost.changes.iter().filter(is_there).cloned();
        self.apply(now, &changes.collect::<Vec<_>>());
    }

    fn has(&self, place: &Place) -> bool {
        self.settings.config.service(place.service).is_some()
    }

    fn apply(&mut self, now: Now, changes: &[Change]) {
        for change in changes {
            let (Change::Admit { place, .. } | Change::Shut { place }) = change;
            assert!(self.has(place), "there is no such set: {change:?}");
            if let Change::Admit { time, .. } = change {
                assert!(!time.is_zero(), "a grant for no time: {change:?}");
                self.kernel.insert(*place, now.mono + *time);
            } else {
                self.kernel.remove(place);
            }
        }
    }

    /// Whether what is in the batch must be settled before more is judged.
    pub fn is_full(&self) -> bool {
        let changes: usize = self.batch.iter().map(|one| one.changes.len()).sum();
        changes + self.settings.config.services.len() > CHANGES
    }

    pub fn push(&mut self, accepted: Accepted) {
        self.batch.push(accepted);
    }

    /// Records and grants what was accepted; or takes it back, the last first.
    pub fn settle(&mut self, now: Now, fault: Fault) {
        let batch = std::mem::take(&mut self.batch);
        if fault != Fault::Unrecorded {
            for one in &batch {
                self.disk.record(one, now);
            }
        }
        match fault {
            Fault::None => {
                let changes = batch.iter().flat_map(|one| one.changes.clone());
                self.apply(now, &changes.collect::<Vec<_>>());
            }
            Fault::Killed => {}
            Fault::Unrecorded | Fault::Ungranted => {
                for one in batch.iter().rev() {
                    self.gate.undo(one);
                    if fault == Fault::Ungranted {
                        self.disk.undo(one);
                    }
                }
            }
        }
    }

    /// What the daemon does every second.
    pub fn tick(&mut self, now: Now) {
        self.gate.tick(now);
        self.kernel.retain(|_, until| *until > now.mono);
        drop(self.gate.take_left());
    }

    /// What it does every ten. Returns whether the disk took it.
    pub fn tidy(&mut self, now: Now, disk_takes_it: bool) -> bool {
        let forgotten = self.gate.forgotten(now);
        if !disk_takes_it {
            self.gate.remind(&forgotten);
            return false;
        }
        self.disk.forget(&forgotten);
        self.disk.expire(now);
        true
    }
}
