//! The ruleset as values: what the guard's table holds, described once. The values print as
//! nft text and encode as netlink messages.

mod field;
mod guard;
mod parts;
mod prefilter;
mod rule;
mod sequence;
mod set;
mod standalone;
mod step;
#[cfg(test)]
pub mod tests;

pub use guard::ruleset;
pub use rule::add_rule;
pub use sequence::tag as sequence_tag;
pub use set::{ANONYMOUS, PERMANENT, Set, SetKind};
pub use standalone::standalone_sequence_text;

use super::guard::{GRACE_TIME, OptionalPart};
use super::names::GRACE;
use super::netlink::{Batch, CREATE, kind};
use std::fmt;

/// What a table holds.
#[derive(Debug)]
pub struct Ruleset {
    /// The table's name; its family is inet.
    pub table: &'static str,
    /// Its sets and maps.
    pub sets: Vec<Set>,
    /// Its chains; rules may name chains that follow.
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// The part that this chain or set belongs to, where it is not the guard itself.
    #[must_use]
    pub fn part_of(&self, name: &str) -> Option<OptionalPart> {
        let chains = self.chains.iter().map(|chain| (&chain.name, chain.part));
        let sets = self.sets.iter().map(|set| (&set.name, set.part));
        let found = chains.chain(sets).find(|(other, _)| *other == name);
        found.and_then(|(_, part)| part)
    }

    /// Removes what belongs to a part.
    pub fn remove(&mut self, part: OptionalPart) {
        self.sets.retain(|set| set.part != Some(part));
        self.chains.retain(|chain| chain.part != Some(part));
    }

    /// Gives TCP connections that are older than the guard a minute to show themselves.
    pub fn begin_grace(&mut self) {
        for grace in self.sets.iter_mut().filter(|set| set.name == GRACE) {
            grace.elements.push(("tcp".into(), Some(GRACE_TIME)));
        }
    }

    /// Removes a set, and the rules that look into it.
    fn remove_set(&mut self, name: &str) {
        let looked_into = format!("@{name} ");
        self.sets.retain(|set| set.name != name);
        for chain in &mut self.chains {
            chain.rules.retain(|rule| !rule.contains(&looked_into));
        }
    }

    /// Adds sets and chains that are a part.
    fn extend(&mut self, part: OptionalPart, sets: Vec<Set>, chains: Vec<Chain>) {
        let part = Some(part);
        let sets = sets.into_iter().map(|set| Set { part, ..set });
        self.sets.extend(sets);
        let chains = chains.into_iter().map(|chain| Chain { part, ..chain });
        self.chains.extend(chains);
    }
}

/// One `table` block, laid out as nft lists it.
impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        for set in &self.sets {
            writeln!(f, "{set}")?;
        }
        let chains: Vec<String> = self.chains.iter().map(Chain::to_string).collect();
        writeln!(f, "{}}}", chains.join("\n"))
    }
}

/// A chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where it begins, if no rule leads to it.
    pub hook: Option<BaseHook>,
    /// Its rules, in order, as nft writes them.
    pub rules: Vec<String>,
    /// The part that it belongs to, where it is not the guard itself.
    pub part: Option<OptionalPart>,
}

impl Chain {
    fn new<R: Into<String>>(name: &str, rules: impl IntoIterator<Item = R>) -> Self {
        Self {
            name: name.into(),
            hook: None,
            rules: rules.into_iter().map(Into::into).collect(),
            part: None,
        }
    }

    fn base(name: &str, at: HookPoint, priority: i32, rules: Vec<String>) -> Self {
        Self {
            hook: Some(BaseHook { at, priority }),
            ..Self::new(name, rules)
        }
    }

    /// Appends a message that adds the chain, or makes it accept what it does not decide
    /// where it is there.
    pub fn add(&self, batch: &mut Batch, table: &str) {
        batch.push(kind::NEW_CHAIN, CREATE, |message| {
            message.text(1, table);
            message.text(3, &self.name);
            if let Some((at, priority)) = self.hook.map(BaseHook::numbers) {
                message.text(7, "filter");
                message.number(5, ACCEPT);
                message.nest(4, |hook| {
                    hook.number(1, at);
                    hook.number(2, priority);
                });
            }
        });
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(BaseHook { at, priority }) = self.hook {
            let at = match at {
                HookPoint::Prerouting => "prerouting",
                HookPoint::Input => "input",
            };
            writeln!(
                f,
                "\t\ttype filter hook {at} priority {priority}; policy accept;"
            )?;
        }
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

/// `NF_ACCEPT`, a base chain's policy.
pub const ACCEPT: u32 = 1;

/// Where packets come to a base chain: of type filter, accepting what it does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseHook {
    /// The point.
    pub at: HookPoint,
    /// The order among the chains there: lower ones first.
    pub priority: i32,
}

/// A hook of the family inet, by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Before routing.
    Prerouting = 0,
    /// Where packets are delivered to this machine.
    Input = 1,
}

impl BaseHook {
    /// Its point and its priority, as the kernel has them.
    pub fn numbers(self) -> (u32, u32) {
        (self.at as u32, self.priority.cast_unsigned())
    }
}
