//! A key's generations: the current one, and the previous one while both work. Pure.

use crate::clock::date;
use crate::config::{Generation, Key};
use crate::store::GenerationUse;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::{GenerationId, ServerId, Subkeys};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A generation and what the state knows of it.
#[derive(Debug, Clone)]
pub struct UsedGeneration {
    /// As the key's file has it.
    pub generation: Generation,
    /// Its use.
    pub used: GenerationUse,
}

impl UsedGeneration {
    fn end(&self) -> Option<Timestamp> {
        let end = self.generation.end()?;
        Some(self.used.retires.map_or(end, |retires| retires.min(end)))
    }

    /// Whether it works, or will.
    fn lasts(&self, now: Timestamp) -> bool {
        self.end().is_none_or(|end| now <= end)
    }
}

/// What is the case with a generation at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is valid from then on.
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

/// The generations of a key in the order of their numbers, at most two: the previous one and
/// the current one.
#[derive(Debug, Clone)]
pub struct Generations(Vec<UsedGeneration>);

impl Generations {
    /// Of a key at a server, with what the state knows.
    #[must_use]
    pub fn of(key: &Key, server: &ServerId, uses: &BTreeMap<GenerationId, GenerationUse>) -> Self {
        let all = key.generations.iter().map(|generation| {
            let id = Subkeys::derive(&generation.secret, server).id();
            UsedGeneration {
                generation: generation.clone(),
                used: uses.get(&id).cloned().unwrap_or_default(),
            }
        });
        let mut all: Vec<UsedGeneration> = all.collect();
        all.sort_by_key(|one| one.generation.number);
        Self(all)
    }

    /// As the key's file has them.
    #[must_use]
    pub fn in_file(&self) -> Vec<Generation> {
        self.0.iter().map(|one| one.generation.clone()).collect()
    }

    /// Each of them, with what is the case with it.
    pub fn states(&self, now: Timestamp) -> impl Iterator<Item = (&UsedGeneration, State)> {
        let all = self.0.iter().enumerate();
        all.map(move |(at, one)| (one, self.state(at, now)))
    }

    fn state(&self, at: usize, now: Timestamp) -> State {
        let has_newer = self.0.iter().skip(at + 1).any(|newer| newer.lasts(now));
        match (self.0[at].generation.not_before, self.0[at].end()) {
            (_, Some(end)) if now > end => State::Expired(end),
            (Some(from), _) if now < from => State::NotYet(from),
            (_, Some(end)) if has_newer => State::Retiring(end),
            (_, end) => State::Active(end),
        }
    }

    /// The number of the newest.
    #[must_use]
    pub fn last_number(&self) -> u32 {
        self.0.last().map_or(0, |one| one.generation.number)
    }

    /// Whether a generation that works has been used: somebody counts on the key.
    #[must_use]
    pub fn is_in_use(&self, now: Timestamp) -> bool {
        self.states(now)
            .any(|(one, state)| state.works() && one.used.last.is_some())
    }

    /// The newest that has not ended.
    #[must_use]
    pub fn newest(&self, now: Timestamp) -> Option<&UsedGeneration> {
        self.0.iter().rfind(|one| one.lasts(now))
    }

    /// When the key begins to open, where nothing of it does yet.
    fn begins(&self, now: Timestamp) -> Option<Timestamp> {
        if self.states(now).any(|(_, state)| state.works()) {
            return None;
        }
        self.newest(now)?.generation.not_before
    }

    /// Whether the previous one, and the current one, have been used as far as the state tells.
    /// Where the previous one retires the current one was used, even if the state has lost when:
    /// then it may have lost the use of the previous one too.
    fn are_used(previous: &UsedGeneration, current: &UsedGeneration) -> (bool, bool) {
        let is_lost = current.used.last.is_none() && previous.used.retires.is_some();
        let is_used = |one: &UsedGeneration| one.used.last.is_some() || is_lost;
        (is_used(previous), is_used(current))
    }

    /// Puts a new generation beside one that works, or will, which then has `overlap` left from
    /// when the key opens; or in the place of all, where there is no overlap. It ends when the
    /// newest would have, or as `limit` says, and begins no sooner than the key. Of two that
    /// work one has to go: one that nobody has used, or with `force` the previous one.
    pub fn rotate(
        self,
        mut new: Generation,
        overlap: Option<Duration>,
        limit: Limit,
        force: bool,
        now: Timestamp,
    ) -> Result<Vec<Generation>, NotRotated> {
        new.not_after = match (limit, self.newest(now)) {
            (Limit::Until(end), _) => end,
            (Limit::Inherited, Some(newest)) => newest.generation.not_after,
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
        let Some((mut kept, is_second)) = self.beside_a_new_one(force, now)? else {
            return Ok(vec![new]);
        };
        // A rotation that came to nothing had given it an end: this one begins from here.
        let end = kept.overlap_until.filter(|_| !is_second);
        kept.overlap_until = Some(end.map_or(until, |end| end.min(until)));
        Ok(vec![kept, new])
    }

    /// The one that stays beside a new one, and whether the one after it goes since nobody has
    /// used it.
    fn beside_a_new_one(
        mut self,
        force: bool,
        now: Timestamp,
    ) -> Result<Option<(Generation, bool)>, NotRotated> {
        let Some(current) = self.0.pop() else {
            return Ok(None);
        };
        let Some(previous) = self.0.pop().filter(|previous| previous.lasts(now)) else {
            return Ok(Some((current.generation, false)));
        };
        let both = (previous.generation.clone(), current.generation.clone());
        Ok(Some(match Self::are_used(&previous, &current) {
            (_, false) => (both.0, true),
            _ if !current.lasts(now) => (both.0, false),
            (true, true) if !force => return Err(NotRotated::BothInUse),
            _ => (both.1, false),
        }))
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
        left.0.retain_mut(|one| {
            let last = one.used.last;
            let generation = &mut one.generation;
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
            generations: left.in_file(),
            ended,
            goes_on,
        }
    }

    /// Takes the overlap's end from the previous one, where it is left alone by the end of a
    /// current one that nobody has used. Gives its number.
    fn give_back(&self, left: &mut Self, now: Timestamp) -> Option<u32> {
        let [previous, current] = &self.0[..] else {
            return None;
        };
        let (_, is_used) = Self::are_used(previous, current);
        let number = previous.generation.number;
        let is_left = |one: &UsedGeneration| one.generation.number == number && one.lasts(now);
        if is_used || !current.lasts(now) || !left.newest(now).is_some_and(is_left) {
            return None;
        }
        let kept = left.0.iter_mut().find(|one| is_left(one))?;
        kept.generation.overlap_until.take().map(|_| number)
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
    /// Two generations are in use, and a third one cannot be.
    BothInUse,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
