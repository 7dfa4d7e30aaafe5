//! The last rejected packets, for who asks why: a bounded memory, in which one captured packet
//! that is sent for ever displaces nothing but its own kind.

use crate::control::answers::Rejected;
use crate::control::protocol::Selection;
use crate::control::watch::WatchEvent;
use std::collections::{BTreeMap, VecDeque};

/// Sources that are remembered of one key and reason.
const SOURCES: usize = 4;
/// Pairs of key and reason that are remembered.
const PAIRS: usize = 1024;

/// The memory.
#[derive(Debug, Default)]
pub struct RejectionMemory {
    /// By key and reason; the latest last.
    pairs: BTreeMap<(String, String), VecDeque<Rejected>>,
}

impl RejectionMemory {
    /// Takes note of a rejection; an event without a reason is none.
    pub fn note(&mut self, event: &WatchEvent) {
        let Some(reason) = event.reason.clone() else {
            return;
        };
        let pair = (event.key.clone(), reason);
        if !self.pairs.contains_key(&pair) && self.pairs.len() == PAIRS {
            self.forget_oldest();
        }
        let sources = self.pairs.entry(pair).or_default();
        let is_same =
            |r: &Rejected| (r.last.address, &r.last.service) == (event.address, &event.service);
        let known = sources.iter().position(is_same);
        let times = known
            .and_then(|at| sources.remove(at))
            .map_or(0, |r| r.times);
        if sources.len() == SOURCES {
            sources.pop_front();
        }
        sources.push_back(Rejected {
            last: event.clone(),
            times: times.saturating_add(1),
        });
    }

    fn forget_oldest(&mut self) {
        let latest = |(_, sources): &(_, &VecDeque<Rejected>)| {
            sources.back().map_or(0, |rejected| rejected.last.at_ms)
        };
        let oldest = self.pairs.iter().min_by_key(latest);
        if let Some(pair) = oldest.map(|(pair, _)| pair.clone()) {
            self.pairs.remove(&pair);
        }
    }

    /// At most `most` rejections of this selection; the latest first.
    #[must_use]
    pub fn of(&self, selection: &Selection, most: usize) -> Vec<Rejected> {
        let is_asked = |rejected: &&Rejected| match selection {
            Selection::All => true,
            Selection::Key(key) => rejected.last.key == key.as_str(),
            Selection::Address(address) => rejected.last.address == Some(*address),
        };
        let all = self.pairs.values().flatten().filter(is_asked);
        let mut all: Vec<&Rejected> = all.collect();
        all.sort_by_key(|rejected| std::cmp::Reverse(rejected.last.at_ms));
        all.into_iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::watch::Happened;

    fn event(at_ms: u64, key: &str, reason: &str, last: u8) -> WatchEvent {
        WatchEvent {
            reason: Some(reason.into()),
            ..WatchEvent::new(
                at_ms,
                Happened::Refused,
                key,
                Some([192, 0, 2, last].into()),
            )
        }
    }

    #[test]
    fn same_rejection_is_counted_and_the_latest_comes_first() {
        let mut memory = RejectionMemory::default();
        memory.note(&event(1, "laptop", "clock-skew", 7));
        memory.note(&event(2, "phone", "expired", 8));
        memory.note(&event(3, "laptop", "clock-skew", 7));
        let all = memory.of(&Selection::All, 9);
        let brief: Vec<_> = all.iter().map(|r| (&*r.last.key, r.times)).collect();
        assert_eq!(brief, [("laptop", 2), ("phone", 1)]);
        assert_eq!(all[0].last.at_ms, 3);
        assert_eq!(memory.of(&Selection::All, 1).len(), 1);
        let phone = Selection::Key("phone".parse().unwrap());
        assert_eq!(memory.of(&phone, 9).len(), 1);
        let address = Selection::Address([192, 0, 2, 7].into());
        assert_eq!(memory.of(&address, 9)[0].last.key, "laptop");
    }

    #[test]
    fn captured_packet_from_forged_sources_displaces_no_other_reason() {
        let mut memory = RejectionMemory::default();
        memory.note(&event(1, "laptop", "grant-limit", 7));
        for at in 0..1000 {
            memory.note(&event(2 + at, "laptop", "replayed", (at % 250) as u8));
        }
        let all = memory.of(&Selection::All, 1000);
        assert_eq!(all.len(), 5);
        assert_eq!(all[4].last.reason.as_deref(), Some("grant-limit"));
    }

    #[test]
    fn memory_does_not_grow_without_end() {
        let mut memory = RejectionMemory::default();
        for at in 0..5000 {
            memory.note(&event(at, &format!("key{at}"), "clock-skew", 7));
        }
        let all = memory.of(&Selection::All, usize::MAX);
        assert_eq!(all.len(), PAIRS);
        assert_eq!(all.last().map(|r| r.last.at_ms), Some(5000 - PAIRS as u64));
    }
}
