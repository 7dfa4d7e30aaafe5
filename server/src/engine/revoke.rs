//! What an administrator ends.

use super::event::{EndReason, Event};
use super::grant::Grant;
use super::{Engine, Now};
use oneknock_shared::name::KeyName;

impl Engine {
    /// Ends the live grants that are `meant`, and returns them as they were. What another key
    /// has for the same target stays, for its own time.
    pub fn revoke(&mut self, now: Now, meant: impl Fn(&Grant) -> bool) -> Vec<Grant> {
        self.expire(now);
        let revoked = self.grants.extract(meant);
        let events = revoked.iter().map(|grant| Event::Ended {
            grant: grant.clone(),
            why: EndReason::Revoked,
        });
        self.events.extend(events);
        revoked
    }

    /// Removes a key: it opens nothing from now on, and its grants end.
    pub fn drop_key(&mut self, now: Now, name: &KeyName) {
        self.expire(now);
        self.keys.remove(name);
        self.end_unentitled(now);
    }
}
