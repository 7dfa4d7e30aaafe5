//! What a store makes of its records: the engine's state, for the next start.

use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use oneknockd::engine::{Close, Event, Grant, Source, Spend, State, Target};
use std::collections::{BTreeMap, BTreeSet};

/// Makes a state of a segment's beginning and of the records after it.
pub trait Fold {
    /// The segment begins with this.
    fn begin(state: &State) -> Self;
    /// A packet was spent.
    fn spend(&mut self, spend: &Spend);
    /// Something happened.
    fn event(&mut self, event: &Event);
    /// What there is now.
    fn state(&self) -> State;
}

/// The plainest one.
#[derive(Default)]
pub struct PlainFold {
    seen: BTreeSet<(GenerationId, Timestamp, PacketId)>,
    floors: Vec<(GenerationId, Timestamp)>,
    default_floor: Option<Timestamp>,
    closes: BTreeMap<(KeyName, Option<ServiceName>, Source), Timestamp>,
    grants: BTreeMap<(Target, KeyName), Grant>,
    retirements: BTreeMap<GenerationId, Timestamp>,
}

impl PlainFold {
    fn close(
        &mut self,
        key: &KeyName,
        service: Option<ServiceName>,
        source: Source,
        at: Timestamp,
    ) {
        let last = self.closes.entry((key.clone(), service, source));
        let last = last.or_insert(at);
        *last = at.max(*last);
    }

    fn grant(&mut self, grant: &Grant) {
        let of = (grant.target, (*grant.key).clone());
        self.grants.insert(of, grant.clone());
    }

    fn end(&mut self, grant: &Grant) {
        self.grants.remove(&(grant.target, (*grant.key).clone()));
    }
}

impl Fold for PlainFold {
    fn begin(state: &State) -> Self {
        let mut fold = Self {
            seen: state.seen.iter().copied().collect(),
            floors: state.floors.clone(),
            default_floor: state.default_floor,
            retirements: state.retirements.iter().copied().collect(),
            ..Self::default()
        };
        for close in &state.closes {
            fold.close(&close.key, close.service, close.source, close.at);
        }
        for grant in &state.grants {
            fold.grant(grant);
        }
        fold
    }

    fn spend(&mut self, spend: &Spend) {
        self.seen.insert((spend.generation, spend.at, spend.id));
        if spend.action == Action::Close {
            self.close(&spend.key, spend.service, spend.source, spend.at);
            self.grants.retain(|(target, key), _| {
                let is_service = spend
                    .service
                    .is_none_or(|service| service == target.service);
                !(*key == *spend.key && is_service && target.source == spend.source)
            });
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Granted { grant, .. } | Event::Restored(grant) => self.grant(grant),
            Event::Closed {
                grant: Some(grant), ..
            }
            | Event::Ended { grant, .. } => self.end(grant),
            Event::Retiring {
                generation, ends, ..
            } => drop(self.retirements.insert(*generation, *ends)),
            Event::Closed { .. } | Event::Accepted { .. } | Event::Junk(_) | Event::Rejected(_) => {
            }
        }
    }

    fn state(&self) -> State {
        let closes = self.closes.iter();
        State {
            seen: self.seen.iter().copied().collect(),
            floors: self.floors.clone(),
            default_floor: self.default_floor,
            closes: closes
                .map(|((key, service, source), &at)| Close {
                    key: key.clone(),
                    service: *service,
                    source: *source,
                    at,
                })
                .collect(),
            grants: self.grants.values().cloned().collect(),
            retirements: self.retirements.iter().map(|(&id, &at)| (id, at)).collect(),
        }
    }
}
