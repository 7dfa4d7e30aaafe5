//! Datagrams by outcome, since the daemon started.

use crate::engine::{Event, Junk};
use std::collections::BTreeMap;

/// How many datagrams had which outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Of a length that no packet has.
    pub length: u64,
    /// Of an unknown selector.
    pub selector: u64,
    /// With an HMAC that does not hold.
    pub mac: u64,
    /// Accepted: spent, and policy allowed what was asked.
    pub accepted: u64,
    /// Not looked at, since nothing is accepted until the clock is synchronized.
    pub waiting: u64,
    /// Rejected, by the reason's name.
    pub rejected: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Counts an event.
    pub fn on(&mut self, event: &Event) {
        let counter = match event {
            Event::Junk(Junk::Length) => &mut self.length,
            Event::Junk(Junk::Selector) => &mut self.selector,
            Event::Junk(Junk::Mac) => &mut self.mac,
            Event::Accepted { .. } => &mut self.accepted,
            Event::Rejected(rejection) => self.rejected.entry(rejection.reason.name()).or_default(),
            _ => return,
        };
        *counter = counter.saturating_add(1);
    }
}
