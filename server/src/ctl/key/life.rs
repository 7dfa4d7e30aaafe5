//! The life of a key's generations: made, in force, retiring, ended. Pure.

use crate::clock::date;
use crate::config::{Generation, Key};
use crate::gate::end_of_generation;
use crate::ledger::Use;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::{GenerationId, ServerId, Subkeys};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A generation that ended so long ago is dropped at the next change: the daemon does not
/// look it up any more either.
const FORGET: Duration = Duration::from_secs(30 * 24 * 3600);

/// A generation and what the state knows of it.
#[derive(Debug, Clone)]
pub struct Known {
    /// As the key's file has it.
    pub generation: Generation,
    /// Its use.
    pub used: Use,
}

/// What is the case with a generation at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It comes into force then.
    NotYet(Timestamp),
    /// It works, until then where it has an end.
    Active(Option<Timestamp>),
    /// It works until then, and a newer one is there.
    Retiring(Timestamp),
    /// It has ended then.
    Expired(Timestamp),
}

impl State {
    /// The word for it in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotYet(_) => "not-yet-valid",
            Self::Active(_) => "active",
            Self::Retiring(_) => "retiring",
            Self::Expired(_) => "expired",
        }
    }

    /// Whether it opens.
    #[must_use]
    pub fn works(self) -> bool {
        matches!(self, Self::Active(_) | Self::Retiring(_))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(from) => write!(f, "not valid before {}", date(*from)),
            Self::Active(None) => f.write_str("active"),
            Self::Active(Some(end)) => write!(f, "active until {}", date(*end)),
            Self::Retiring(end) => write!(f, "retiring until {}", date(*end)),
            Self::Expired(end) => write!(f, "expired at {}", date(*end)),
        }
    }
}

/// When a new generation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// When the one that it replaces would have.
    Inherited,
    /// Then, or never.
    Until(Option<Timestamp>),
}

/// A key's generations in the order of their numbers.
#[derive(Debug, Clone)]
pub struct Life(pub Vec<Known>);

impl Life {
    /// Of a key at a server, with what the state knows.
    #[must_use]
    pub fn of(key: &Key, server: &ServerId, uses: &BTreeMap<GenerationId, Use>) -> Self {
        let known = key.generations.iter().map(|generation| {
            let id = Subkeys::derive(&generation.secret, server).id();
            Known {
                generation: generation.clone(),
                used: uses.get(&id).cloned().unwrap_or_default(),
            }
        });
        let mut known: Vec<Known> = known.collect();
        known.sort_by_key(|known| known.generation.number);
        Self(known)
    }

    /// What these generations are called in the state, each after its number.
    #[must_use]
    pub fn ids(&self, server: &ServerId, numbers: &[u32]) -> Vec<(u32, GenerationId)> {
        let all = self.0.iter().map(|known| &known.generation);
        all.filter(|g| numbers.contains(&g.number))
            .map(|g| (g.number, Subkeys::derive(&g.secret, server).id()))
            .collect()
    }

    /// What is the case with the generation at this place of the list.
    #[must_use]
    pub fn state(&self, at: usize, now: Timestamp) -> State {
        let Known { generation, used } = &self.0[at];
        let end = end_of_generation(generation.not_after, used.retires);
        match (generation.not_before, end) {
            (_, Some(end)) if now > end => State::Expired(end),
            (Some(from), _) if now < from => State::NotYet(from),
            (_, Some(end)) if at + 1 < self.0.len() => State::Retiring(end),
            (_, end) => State::Active(end),
        }
    }

    /// Whether a generation that works has been used: somebody counts on the key.
    #[must_use]
    pub fn is_in_use(&self, now: Timestamp) -> bool {
        (0..self.0.len()).any(|at| self.state(at, now).works() && self.0[at].used.last.is_some())
    }

    fn newest_that_works(&self, now: Timestamp) -> Option<usize> {
        (0..self.0.len()).rfind(|&at| self.state(at, now).works())
    }

    /// Whether the newest is a rotation's that nobody has used yet, beside an older one
    /// that works. A state that was lost knows nothing of a use; that the older ones retire
    /// tells of it too.
    fn has_unused_newest(&self, now: Timestamp) -> bool {
        let Some((newest, older)) = self.0.split_last() else {
            return false;
        };
        newest.used.last.is_none()
            && older.iter().all(|known| known.used.retires.is_none())
            && (0..older.len()).any(|at| self.state(at, now).works())
    }

    /// Puts a new generation beside the one that works, which then has `overlap` left; or
    /// in the place of all, where there is no overlap. It ends when the newest would
    /// have, or as `limit` says.
    pub fn rotate(
        mut self,
        mut new: Generation,
        overlap: Option<Duration>,
        limit: Limit,
        now: Timestamp,
    ) -> Result<Vec<Generation>, Ended> {
        let limit = match (limit, self.newest_that_is_to_last(now)) {
            (Limit::Until(end), _) => end,
            (Limit::Inherited, Some(newest)) => newest.generation.not_after,
            (Limit::Inherited, None) => return Err(Ended),
        };
        new.not_after = limit;
        let Some(overlap) = overlap else {
            return Ok(vec![new]);
        };
        let until = Timestamp(now.0.saturating_add(ms(overlap)));
        let until = limit.map_or(until, |limit| limit.min(until));
        let is_second = self.has_unused_newest(now);
        if is_second {
            self.0.pop();
        }
        if let Some(at) = self.newest_that_works(now) {
            let end = &mut self.0[at].generation.not_after;
            // A rotation that came to nothing has shortened it: this one begins anew.
            *end = Some(
                end.filter(|_| !is_second)
                    .map_or(until, |end| end.min(until)),
            );
        }
        let oldest = now.0.saturating_sub(ms(FORGET));
        let is_remembered = |end: Option<Timestamp>| end.is_none_or(|end| end.0 >= oldest);
        let kept = self.0.into_iter().map(|known| known.generation);
        let mut all: Vec<Generation> = kept.filter(|g| is_remembered(g.not_after)).collect();
        all.push(new);
        Ok(all)
    }

    /// The one whose end a new one inherits: the newest, or where that has ended the newest
    /// that works.
    fn newest_that_is_to_last(&self, now: Timestamp) -> Option<&Known> {
        let newest = self.0.len().checked_sub(1)?;
        match self.state(newest, now) {
            State::Expired(_) => self.newest_that_works(now).map(|at| &self.0[at]),
            _ => self.0.get(newest),
        }
    }

    /// Ends these generations; those that have not begun are dropped. Gives the others as
    /// they are, whether any ended, and whether the key goes on working for those who use
    /// it: with a generation that has been used.
    #[must_use]
    pub fn retire(&self, numbers: &[u32], now: Timestamp) -> Retirement {
        let mut left = self.clone();
        let mut ended = Vec::new();
        // "Up to and including".
        let end = Timestamp(now.0.saturating_sub(1));
        left.0.retain_mut(|known| {
            let generation = &mut known.generation;
            if !numbers.contains(&generation.number) {
                return true;
            }
            let has_ended = generation.not_after.is_some_and(|end| end < now);
            if !has_ended {
                ended.push(generation.number);
                generation.not_after = Some(end);
            }
            generation.not_before.is_none_or(|from| from <= end)
        });
        Retirement {
            locks_out: self.is_in_use(now) && !left.is_in_use(now),
            generations: left.0.into_iter().map(|known| known.generation).collect(),
            ended,
        }
    }
}

/// What ending generations comes to.
#[derive(Debug)]
pub struct Retirement {
    /// The generations that are left in the key's file.
    pub generations: Vec<Generation>,
    /// Which have ended by it.
    pub ended: Vec<u32>,
    /// Whether whoever uses the key would be locked out.
    pub locks_out: bool,
}

/// The key has no generation that works or will.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended;

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const HOUR: u64 = 3_600_000;
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn after(hours: u64) -> Timestamp {
        Timestamp(NOW.0 + hours * HOUR)
    }

    fn ago(hours: u64) -> Timestamp {
        Timestamp(NOW.0 - hours * HOUR)
    }

    fn new(number: u32) -> Generation {
        Generation::generate(number, NOW).unwrap()
    }

    /// A generation with its end, and whether it was used.
    fn known(number: u32, not_after: Option<Timestamp>, is_used: bool) -> Known {
        Known {
            generation: Generation {
                not_after,
                ..new(number)
            },
            used: Use {
                last: is_used.then_some(ago(1)),
                ..Use::default()
            },
        }
    }

    fn numbers_and_ends(generations: &[Generation]) -> Vec<(u32, Option<Timestamp>)> {
        generations
            .iter()
            .map(|g| (g.number, g.not_after))
            .collect()
    }

    fn rotated(life: Vec<Known>, number: u32) -> Vec<(u32, Option<Timestamp>)> {
        let all = Life(life).rotate(new(number), Some(WEEK), Limit::Inherited, NOW);
        numbers_and_ends(&all.unwrap())
    }

    #[test]
    fn states_follow_the_clock_and_what_was_brought_forward() {
        let mut life = Life(vec![
            known(1, Some(ago(1)), true),
            known(2, Some(after(9)), true),
            known(3, None, true),
        ]);
        assert_eq!(life.state(0, NOW), State::Expired(ago(1)));
        assert_eq!(life.state(1, NOW), State::Retiring(after(9)));
        assert_eq!(life.state(2, NOW), State::Active(None));
        life.0[1].used.retires = Some(after(2));
        assert_eq!(life.state(1, NOW), State::Retiring(after(2)));
        life.0[2].generation.not_before = Some(after(1));
        assert_eq!(life.state(2, NOW), State::NotYet(after(1)));
        assert_eq!(life.state(2, after(1)), State::Active(None));
    }

    #[test]
    fn a_rotation_leaves_the_old_its_overlap() {
        let week = Some(after(168));
        assert_eq!(
            rotated(vec![known(1, None, true)], 2),
            [(1, week), (2, None)]
        );
        // Also one that was never used: its holder may be about to.
        assert_eq!(
            rotated(vec![known(1, None, false)], 2),
            [(1, week), (2, None)]
        );
    }

    #[test]
    fn a_second_rotation_drops_what_was_never_used_and_nothing_else() {
        let week = Some(after(168));
        let first = |is_used| vec![known(1, Some(after(5)), true), known(2, None, is_used)];
        assert_eq!(rotated(first(false), 3), [(1, week), (3, None)]);
        let want = [(1, Some(after(5))), (2, week), (3, None)];
        assert_eq!(rotated(first(true), 3), want);
        // The state was lost, and still knows that the first retires.
        let mut retiring = first(false);
        retiring[0].used.retires = Some(after(4));
        assert_eq!(rotated(retiring, 3), want);
        // Nothing else works.
        let alone = vec![known(1, Some(ago(5)), true), known(2, None, false)];
        assert_eq!(rotated(alone, 3), [(1, Some(ago(5))), (2, week), (3, None)]);
    }

    #[test]
    fn a_new_generation_outlives_no_limit_of_the_old_unless_it_is_said() {
        let limited = || vec![known(1, Some(after(50)), true)];
        let want = [(1, Some(after(50))), (2, Some(after(50)))];
        assert_eq!(rotated(limited(), 2), want);
        let second = vec![
            known(1, Some(after(9)), true),
            known(2, Some(after(50)), false),
        ];
        assert_eq!(
            rotated(second, 3),
            [(1, Some(after(50))), (3, Some(after(50)))]
        );
        let free = Life(limited()).rotate(new(2), Some(WEEK), Limit::Until(None), NOW);
        assert_eq!(
            numbers_and_ends(&free.unwrap()),
            [(1, Some(after(50))), (2, None)]
        );
        let ended = Life(vec![known(1, Some(ago(1)), true)]);
        assert_eq!(
            ended.rotate(new(2), Some(WEEK), Limit::Inherited, NOW),
            Err(Ended)
        );
    }

    #[test]
    fn without_an_overlap_nothing_old_is_left() {
        let life = Life(vec![known(1, Some(after(5)), true), known(2, None, true)]);
        let all = life.rotate(new(3), None, Limit::Inherited, NOW).unwrap();
        assert_eq!(numbers_and_ends(&all), [(3, None)]);
    }

    #[test]
    fn what_ended_long_ago_is_forgotten() {
        let life = vec![known(1, Some(ago(24 * 31)), true), known(2, None, true)];
        assert_eq!(rotated(life, 3), [(2, Some(after(168))), (3, None)]);
    }

    #[test]
    fn to_retire_the_last_that_is_known_to_work_locks_out() {
        let life = |is_used| {
            Life(vec![
                known(1, Some(after(5)), true),
                known(2, None, is_used),
            ])
        };
        assert!(!life(true).retire(&[1], NOW).locks_out);
        assert!(life(false).retire(&[1], NOW).locks_out);
        assert!(!life(false).retire(&[2], NOW).locks_out);
        assert!(life(true).retire(&[1, 2], NOW).locks_out);
        let unused = Life(vec![known(1, None, false)]);
        assert!(!unused.retire(&[1], NOW).locks_out);
    }

    #[test]
    fn a_retired_generation_has_ended_and_one_that_has_not_begun_is_gone() {
        let mut life = Life(vec![known(1, None, true), known(2, None, true)]);
        let done = life.retire(&[1], NOW);
        let end = Timestamp(NOW.0 - 1);
        assert_eq!(
            numbers_and_ends(&done.generations),
            [(1, Some(end)), (2, None)]
        );
        assert_eq!(done.ended, [1]);
        life.0[0].generation.not_after = Some(end);
        assert_eq!(life.retire(&[1], NOW).ended, [0; 0]);
        life.0[1].generation.not_before = Some(after(1));
        let done = life.retire(&[2], NOW);
        assert_eq!(numbers_and_ends(&done.generations), [(1, Some(end))]);
    }
}
