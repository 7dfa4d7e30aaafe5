//! What an install sends: first what is there goes, as far as it does not stay; then comes
//! what is to be.

use super::address::AddressFamily;
use super::elements;
use super::guard::{Guard, OptionalPart};
use super::names::{self, TABLE, TRIAL};
use super::netlink::{Batch, CREATE, kind};
use super::ruleset::{self, PERMANENT, Ruleset, Set};
use super::state::TableState;
use super::sync::Changes;
use crate::engine::{Desired, Now};
use oneknock_shared::name::ServiceName;

/// What an install is to make of the table.
pub struct Plan<'p> {
    /// What the table is to hold.
    pub ruleset: Ruleset,
    /// The table as it is.
    pub before: Option<TableState>,
    /// The table's flags.
    pub flags: u32,
    /// The services' names.
    services: Vec<ServiceName>,
    /// The allow entries to be, where they are known.
    allow: Option<(&'p Desired, Now)>,
    /// Whether the same port sequence is there: then what its sets hold stays.
    keeps_sequence: bool,
}

impl<'p> Plan<'p> {
    /// What makes the table this guard, but for the parts that are skipped.
    pub fn new(
        guard: &Guard,
        before: Option<TableState>,
        flags: u32,
        skipped: impl Iterator<Item = OptionalPart>,
        allow: Option<(&'p Desired, Now)>,
        grace: bool,
    ) -> Self {
        let mut ruleset = ruleset::ruleset(guard);
        skipped.for_each(|part| ruleset.remove(part));
        let tag = guard.sequence.as_ref().map(ruleset::sequence_tag);
        let has_tag = |b: &TableState| tag.is_some_and(|tag| b.chains.contains_key(&tag));
        if grace && !before.as_ref().is_some_and(TableState::is_guard) {
            ruleset.begin_grace();
        }
        Self {
            ruleset,
            flags,
            services: guard.services.iter().map(|service| service.name).collect(),
            allow,
            keeps_sequence: before.as_ref().is_some_and(has_tag),
            before,
        }
    }

    /// What gives a table that is there its flags: it is owned, or awake again. That needs a
    /// batch of its own, since the kernel takes no new base chain in a batch that changes
    /// them. `None` where it has them.
    pub fn flags_batch(&self) -> Option<Batch> {
        let before = self.before.as_ref()?;
        (before.flags != self.flags).then(|| Batch::of(|batch| self.add_table(batch)))
    }

    fn add_table(&self, batch: &mut Batch) {
        batch.push(kind::NEW_TABLE, CREATE, |table| {
            table.text(1, TABLE);
            table.number(2, self.flags);
        });
    }

    /// The whole change.
    pub fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        self.add_table(&mut batch);
        if let Some(before) = &self.before {
            self.clear(&mut batch, before);
        }
        let sets = &self.ruleset.sets;
        for set in sets.iter().filter(|set| !self.stays(&set.name)) {
            set.add(&mut batch, TABLE);
        }
        for chain in &self.ruleset.chains {
            chain.add(&mut batch, TABLE);
        }
        for chain in &self.ruleset.chains {
            for rule in &chain.rules {
                ruleset::add_rule(&mut batch, TABLE, &chain.name, rule);
            }
        }
        // A trial that goes on keeps its length.
        let is_kept = |set: &Set| set.name == TRIAL && self.stays(TRIAL);
        for set in sets.iter().filter(|set| !is_kept(set)) {
            set.add_elements(&mut batch, TABLE);
        }
        if let Some((desired, now)) = self.allow {
            let all = desired.allow().iter();
            let all = all.filter(|(target, _)| self.services.contains(&target.service));
            let all = all.map(|(target, entry)| (target, Some(entry)));
            Changes::new(all, now).add(&mut batch, CREATE);
        }
        batch
    }

    /// Removes every rule, the chains and sets that do not stay, and the elements of sets
    /// that are to be others.
    fn clear(&self, batch: &mut Batch, before: &TableState) {
        batch.push(kind::DELETE_RULE, 0, |rules| rules.text(1, TABLE));
        for name in before.sets.keys().filter(|name| !self.stays(name)) {
            batch.push(kind::DELETE_SET, 0, |set| {
                set.text(1, TABLE);
                set.text(2, name);
            });
        }
        for (name, state) in &before.chains {
            let chain = self.ruleset.chains.iter().find(|chain| chain.name == *name);
            let stays = chain.is_some_and(|chain| state.has_hook(chain.hook));
            if !stays && !state.is_bound() {
                batch.push(kind::DELETE_CHAIN, 0, |chain| {
                    chain.text(1, TABLE);
                    chain.text(3, name);
                });
            }
        }
        for set in &self.ruleset.sets {
            if self.stays(&set.name) && self.is_replaced(set) {
                elements::replace(batch, &set.name, &[]);
            }
        }
    }

    /// Whether a set is there, and is what it is to be.
    fn stays(&self, name: &str) -> bool {
        let state = self.before.as_ref().and_then(|b| b.sets.get(name));
        let set = self.ruleset.sets.iter().find(|set| set.name == name);
        let both = state.zip(set);
        both.is_some_and(|(state, set)| state.kind == set.kind())
    }

    /// Whether the elements of a set that stays are to be others: allow entries that are
    /// known, blocked gateways, and what another sequence has left.
    fn is_replaced(&self, set: &Set) -> bool {
        if set.part == Some(OptionalPart::Sequence) {
            return !self.keeps_sequence || set.flags == PERMANENT;
        }
        let is_of = |service: &ServiceName| {
            let names = AddressFamily::BOTH.map(|family| names::allow_set(*service, family));
            names.contains(&set.name)
        };
        self.allow.is_some() && self.services.iter().any(is_of)
    }
}
