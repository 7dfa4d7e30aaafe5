//! A store in memory, by the contract of the store: what is written survives a kill, what is
//! synced a power cut, and for what a power cut takes there is the high-water mark.

use crate::fold::Fold;
use oneknock_shared::knock::Timestamp;
use oneknock_tests::chance::Chance;
use oneknockd::engine::{Event, Spend, State};
use std::marker::PhantomData;

/// How far ahead of a packet's timestamp the high-water mark is written, in milliseconds.
const AHEAD_MS: u64 = 5_000;

/// How a run of the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Clean,
    Killed,
    PowerCut,
    /// As killed; and the state is gone.
    StateLost,
}

#[derive(Clone)]
enum Record {
    Spend(Spend),
    Event(Event),
}

/// A log in segments. Each begins with everything that the engine knew, and `F` makes a state
/// of what follows.
pub struct Disk<F> {
    /// Whether there is a state at all.
    exists: bool,
    /// The segment's beginning; always synced.
    begin: State,
    records: Vec<Record>,
    /// So many of the records are synced.
    synced: usize,
    /// What the last append has written although it failed: the next one overwrites it.
    torn: Vec<Spend>,
    /// Synced: nothing later was accepted.
    mark: Timestamp,
    greatest: Timestamp,
    fold: PhantomData<F>,
}

impl<F: Fold> Disk<F> {
    /// The empty state that `init` makes.
    pub fn new() -> Self {
        Self {
            exists: true,
            begin: State::default(),
            records: Vec::new(),
            synced: 0,
            torn: Vec::new(),
            mark: Timestamp(0),
            greatest: Timestamp(0),
            fold: PhantomData,
        }
    }

    /// Everything written is synced.
    pub fn sync(&mut self) {
        self.synced = self.records.len();
    }

    /// Appends a batch.
    pub fn append(&mut self, spends: &[Spend]) {
        self.torn.clear();
        for spend in spends {
            self.mark_for(spend);
            self.records.push(Record::Spend(spend.clone()));
        }
    }

    /// An append that fails, and has written so much all the same.
    pub fn fail_to_append(&mut self, written: &[Spend]) {
        self.torn = written.to_vec();
        for spend in written {
            self.mark_for(spend);
        }
    }

    /// What a failed append has left.
    pub fn torn(&self) -> &[Spend] {
        &self.torn
    }

    fn mark_for(&mut self, spend: &Spend) {
        if spend.at > self.mark {
            self.mark = Timestamp(spend.at.0 + AHEAD_MS);
        }
        self.greatest = self.greatest.max(spend.at);
    }

    /// Takes note of what happened; not for a knock to wait for.
    pub fn note(&mut self, events: &[Event]) {
        self.records
            .extend(events.iter().cloned().map(Record::Event));
    }

    /// Begins a new segment, synced.
    pub fn begin(&mut self, state: State) {
        self.exists = true;
        self.begin = state;
        self.records.clear();
        self.torn.clear();
        self.synced = 0;
    }

    /// Nothing up to `floor` was accepted, or is to be.
    pub fn raise_mark(&mut self, floor: Timestamp) {
        self.mark = self.mark.max(floor);
        self.greatest = self.greatest.max(floor);
    }

    /// What a start finds, and the floor after a power cut. `None`: no state.
    pub fn start(&mut self, end: End, chance: &mut Chance) -> Option<(State, Option<Timestamp>)> {
        match end {
            End::StateLost => {
                *self = Self::new();
                self.exists = false;
            }
            End::PowerCut => {
                self.take_power(chance);
                // The grants' times are of the boot before.
                self.begin.grants.clear();
            }
            End::Clean => {
                self.sync();
                self.torn.clear();
                self.mark = self.mark.min(self.greatest);
            }
            End::Killed => {}
        }
        if !self.exists {
            return None;
        }
        let mut fold = F::begin(&self.begin);
        for record in &self.records {
            match record {
                Record::Spend(spend) => fold.spend(spend),
                Record::Event(event) => fold.event(event),
            }
        }
        for spend in &self.torn {
            fold.spend(spend);
        }
        let mut state = fold.state();
        if end == End::PowerCut {
            state.grants.clear();
        }
        Some((state, (end == End::PowerCut).then_some(self.mark)))
    }

    /// What was not synced is gone: all from some record on, or here and there one.
    fn take_power(&mut self, chance: &mut Chance) {
        self.torn.retain(|_| chance.percent(50));
        let unsynced = self.records.split_off(self.synced);
        let first_lost = chance.index(unsynced.len() + 1);
        let is_holed = chance.percent(50);
        let kept = unsynced.into_iter().enumerate().filter(|(at, _)| {
            if is_holed {
                chance.percent(50)
            } else {
                *at < first_lost
            }
        });
        let kept: Vec<Record> = kept.map(|(_, record)| record).collect();
        self.records.extend(kept);
        self.sync();
    }
}
