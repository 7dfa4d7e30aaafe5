//! What is known of the past: in plain tables, once as the engine has it and once as the disk.

use super::TargetKey;
use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use oneknockd::engine::{Close, Event, Grant, Source, Spend, State};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Known {
    pub seen: BTreeSet<(Timestamp, PacketId, GenerationId)>,
    pub floors: BTreeMap<GenerationId, Timestamp>,
    pub default_floor: Option<Timestamp>,
    pub closes: BTreeMap<(KeyName, Option<ServiceName>, Source), Timestamp>,
    pub grants: BTreeMap<TargetKey, Grant>,
    pub retirements: BTreeMap<GenerationId, Timestamp>,
}

pub fn of(grant: &Grant) -> TargetKey {
    (grant.target, (*grant.key).clone())
}

impl Known {
    pub fn read(state: &State) -> Self {
        let seen = state.seen.iter();
        let close = |close: &Close| ((close.key.clone(), close.service, close.source), close.at);
        Self {
            seen: seen.map(|&(g, at, id)| (at, id, g)).collect(),
            floors: state.floors.iter().copied().collect(),
            default_floor: state.default_floor,
            closes: state.closes.iter().map(close).collect(),
            grants: state.grants.iter().map(|g| (of(g), g.clone())).collect(),
            retirements: state.retirements.iter().copied().collect(),
        }
    }

    /// The generations of which there is a record.
    pub fn generations(&self) -> BTreeSet<GenerationId> {
        let seen = self.seen.iter().map(|(_, _, generation)| *generation);
        seen.chain(self.floors.keys().copied()).collect()
    }

    /// Whether it is what a power cut may leave of all that was written.
    pub fn is_left_of(&self, all: &Self) -> bool {
        let closes = self.closes.iter();
        let mut retirements = self.retirements.iter();
        self.seen.is_subset(&all.seen)
            && self.floors == all.floors
            && self.default_floor == all.default_floor
            && closes
                .clone()
                .all(|(of, at)| Some(at) <= all.closes.get(of))
            && retirements.all(|(of, at)| Some(at) == all.retirements.get(of))
            && self.grants.is_empty()
    }

    pub fn raise_floor(&mut self, generation: GenerationId, floor: Timestamp) {
        let had = self.floors.entry(generation).or_insert(floor);
        *had = floor.max(*had);
    }

    /// A packet is spent.
    pub fn spend(&mut self, spend: &Spend) {
        self.seen.insert((spend.at, spend.id, spend.generation));
    }

    /// The key has closed something.
    pub fn close(&mut self, spend: &Spend) {
        let of = ((*spend.key).clone(), spend.service, spend.source);
        let last = self.closes.entry(of).or_insert(spend.at);
        *last = spend.at.max(*last);
    }

    /// A packet is recorded. A close is one from then on, whatever becomes of the daemon.
    pub fn record(&mut self, spend: &Spend) {
        self.spend(spend);
        if spend.action == Action::Close {
            self.close(spend);
            self.grants.retain(|(target, key), _| {
                let is_meant = spend
                    .service
                    .is_none_or(|service| service == target.service)
                    && target.source == spend.source;
                *key != *spend.key || !is_meant
            });
        }
    }

    /// What happened is noted.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Granted { grant, .. } => drop(self.grants.insert(of(grant), grant.clone())),
            Event::Closed {
                grant: Some(grant), ..
            }
            | Event::Ended { grant, .. } => drop(self.grants.remove(&of(grant))),
            Event::Retiring {
                generation, ends, ..
            } => drop(self.retirements.insert(*generation, *ends)),
            _ => {}
        }
    }

    /// When the key has closed the service for the source last, by itself or with all.
    pub fn closed(&self, spend: &Spend, service: ServiceName) -> Option<Timestamp> {
        let forms = [Some(service), None];
        let last = forms.iter().filter_map(|form| {
            let of = ((*spend.key).clone(), *form, spend.source);
            self.closes.get(&of)
        });
        last.max().copied()
    }
}
