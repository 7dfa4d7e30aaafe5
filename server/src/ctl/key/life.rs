//! The life of a key's generations: made, in force, retiring, ended. Pure.

use crate::clock::date;
use crate::config::{Generation, Key};
use crate::store::GenerationUse;
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
    pub used: GenerationUse,
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
    pub fn of(key: &Key, server: &ServerId, uses: &BTreeMap<GenerationId, GenerationUse>) -> Self {
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

    /// As the key's file has them.
    #[must_use]
    pub fn generations(&self) -> Vec<Generation> {
        let all = self.0.iter().map(|known| known.generation.clone());
        all.collect()
    }

    /// What is the case with the generation at this place of the list.
    #[must_use]
    pub fn state(&self, at: usize, now: Timestamp) -> State {
        let is_newest = || !(at + 1..self.0.len()).any(|newer| self.lasts(newer, now));
        match (self.0[at].generation.not_before, self.end(at)) {
            (_, Some(end)) if now > end => State::Expired(end),
            (Some(from), _) if now < from => State::NotYet(from),
            (_, Some(end)) if !is_newest() => State::Retiring(end),
            (_, end) => State::Active(end),
        }
    }

    fn end(&self, at: usize) -> Option<Timestamp> {
        let Known { generation, used } = &self.0[at];
        let end = generation.end()?;
        Some(used.retires.map_or(end, |retires| retires.min(end)))
    }

    /// Whether a generation that works has been used: somebody counts on the key.
    #[must_use]
    pub fn is_in_use(&self, now: Timestamp) -> bool {
        (0..self.0.len()).any(|at| self.state(at, now).works() && self.0[at].used.last.is_some())
    }

    /// Whether the generation at this place works, or will.
    fn lasts(&self, at: usize, now: Timestamp) -> bool {
        self.end(at).is_none_or(|end| now <= end)
    }

    /// The newest that has not ended.
    #[must_use]
    pub fn newest(&self, now: Timestamp) -> Option<&Known> {
        self.newest_that_lasts(now).map(|at| &self.0[at])
    }

    fn newest_that_lasts(&self, now: Timestamp) -> Option<usize> {
        (0..self.0.len()).rfind(|&at| self.lasts(at, now))
    }

    /// The place from which on nobody has used any, as far as the state tells.
    fn never_used(&self) -> usize {
        let used = self.0.iter().rposition(|known| known.used.last.is_some());
        // One retires since a newer one was used: a state that was lost may not say which.
        let since = &self.0[used.unwrap_or(0)..];
        if since.iter().any(|known| known.used.retires.is_some()) {
            return self.0.len();
        }
        used.map_or(0, |at| at + 1)
    }

    /// The place from which on all are of rotations that came to nothing, beside an older one
    /// that works or will.
    fn came_to_nothing(&self, now: Timestamp) -> usize {
        let all = self.0.len();
        let Some(oldest) = (0..all).find(|&at| self.lasts(at, now)) else {
            return all;
        };
        match self.never_used() {
            // The state may have been lost, and any but the newest be in use.
            0 => all.saturating_sub(1).max(oldest + 1),
            from => from.max(oldest + 1),
        }
    }

    /// When the key begins to open, where nothing of it does yet.
    fn begins(&self, now: Timestamp) -> Option<Timestamp> {
        if (0..self.0.len()).any(|at| self.state(at, now).works()) {
            return None;
        }
        let newest = &self.0[self.newest_that_lasts(now)?];
        newest.generation.not_before
    }

    /// Puts a new generation beside the one that works, or will, which then has `overlap`
    /// left from when the key opens; or in the place of all, where there is no overlap. It
    /// ends when the newest would have, or as `limit` says, and begins no sooner than the key.
    pub fn rotate(
        mut self,
        mut new: Generation,
        overlap: Option<Duration>,
        limit: Limit,
        now: Timestamp,
    ) -> Result<Vec<Generation>, NotRotated> {
        new.not_after = match (limit, self.newest_that_lasts(now)) {
            (Limit::Until(end), _) => end,
            (Limit::Inherited, Some(newest)) => self.0[newest].generation.not_after,
            (Limit::Inherited, None) => return Err(NotRotated::Ended),
        };
        new.not_before = self.begins(now);
        let begins = new.not_before.unwrap_or(now);
        if new.not_after.is_some_and(|end| end < begins) {
            return Err(NotRotated::EndsFirst);
        }
        let Some(overlap) = overlap else {
            return Ok(vec![new]);
        };
        let until = Timestamp(begins.0.saturating_add(ms(overlap)));
        let until = new.not_after.map_or(until, |limit| limit.min(until));
        // The rotation that came to nothing had given the others an end: this one begins anew.
        let from = self.came_to_nothing(now);
        let is_second = from < self.0.len();
        self.0.truncate(from);
        let newest = self.newest_that_lasts(now);
        for at in 0..self.0.len() {
            let is_anew = is_second && newest == Some(at);
            let end = &mut self.0[at].generation.overlap_until;
            *end = Some(end.filter(|_| !is_anew).map_or(until, |end| end.min(until)));
        }
        let oldest = now.0.saturating_sub(ms(FORGET));
        let is_remembered = |g: &Generation| g.end().is_none_or(|end| end.0 >= oldest);
        let kept = self.0.into_iter().map(|known| known.generation);
        let mut all: Vec<Generation> = kept.filter(is_remembered).collect();
        all.push(new);
        Ok(all)
    }

    /// Ends these generations; those that have not begun are dropped. Gives the others as
    /// they are, whether any ended, and whether the key goes on working for those who use
    /// it: with a generation that has been used. Where by it a rotation comes to nothing that
    /// nobody has used, its overlap is over too: the one before has its own end again.
    ///
    /// The end is when they were last used, or made: by a clock that is ahead the present
    /// would be an end that is still to come once the clock is right.
    #[must_use]
    pub fn retire(&self, numbers: &[u32], now: Timestamp) -> Retirement {
        let mut left = self.clone();
        let mut ended = Vec::new();
        // "Up to and including".
        let before = Timestamp(now.0.saturating_sub(1));
        left.0.retain_mut(|known| {
            let last = known.used.last;
            let generation = &mut known.generation;
            if !numbers.contains(&generation.number) {
                return true;
            }
            let has_ended = generation.end().is_some_and(|end| end < now);
            if !has_ended {
                ended.push(generation.number);
            }
            let past = generation.made.max(last).max(generation.not_before);
            let ends = [generation.end(), past, Some(before)];
            generation.not_after = ends.into_iter().flatten().min();
            generation.not_before.is_none_or(|from| from <= before)
        });
        let goes_on = self.give_back(&mut left, now);
        Retirement {
            locks_out: self.is_in_use(now) && !left.is_in_use(now),
            generations: left.0.into_iter().map(|known| known.generation).collect(),
            ended,
            goes_on,
        }
    }

    /// Takes the overlap's end from the newest that is left, where all that were newer and
    /// worked, or would have, were never used. Gives its number.
    fn give_back(&self, left: &mut Self, now: Timestamp) -> Option<u32> {
        let was = self.newest(now)?.generation.number;
        let at = left.newest_that_lasts(now)?;
        let generation = &mut left.0[at].generation;
        let number = generation.number;
        let used = &self.0[..self.never_used()];
        let is_used = used.iter().any(|known| known.generation.number > number);
        if number == was || is_used || generation.overlap_until.is_none() {
            return None;
        }
        generation.overlap_until = None;
        Some(number)
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
    /// Which goes on as if it had not been rotated.
    pub goes_on: Option<u32>,
}

/// Why there is no new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRotated {
    /// The key has no generation that works or will.
    Ended,
    /// It would end before the key begins to open.
    EndsFirst,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
