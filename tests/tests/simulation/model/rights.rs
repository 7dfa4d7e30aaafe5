//! When grants end.

use super::{Known, Model, known};
use oneknockd::engine::{EndReason, Event, Grant, Now, Target};

impl Model {
    /// The time of these is over; the first to end first.
    pub fn expire(&mut self, now: Now) -> Vec<Event> {
        let over = self.run.grants.values();
        let over = over.filter(|grant| grant.until <= now.mono).cloned();
        let mut over: Vec<Grant> = over.collect();
        over.sort_by_key(|grant| (grant.until, known::of(grant)));
        self.end(over, EndReason::Expired)
    }

    /// Their keys have no right to these any more.
    pub(super) fn end_unentitled(&mut self, now: Now) -> Vec<Event> {
        let grants = self.run.grants.values();
        let unentitled = grants.filter(|grant| !self.is_entitled(grant, now));
        let unentitled: Vec<Grant> = unentitled.cloned().collect();
        self.end(unentitled, EndReason::KeyChanged)
    }

    fn is_entitled(&self, grant: &Grant, now: Now) -> bool {
        let Some((key, generation)) = self.generation(grant.generation) else {
            return false;
        };
        let has_ended = self.end_of(generation).is_some_and(|end| now.wall > end);
        let service = grant.target.service;
        let is_there = self.rules.services.iter().any(|s| s.name == service);
        !has_ended && is_there && key.name == grant.key && key.services.contains(&service)
    }

    /// What becomes of a grant of an earlier run.
    pub(super) fn take_over(&mut self, grant: Grant, now: Now) -> Event {
        let why = if grant.until <= now.mono {
            EndReason::Expired
        } else if self.is_entitled(&grant, now) {
            self.run.grants.insert(known::of(&grant), grant.clone());
            return Event::Restored(grant);
        } else {
            EndReason::KeyChanged
        };
        Event::Ended { grant, why }
    }

    /// An administrator ends what is open for these targets.
    pub fn revoke(&mut self, now: Now, meant: impl Fn(&Target) -> bool) -> Vec<Event> {
        let mut events = self.expire(now);
        let grants = self.run.grants.values();
        let revoked = grants.filter(|grant| meant(&grant.target)).cloned();
        let revoked: Vec<Grant> = revoked.collect();
        events.extend(self.end(revoked, EndReason::Revoked));
        events
    }

    fn end(&mut self, grants: Vec<Grant>, why: EndReason) -> Vec<Event> {
        let Known { grants: all, .. } = &mut self.run;
        let end = |grant: Grant| {
            all.remove(&known::of(&grant));
            Event::Ended { grant, why }
        };
        grants.into_iter().map(end).collect()
    }
}
