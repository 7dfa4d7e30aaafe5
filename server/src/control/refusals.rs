//! The last refusals, for "oneknockctl why": a bounded memory in which whoever sends one
//! caught packet for ever crowds out nothing but his own.

use super::answers::{Event, Refused};
use super::protocol::Who;
use std::collections::{BTreeMap, VecDeque};

/// Sources that are remembered of one key and reason.
const SOURCES: usize = 4;
/// Pairs of key and reason that are remembered.
const PAIRS: usize = 1024;

/// The memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// By key and reason; the latest last.
    pairs: BTreeMap<(String, String), VecDeque<Refused>>,
}

impl Memory {
    /// Takes note of a refusal; an event without a reason is none.
    pub fn note(&mut self, event: &Event) {
        let Some(reason) = event.reason.clone() else {
            return;
        };
        let pair = (event.key.clone(), reason);
        if !self.pairs.contains_key(&pair) && self.pairs.len() == PAIRS {
            self.forget_oldest();
        }
        let sources = self.pairs.entry(pair).or_default();
        let is_same =
            |r: &Refused| (r.last.address, &r.last.service) == (event.address, &event.service);
        let known = sources.iter().position(is_same);
        let times = known
            .and_then(|at| sources.remove(at))
            .map_or(0, |r| r.times);
        if sources.len() == SOURCES {
            sources.pop_front();
        }
        sources.push_back(Refused {
            last: event.clone(),
            times: times.saturating_add(1),
        });
    }

    fn forget_oldest(&mut self) {
        let latest = |(_, sources): &(_, &VecDeque<Refused>)| {
            sources.back().map_or(0, |refused| refused.last.at_ms)
        };
        let oldest = self.pairs.iter().min_by_key(latest);
        if let Some(pair) = oldest.map(|(pair, _)| pair.clone()) {
            self.pairs.remove(&pair);
        }
    }

    /// At most `most` refusals of this one, or of all; the latest first.
    #[must_use]
    pub fn of(&self, who: Option<&Who>, most: usize) -> Vec<Refused> {
        let is_asked = |refused: &&Refused| match who {
            None => true,
            Some(Who::Key(key)) => refused.last.key == key.as_str(),
            Some(Who::Address(address)) => refused.last.address == *address,
        };
        let all = self.pairs.values().flatten().filter(is_asked);
        let mut all: Vec<&Refused> = all.collect();
        all.sort_by_key(|refused| std::cmp::Reverse(refused.last.at_ms));
        all.into_iter().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::answers::Happened;
    use super::*;

    fn event(at_ms: u64, key: &str, reason: &str, last: u8) -> Event {
        Event {
            at_ms,
            event: Happened::Refused,
            key: key.into(),
            address: [192, 0, 2, last].into(),
            proven: false,
            service: None,
            seconds: None,
            generation: None,
            reason: Some(reason.into()),
            ahead_seconds: None,
        }
    }

    #[test]
    fn the_like_of_a_refusal_is_counted_and_the_latest_comes_first() {
        let mut memory = Memory::default();
        memory.note(&event(1, "laptop", "stale", 7));
        memory.note(&event(2, "phone", "expired", 8));
        memory.note(&event(3, "laptop", "stale", 7));
        let all = memory.of(None, 9);
        let brief: Vec<_> = all.iter().map(|r| (&*r.last.key, r.times)).collect();
        assert_eq!(brief, [("laptop", 2), ("phone", 1)]);
        assert_eq!(all[0].last.at_ms, 3);
        assert_eq!(memory.of(None, 1).len(), 1);
        let phone = Who::Key("phone".parse().unwrap());
        assert_eq!(memory.of(Some(&phone), 9).len(), 1);
        let address = Who::Address([192, 0, 2, 7].into());
        assert_eq!(memory.of(Some(&address), 9)[0].last.key, "laptop");
    }

    #[test]
    fn a_caught_packet_from_forged_sources_crowds_out_no_other_reason() {
        let mut memory = Memory::default();
        memory.note(&event(1, "laptop", "too-many-grants", 7));
        for at in 0..1000 {
            memory.note(&event(2 + at, "laptop", "replayed", (at % 250) as u8));
        }
        let all = memory.of(None, 1000);
        assert_eq!(all.len(), 5);
        assert_eq!(all[4].last.reason.as_deref(), Some("too-many-grants"));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let mut memory = Memory::default();
        for at in 0..5000 {
            memory.note(&event(at, &format!("key{at}"), "stale", 7));
        }
        let all = memory.of(None, usize::MAX);
        assert_eq!(all.len(), PAIRS);
        assert_eq!(all.last().map(|r| r.last.at_ms), Some(5000 - PAIRS as u64));
    }
}
