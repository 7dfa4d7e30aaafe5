//! What a start finds, and what a power cut or a lost state leaves of it.

use super::{Known, Model};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use oneknockd::engine::{Event, Now, Rules, Spend, State};

/// What a start finds.
pub struct Found<'s> {
    pub state: &'s State,
    /// The power was cut: nothing up to here is accepted.
    pub floor: Option<Timestamp>,
    /// Written by an append that failed, and read all the same.
    pub torn: &'s [Spend],
}

impl Model {
    /// A run has ended and another begins. What the disk had is known again.
    pub fn restart(
        &mut self,
        rules: &Rules,
        now: Now,
        found: &Found<'_>,
    ) -> Result<Vec<Event>, String> {
        self.begin_run(rules, now);
        self.record(found.torn);
        let read = Known::read(found.state);
        let is_right = match found.floor {
            None => read == self.disk,
            Some(_) => read.is_left_of(&self.disk),
        };
        if !is_right {
            return Err(format!("read {read:?}, and right is {:?}", self.disk));
        }
        self.run = read;
        self.apply_default_floor(now);
        let grants = std::mem::take(&mut self.run.grants);
        let events = grants.into_values().map(|grant| self.take_over(grant, now));
        let mut events: Vec<Event> = events.collect();
        events.extend(self.tick(now));
        if let Some(floor) = found.floor {
            self.raise_floors(floor);
        }
        self.begin_segment(now);
        Ok(events)
    }

    /// As [`Model::restart`], where there is no state.
    pub fn restart_without_state(&mut self, rules: &Rules, now: Now) {
        self.begin_run(rules, now);
        (self.run, self.disk) = (Known::default(), Known::default());
    }

    /// The state was lost and the clock is right: `floor` is all that is known. What was
    /// later, since the clock was ahead when it came, nothing can keep out.
    pub fn begin_without_state(&mut self, floor: Timestamp, now: Now) {
        self.recorded.retain(|_, (_, at)| *at <= floor);
        self.raise_floors(floor);
        self.begin_segment(now);
    }

    fn begin_run(&mut self, rules: &Rules, now: Now) {
        self.rates.clear();
        self.spent.clear();
        self.install(rules, now);
    }

    /// Nothing up to `floor` is accepted from any generation that there is, or of which a
    /// record is left. Of one that is neither, and comes back: `apply_default_floor`.
    fn raise_floors(&mut self, floor: Timestamp) {
        let mut of = self.ids();
        of.extend(self.run.generations());
        for id in &of {
            self.run.raise_floor(*id, floor);
        }
        self.run.default_floor = self.run.default_floor.max(Some(floor));
        let away = self.recorded.values().map(|(id, _)| *id);
        self.away.extend(away);
        self.away.retain(|id| !of.contains(id));
    }

    /// A generation without a record has the floor that others had, but for a skew at most.
    pub(super) fn apply_default_floor(&mut self, now: Now) {
        let Some(floor) = self.run.default_floor else {
            return;
        };
        let floor = floor.min(Timestamp(now.wall.0.saturating_add(self.skew())));
        let known = self.run.generations();
        for id in self.ids().difference(&known) {
            self.run.raise_floor(*id, floor);
            if self.away.remove(id) {
                let is_promised = |of: &GenerationId, at: &Timestamp| of != id || *at <= floor;
                self.recorded.retain(|_, (of, at)| is_promised(of, at));
            }
        }
    }
}
