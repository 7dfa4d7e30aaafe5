//! Keeps the kernel told of the steps of rolling sequences: those of the minute before, of
//! this one and of the next. When nobody does, they run out.

use super::Daemon;
use super::sift::is_step;
use crate::config::{Settings, Steps};
use crate::firewall::{FirewallError, RollingStep};
use crate::gate::Now;
use crate::log;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::port::Ports;
use oneknock_shared::rolling;
use oneknock_shared::secret::{GenerationId, Subkeys};
use oneknock_shared::selector::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

const SLOT_MS: u64 = 60_000;

/// What the kernel has been told.
#[derive(Debug, Default)]
pub struct Rolling {
    /// The generations that have a sequence.
    keys: Vec<Subkeys>,
    /// Which of them were in force.
    in_force: BTreeSet<GenerationId>,
    told: BTreeSet<(u64, GenerationId)>,
    /// The ports of each step, with the slot of the sequence that has them.
    taken: BTreeMap<(usize, u16), u64>,
    /// The clocks when it was begun.
    begun: Option<Now>,
    is_failing: bool,
    /// Whether what was opened by sequences that nobody has any more is ended: not when a run
    /// begins, since a key may have been removed while no daemon ran.
    is_settled: bool,
}

impl Rolling {
    /// Whether everything has to be told anew.
    fn is_stale(&self, in_force: &BTreeSet<GenerationId>, now: Now) -> bool {
        self.in_force != *in_force || self.begun.is_none_or(|begun| is_step(begun, now))
    }

    /// Whether a generation that had a sequence has none any more.
    fn has_lost(&self, in_force: &BTreeSet<GenerationId>) -> bool {
        !self.in_force.is_subset(in_force)
    }

    fn begin(&mut self, keys: Vec<Subkeys>, in_force: BTreeSet<GenerationId>, now: Now) {
        *self = Self {
            keys,
            in_force,
            begun: Some(now),
            is_failing: self.is_failing,
            is_settled: self.is_settled,
            ..Self::default()
        };
    }

    /// The steps to tell of now. A sequence of which a port is the same step of another
    /// one is left out: its next minute has others.
    fn next(&mut self, now: Now) -> Vec<RollingStep> {
        let Slot(slot) = Slot::of(now.wall);
        let slots = slot.saturating_sub(1)..=slot.saturating_add(1);
        self.told.retain(|(slot, _)| slots.contains(slot));
        self.taken.retain(|_, slot| slots.contains(slot));
        let mut steps = Vec::new();
        for slot in slots {
            for keys in &self.keys {
                let of = (slot, keys.id());
                if !self.in_force.contains(&keys.id()) || !self.told.insert(of) {
                    continue;
                }
                let ports = rolling::steps(keys, Slot(slot));
                let places = || (1..).zip(ports.iter().map(Ports::first));
                if places().any(|place| self.taken.contains_key(&place)) {
                    continue;
                }
                let end = slot.saturating_add(2).saturating_mul(SLOT_MS);
                let time = Duration::from_millis(end.saturating_sub(now.wall.0));
                let id = id(of);
                self.taken.extend(places().map(|place| (place, slot)));
                let of_ports = places().map(|(at, port)| RollingStep { at, port, id, time });
                steps.extend(of_ports);
            }
        }
        steps
    }
}

/// Tells a sequence from others, the same also when everything is told anew.
fn id(of: (u64, GenerationId)) -> u32 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The generations of keys that have a sequence, as far as their time has come.
fn keys(settings: &Settings, now: Timestamp) -> Vec<Subkeys> {
    let Some(sequence) = &settings.config.sequence else {
        return Vec::new();
    };
    let keys = settings.keys.iter();
    let have = keys.filter(|key| sequence.is_for(&key.policy));
    let generations = have.flat_map(|key| &key.generations);
    let begun = generations.filter(|g| g.not_before.is_none_or(|from| from <= now));
    begun
        .map(|g| Subkeys::derive(&g.secret, &settings.config.server_id))
        .collect()
}

impl Daemon {
    fn rolls(&self) -> bool {
        let sequence = self.settings.config.sequence.as_ref();
        sequence.is_some_and(|s| s.steps == Steps::Rolling)
    }

    /// Tells the kernel what it lacks. To be called about once a second.
    pub(super) fn roll(&mut self) {
        if !self.rolls() {
            return;
        }
        let told = if self.waiting.is_some() {
            // Without a clock to be relied on nothing is accepted.
            self.firewall.roll(&[], !self.rolling.is_settled)
        } else {
            self.roll_on()
        };
        match told {
            Ok(()) => {
                self.rolling.is_failing = false;
                // Not before: until then somebody could still walk it.
                if !self.rolling.is_settled {
                    self.rolling.is_settled = self.end_walked();
                }
            }
            Err(error) => {
                self.rolling.begun = None;
                if !std::mem::replace(&mut self.rolling.is_failing, true) {
                    log::line(format_args!(
                        "the rolling port sequence runs out, since its next steps cannot be set: {error}"
                    ));
                }
            }
        }
    }

    fn roll_on(&mut self) -> Result<(), FirewallError> {
        let now = self.clock.now();
        let all = keys(&self.settings, now.wall);
        let in_force = self.gate.in_force(now);
        let ids: BTreeSet<_> = all.iter().map(Subkeys::id).collect();
        let ids = ids
            .into_iter()
            .filter(|id| in_force.contains_key(id))
            .collect();
        self.rolling.is_settled &= !self.rolling.has_lost(&ids);
        let anew = self.rolling.is_stale(&ids, now);
        if anew {
            self.rolling.begin(all, ids, now);
        }
        self.firewall.roll(&self.rolling.next(now), anew)
    }

    /// Ends what rolling sequences have opened, since a key has none any more: whose has
    /// opened it nobody knows, and who still has one can walk it again. Whether that is done.
    fn end_walked(&mut self) -> bool {
        match self.turn_away(None) {
            Ok(0) => true,
            Ok(count) => {
                log::line(format_args!(
                    "a key may have no rolling port sequence any more: closed what such have opened: grants={count}"
                ));
                true
            }
            Err(failed) => {
                log::line(failed.error);
                false
            }
        }
    }

    /// As [`Daemon::roll`], after the rules were made or the keys changed.
    pub(super) fn roll_anew(&mut self) {
        self.rolling.begun = None;
        self.roll();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oneknock_shared::secret::{Secret, ServerId};

    fn at(ms: u64) -> Now {
        Now {
            wall: Timestamp(ms),
            mono: Duration::from_millis(ms),
        }
    }

    fn begun(count: usize, now: Now) -> Rolling {
        let server = ServerId::generate().unwrap();
        let key = |_| Subkeys::derive(&Secret::generate().unwrap(), &server);
        let keys: Vec<Subkeys> = (0..count).map(key).collect();
        let ids = keys.iter().map(Subkeys::id).collect();
        let mut rolling = Rolling::default();
        rolling.begin(keys, ids, now);
        rolling
    }

    #[test]
    fn three_minutes_are_told_and_then_each_a_minute_ahead_until_it_is_over() {
        let mut rolling = begun(1, at(600_000));
        let first = rolling.next(at(600_000));
        let mut times: Vec<u64> = first.iter().map(|s| s.time.as_secs()).collect();
        times.dedup();
        assert_eq!(times, [60, 120, 180]);
        assert!(rolling.next(at(659_999)).is_empty());
        let next = rolling.next(at(660_000));
        assert_eq!(next.len(), rolling::STEPS);
        assert!(next.iter().all(|s| s.time.as_secs() == 180));
        let steps: Vec<usize> = next.iter().map(|s| s.at).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn no_port_is_the_same_step_of_two_sequences() {
        let mut rolling = begun(crate::config::ROLLING_KEYS, at(600_000));
        for minute in 10..200 {
            let now = at(minute * SLOT_MS);
            let steps = rolling.next(now);
            let mut seen = BTreeSet::new();
            assert!(steps.iter().all(|s| seen.insert((s.at, s.port))));
            // Nearly all of them are there.
            assert!(rolling.taken.len() >= 200, "{}", rolling.taken.len());
        }
    }

    #[test]
    fn a_generation_that_ends_or_a_clock_that_is_set_has_all_told_anew() {
        let rolling = begun(2, at(600_000));
        let mut fewer = rolling.in_force.clone();
        assert!(!rolling.is_stale(&fewer, at(601_000)));
        let set = Now {
            wall: Timestamp(700_000),
            ..at(601_000)
        };
        assert!(rolling.is_stale(&fewer, set));
        assert!(!rolling.has_lost(&fewer));
        fewer.pop_first();
        assert!(rolling.is_stale(&fewer, at(601_000)));
        assert!(rolling.has_lost(&fewer));
    }
}
