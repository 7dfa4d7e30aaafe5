//! What is over: remembered packets, floors, closes.

use super::Model;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use oneknockd::gate::Now;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

pub fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

/// Why the daemon looks at its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A packet came: it makes a difference where the clock has jumped.
    Packet,
    /// It starts, or reloads.
    Settings,
    /// It tidies up: what is old is pruned for sure.
    Second,
}

/// A key's last close of a place.
#[derive(Default, Clone, Copy)]
pub struct Close {
    /// What is not later is held back.
    pub sure: Option<u64>,
    /// It may be: the close could not be made so, or a floor stands for it.
    pub perhaps: Option<u64>,
}

/// The floor of all of which there is no record.
#[derive(Default)]
pub struct Unknown {
    /// Surely so high.
    sure: Option<u64>,
    /// Not higher.
    greatest: Option<u64>,
    /// Generations that were away when it was raised, and of which packets were accepted.
    away: HashSet<GenerationId>,
}

/// What there was of a generation.
#[derive(Default)]
pub struct Past {
    /// Timestamps of packets that were not surely pruned, and how many of them were
    /// accepted: those outlive a run.
    remembered: BTreeMap<u64, usize>,
    /// Surely the floor: nothing up to here is accepted.
    pub floor: Option<u64>,
    /// That floor as the disk has it.
    written: Option<u64>,
    /// The greatest that the floor can be.
    pub greatest_floor: Option<u64>,
}

impl Past {
    pub fn remember(&mut self, at: u64, is_accepted: bool) {
        *self.remembered.entry(at).or_default() += usize::from(is_accepted);
    }

    pub fn take_back(&mut self, at: u64) {
        *self.remembered.entry(at).or_insert(1) -= 1;
    }

    /// Whether the disk has something of it.
    fn has_record(&self) -> bool {
        self.written.is_some() || self.remembered.values().any(|accepted| *accepted > 0)
    }

    /// A run begins: what was not written is gone.
    pub fn restart(&mut self) {
        self.remembered.retain(|_, accepted| *accepted > 0);
        self.floor = self.written;
    }

    fn forget(&mut self) {
        (self.floor, self.written) = (None, None);
        let last = self.remembered.last_key_value().map(|(&at, _)| at);
        self.greatest_floor = self.greatest_floor.max(last);
        self.remembered.clear();
    }

    fn prune(&mut self, oldest: u64, is_sure: bool) {
        let old = self.remembered.range(..oldest).next_back();
        let old = old.map(|(&at, _)| at);
        self.greatest_floor = self.greatest_floor.max(old);
        if is_sure && old.is_some() {
            self.floor = self.floor.max(old);
            self.remembered = self.remembered.split_off(&oldest);
        }
    }
}

impl Model {
    pub(super) fn skew(&self) -> u64 {
        ms(self.settings.config.skew)
    }

    /// What floors and closes surely are is not known any more.
    pub(super) fn forget(&mut self) {
        self.past.values_mut().for_each(Past::forget);
        self.unknown.sure = None;
        for close in self.closes.values_mut() {
            close.perhaps = close.perhaps.max(close.sure.take());
        }
        for sure in self.young_closes.values_mut() {
            *sure = false;
        }
    }

    /// The state was lost and the clock is right: `floor` is all that is known. What was
    /// later, since the clock was ahead when it came, nothing can keep out.
    pub fn begin_anew(&mut self, floor: Timestamp) {
        self.accepted.retain(|_, (_, at)| *at <= floor.0);
        self.raise_floors(floor, &BTreeSet::new());
    }

    /// Nothing up to `floor` is accepted from any generation that there is, or of which a
    /// record is left. Of one that is neither, and comes back: [`Model::cover`].
    pub(super) fn raise_floors(&mut self, floor: Timestamp, known: &BTreeSet<GenerationId>) {
        let of = self.ids.iter().flatten().chain(known);
        let of: HashSet<GenerationId> = of.copied().collect();
        self.unknown.sure = self.unknown.sure.max(Some(floor.0));
        self.unknown.greatest = self.unknown.greatest.max(Some(floor.0));
        self.unknown.away.retain(|id| !of.contains(id));
        let away = self.accepted.values().map(|(id, _)| *id);
        self.unknown.away.extend(away.filter(|id| !of.contains(id)));
        for id in of {
            let past = self.past.entry(id).or_default();
            let floor = Some(floor.0);
            past.floor = past.floor.max(floor);
            past.written = past.written.max(floor);
            past.greatest_floor = past.greatest_floor.max(floor);
        }
    }

    /// What comes in without a record has the floor that others had, but for a skew at the
    /// most.
    pub(super) fn cover(&mut self, now: Now) {
        let limit = now.wall.0.saturating_add(self.skew());
        let floor = |of: Option<u64>| of.map(|floor| floor.min(limit));
        let (sure, greatest) = (floor(self.unknown.sure), floor(self.unknown.greatest));
        for id in self.ids.iter().flatten() {
            let past = self.past.entry(*id).or_default();
            if !past.has_record() {
                past.greatest_floor = past.greatest_floor.max(greatest);
            }
            if self.unknown.away.remove(id) {
                self.accepted
                    .retain(|_, (of, at)| of != id || Some(*at) <= sure);
            }
        }
    }

    /// The daemon has looked at its clock: what is old now may be pruned.
    pub fn look(&mut self, now: Now, why: Look) {
        let wall = now.wall.0;
        let since = self.looked.and_then(|looked| wall.checked_sub(looked));
        if why == Look::Packet && since.is_some_and(|since| since <= 1000) {
            return;
        }
        self.looked = Some(wall);
        let oldest = wall.saturating_sub(self.skew());
        let is_sure = why == Look::Second;
        for past in self.past.values_mut() {
            past.prune(oldest, is_sure);
        }
        self.prune_closes(oldest, is_sure);
        if is_sure {
            self.claims.retain(|_, claim| claim.until > now.mono);
        }
    }

    /// A close that is old leaves its floor to every generation that its key has.
    fn prune_closes(&mut self, oldest: u64, is_sure: bool) {
        let mut young = std::mem::take(&mut self.young_closes);
        for ((at, name, place), is_known) in &young {
            if *at >= oldest {
                break;
            }
            let at = Some(*at);
            let close = self.closes.entry((name.clone(), *place)).or_default();
            // A later one at the same place stands for it.
            let is_last = close.sure == at;
            // One that was taken back may stand there longer.
            let leaves_floor = is_last && close.perhaps <= at;
            if is_sure && is_last {
                close.perhaps = close.perhaps.max(close.sure.take());
            }
            for id in self.ids_of(name) {
                let past = self.past.entry(id).or_default();
                past.greatest_floor = past.greatest_floor.max(at);
                if is_sure && leaves_floor && *is_known {
                    past.floor = past.floor.max(at);
                }
            }
        }
        if is_sure {
            young.retain(|(at, _, _), _| *at >= oldest);
        }
        self.young_closes = young;
    }

    /// The floors are on the disk.
    pub fn tidied(&mut self) {
        for past in self.past.values_mut() {
            past.written = past.floor;
        }
    }
}
