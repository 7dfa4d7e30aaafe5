//! A rotation that finishes by itself: when a newer generation of a key is first used, the
//! end of the older ones is brought forward.
//!
//! Only of those whose rules name an end, as a rotation writes it. What is brought forward is
//! in the state, not in the key's file.

use super::event::Event;
use super::{Engine, Now};
use oneknock_shared::knock::Timestamp;
use std::sync::Arc;

impl Engine {
    /// Brings the end of the generations forward that are older than this one of the same
    /// key, to a grace from now: of each once, and never to a later time.
    pub(super) fn retire_older(&mut self, now: Now, index: usize) {
        let ends = Timestamp(now.wall.0.saturating_add(self.grace_ms));
        let Some(newer) = self.keys.at(index).map(|newer| newer.rules.number) else {
            return;
        };
        for sibling in self.keys.siblings(index) {
            let Some(older) = self.keys.at(sibling) else {
                continue;
            };
            let id = older.rules.subkeys.id();
            let is_later = older.ends.is_some_and(|end| ends < end);
            let is_retired = self.retirements.contains_key(&id);
            if older.rules.number >= newer || !is_later || is_retired {
                continue;
            }
            self.events.push(Event::Retiring {
                key: Arc::clone(&older.key.name),
                generation: id,
                number: older.rules.number,
                ends,
                newer,
            });
            self.retirements.insert(id, ends);
            self.keys.bring_end_forward(sibling, ends);
        }
    }
}
