//! Adds the records of a log up to a state.

use super::record::LogRecord;
use crate::engine::{Close, EndReason, Grant, Now, Source, Spend, State, Target};
use oneknock_shared::knock::{Action, Timestamp};
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The state after some records.
#[derive(Debug, Default)]
pub(super) struct Fold {
    seen: Vec<(GenerationId, Timestamp, PacketId)>,
    floors: BTreeMap<GenerationId, Timestamp>,
    default_floor: Option<Timestamp>,
    closes: BTreeMap<(KeyName, Source, Option<ServiceName>), Timestamp>,
    grants: BTreeMap<Arc<KeyName>, BTreeMap<Target, Grant>>,
    retirements: BTreeMap<GenerationId, Timestamp>,
}

impl Fold {
    /// Adds a record of the state, or from after it. Of one from before the state the packet is
    /// spent, and its close holds: everything else is in the state.
    pub fn apply(&mut self, record: LogRecord, is_older: bool) {
        match record {
            LogRecord::Spent(spend, _) => {
                // The run may have been killed before it noted the outcome: a grant that its
                // key has closed does not come back.
                if spend.action == Action::Close
                    && !is_older
                    && let Some(own) = self.grants.get_mut(&spend.key)
                {
                    own.retain(|target, _| {
                        target.source != spend.source
                            || spend.service.is_some_and(|s| s != target.service)
                    });
                }
                self.spend(&spend);
            }
            LogRecord::Seen(generation, at, id) => self.seen.push((generation, at, id)),
            _ if is_older => {}
            LogRecord::Granted(grant, _) => {
                let own = self.grants.entry(Arc::clone(&grant.key)).or_default();
                own.insert(grant.target, grant);
            }
            LogRecord::Ended(grant, ..) => {
                if let Some(own) = self.grants.get_mut(&grant.key) {
                    own.remove(&grant.target);
                }
            }
            LogRecord::Retirement(generation, ends) => {
                self.retirements.insert(generation, ends);
            }
            LogRecord::Floor(generation, at) => {
                let floor = self.floors.entry(generation).or_insert(at);
                *floor = at.max(*floor);
            }
            LogRecord::DefaultFloor(at) => {
                self.default_floor = self.default_floor.max(Some(at));
            }
            LogRecord::Closed(close) => {
                self.close(close.key, close.source, close.service, close.at);
            }
            LogRecord::Header(_) | LogRecord::Mark(_) | LogRecord::Continued(_) => {}
        }
    }

    fn spend(&mut self, spend: &Spend) {
        self.seen.push((spend.generation, spend.at, spend.id));
        if spend.action == Action::Close {
            let key = (*spend.key).clone();
            self.close(key, spend.source, spend.service, spend.at);
        }
    }

    fn close(&mut self, key: KeyName, from: Source, service: Option<ServiceName>, at: Timestamp) {
        let last = self.closes.entry((key, from, service)).or_insert(at);
        *last = at.max(*last);
    }

    /// The state now, and the grants that have ended since they were recorded. After a reboot
    /// all have: the kernel has forgotten them.
    pub fn finish(self, now: Now, same_boot: bool) -> (State, Vec<(Grant, EndReason)>) {
        let floors = &self.floors;
        let mut seen = self.seen;
        // The floor refuses the others.
        seen.retain(|(generation, at, _)| floors.get(generation) < Some(at));
        seen.sort_unstable();
        seen.dedup();
        let (mut grants, mut ended) = (Vec::new(), Vec::new());
        for grant in self.grants.into_values().flat_map(BTreeMap::into_values) {
            if !same_boot {
                ended.push((grant, EndReason::Reboot));
            } else if grant.until <= now.mono {
                ended.push((grant, EndReason::Expired));
            } else {
                grants.push(grant);
            }
        }
        let closes = self.closes.into_iter();
        let closes = closes.map(|((key, source, service), at)| Close {
            key,
            service,
            source,
            at,
        });
        let state = State {
            seen,
            floors: self.floors.into_iter().collect(),
            default_floor: self.default_floor,
            closes: closes.collect(),
            grants,
            retirements: self.retirements.into_iter().collect(),
        };
        (state, ended)
    }
}
