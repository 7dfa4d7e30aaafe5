//! Keeps the kernel's sieve filled: with the selectors of the minutes in force, and a minute
//! ahead. A sieve that nobody fills runs empty, and lets next to nothing through.

use super::Daemon;
use crate::gate::{Gate, Now};
use crate::log;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::selector::{Selector, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many at a time, where there is time: knocks wait meanwhile.
const AT_ONCE: usize = 1024;
/// A selector stays so much longer than a packet with it can be good.
const MARGIN_MS: u64 = 1_000;
const SLOT_MS: u64 = 60_000;
/// A wall clock that has gone another way by this much has been set.
const STEP_MS: u64 = 500;

/// What the kernel has been given of the gate's table.
#[derive(Debug, Default)]
pub struct Sifting {
    slots: BTreeSet<u64>,
    waiting: BTreeMap<Selector, Timestamp>,
    /// The clocks when it was begun: the times in the kernel are right while these two run
    /// alike.
    begun: Option<Now>,
    is_failing: bool,
}

impl Sifting {
    /// Nothing of what the kernel was given is relied on.
    pub fn begin_anew(&mut self) {
        self.slots.clear();
        self.waiting.clear();
        self.begun = None;
    }

    /// Selectors to give to the kernel now, each with the time that it is to stay: not many
    /// at once, unless it is begun anew.
    fn next(&mut self, gate: &mut Gate, skew: Duration, now: Now) -> Vec<(Selector, Duration)> {
        let slots = gate.slots(now);
        if self.begun.is_some_and(|begun| is_step(begun, now)) {
            self.begin_anew();
        }
        let is_new = self.begun.is_none();
        self.begun.get_or_insert(now);
        self.slots.retain(|slot| slots.contains(slot));
        if !slots.is_subset(&self.slots) {
            let skew = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
            for (selector, Slot(slot)) in gate.selectors() {
                if !self.slots.contains(&slot) {
                    let end = slot.saturating_add(1).saturating_mul(SLOT_MS);
                    let end = Timestamp(end.saturating_add(skew).saturating_add(MARGIN_MS));
                    let until = self.waiting.entry(selector).or_insert(end);
                    *until = end.max(*until);
                }
            }
            self.slots = slots;
        }
        let most = if is_new { usize::MAX } else { AT_ONCE };
        let mut portion = Vec::with_capacity(most.min(self.waiting.len()));
        while portion.len() < most
            && let Some((selector, until)) = self.waiting.pop_first()
        {
            let left = until.0.saturating_sub(now.wall.0);
            portion.push((selector, Duration::from_millis(left)));
        }
        portion
    }
}

/// Whether the wall clock was set between the two.
pub(super) fn is_step(begun: Now, now: Now) -> bool {
    let wall = i128::from(now.wall.0) - i128::from(begun.wall.0);
    let mono = now.mono.saturating_sub(begun.mono).as_millis();
    wall.abs_diff(i128::try_from(mono).unwrap_or(i128::MAX)) > u128::from(STEP_MS)
}

impl Daemon {
    /// Gives the kernel what it lacks.
    pub(super) fn sift(&mut self) {
        let now = self.clock.now();
        let skew = self.settings.config.skew;
        let portion = self.sifting.next(&mut self.gate, skew, now);
        if portion.is_empty() {
            return;
        }
        match self.firewall.sift(&portion) {
            Ok(()) => {
                if std::mem::take(&mut self.sifting.is_failing) {
                    log::line("the sieve of the knock port is filled again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.sifting.is_failing, true) {
                    log::line(format_args!(
                        "the sieve of the knock port cannot be filled, and lets less and less through: {error}"
                    ));
                }
                self.sifting.begin_anew();
            }
        }
    }

    /// As [`Daemon::sift`], after the sieve was made or the keys changed: all at once.
    pub(super) fn sift_anew(&mut self) {
        self.sifting.begin_anew();
        self.sift();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Generation, Key, Policy, Settings};
    use oneknock_shared::secret::{Secret, ServerId};

    const SKEW: Duration = Duration::from_secs(30);
    /// The first second of a minute.
    const T0: u64 = 1_800_000_000_000;

    fn gate(keys: usize, now: Now) -> Gate {
        let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
        let id = ServerId::generate().unwrap();
        let config = Config::new(name, host, 45123, id, "/nowhere".into());
        let key = |n| Key {
            name: format!("key{n}").parse().unwrap(),
            policy: Policy::new(Vec::new()),
            generations: vec![Generation {
                number: 1,
                secret: Secret::generate().unwrap(),
                not_before: None,
                not_after: None,
                overlap_until: None,
                made: None,
            }],
        };
        let keys = (0..keys).map(key).collect();
        Gate::new(&Settings { config, keys }, now)
    }

    /// After so many seconds, by a wall clock that was set so far ahead meanwhile.
    fn after(seconds: u64, ahead: u64) -> Now {
        Now {
            wall: Timestamp(T0 + (seconds + ahead) * 1000),
            mono: Duration::from_secs(1000 + seconds),
        }
    }

    #[test]
    fn what_is_in_force_is_there_at_once_and_what_comes_a_minute_ahead() {
        let (mut gate, mut sifting) = (gate(1, after(0, 0)), Sifting::default());
        let mut next = |seconds| -> Vec<u64> {
            gate.tick(after(seconds, 0));
            let found = sifting.next(&mut gate, SKEW, after(seconds, 0));
            let mut left: Vec<u64> = found.iter().map(|(_, time)| time.as_secs()).collect();
            left.sort_unstable();
            left
        };
        // The minute before, this one and the next; each until the last packet of it is
        // too old, and a second.
        assert_eq!(next(0), [31, 91, 151]);
        assert!(next(1).is_empty());
        // A packet of the minute after the next can come at 90 s, and not before.
        assert_eq!(next(30), [181]);
        assert!(next(31).is_empty());
    }

    #[test]
    fn a_clock_that_is_set_has_everything_given_anew() {
        let (mut gate, mut sifting) = (gate(1, after(0, 0)), Sifting::default());
        assert_eq!(sifting.next(&mut gate, SKEW, after(0, 0)).len(), 3);
        let year = 365 * 24 * 3600;
        assert!(sifting.next(&mut gate, SKEW, after(1, year)).len() >= 3);
        assert!(sifting.next(&mut gate, SKEW, after(2, year)).is_empty());
        // By a second only: the same selectors, for another time.
        assert!(sifting.next(&mut gate, SKEW, after(3, year + 1)).len() >= 3);
    }

    #[test]
    fn many_keys_are_given_at_once_at_first_and_bit_by_bit_later() {
        let many = 3 * AT_ONCE;
        let (mut gate, mut sifting) = (gate(many, after(0, 0)), Sifting::default());
        assert_eq!(sifting.next(&mut gate, SKEW, after(0, 0)).len(), 3 * many);
        gate.tick(after(30, 0));
        let mut later = 0;
        for _ in 0..3 {
            let portion = sifting.next(&mut gate, SKEW, after(30, 0)).len();
            assert_eq!(portion, AT_ONCE);
            later += portion;
        }
        assert_eq!(later, many);
        assert!(sifting.next(&mut gate, SKEW, after(31, 0)).is_empty());
        sifting.begin_anew();
        assert_eq!(sifting.next(&mut gate, SKEW, after(32, 0)).len(), 3 * many);
    }
}
