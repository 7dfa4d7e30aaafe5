//! When a grant ends before its time. One rule, for a daemon that runs, a reload and a start
//! alike: a grant lasts only while its generation is a live one of its key, and the key may
//! open the service.

use super::event::{EndReason, Event};
use super::grant::Grant;
use super::{Engine, Now};

impl Engine {
    /// Whether a grant may last. A generation that is gone, has ended, or belongs to a key of
    /// another name has no grants, so another key under an old name inherits none.
    pub(super) fn is_entitled(&self, grant: &Grant, now: Now) -> bool {
        let service = grant.target.service;
        let generation = self.keys.live(grant.generation, now);
        let key = generation.map(|generation| generation.key);
        key.is_some_and(|key| key.name == grant.key && key.services.contains(&service))
            && self.services.iter().any(|rules| rules.name == service)
    }

    /// Ends the grants that may not last.
    pub(super) fn end_unentitled(&mut self, now: Now) {
        let grants = self.grants.iter();
        let unentitled = grants.filter(|grant| !self.is_entitled(grant, now));
        let unentitled: Vec<Grant> = unentitled.cloned().collect();
        for grant in unentitled {
            self.grants.end(&grant.key, grant.target);
            let why = EndReason::KeyChanged;
            self.events.push(Event::Ended { grant, why });
        }
    }

    /// Whether a generation that has grants has ended: what alone ends a right while the rules
    /// stay as they are.
    pub(super) fn has_ended_grants(&self, now: Now) -> bool {
        let mut ended = self.keys.ended(now);
        ended.any(|generation| self.grants.count(generation.rules.subkeys.id()) > 0)
    }

    /// Ends the grants whose time is over.
    pub(super) fn expire(&mut self, now: Now) {
        while let Some(grant) = self.grants.pop_expired(now.mono) {
            let why = EndReason::Expired;
            self.events.push(Event::Ended { grant, why });
        }
    }
}
