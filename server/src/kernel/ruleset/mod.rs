//! The ruleset as values: what the guard's table holds, described once. The values print as
//! nft text and encode as netlink messages.

mod encode;
mod expression;
mod guard;
mod objects;
mod prefilter;
mod sequence;
mod standalone;
mod step;
#[cfg(test)]
pub mod tests;
mod text;
mod values;

pub use encode::add_rule;
pub use expression::{Compare, Field, Statement};
pub use guard::ruleset;
pub use objects::{ACCEPT, SetKind, chain_flag, set_flag, table_flag};
pub use prefilter::open_verdict;
pub use sequence::tag as sequence_tag;
pub use standalone::standalone_sequence_text;
pub use values::{AddressType, CtState, Value, octets, protocol_number};

use super::OptionalPart;
use oneknock_shared::port::Transport;
use std::net::IpAddr;
use std::time::Duration;

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
}

/// A type of a set's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// An IPv4 address.
    Ipv4Address,
    /// An IPv6 address.
    Ipv6Address,
    /// A transport protocol's number.
    Protocol,
    /// A port.
    Port,
    /// A family of addresses.
    Family,
    /// A packet's mark.
    Mark,
    /// The first eight bytes of a datagram's payload.
    Selector,
}

/// A named set, or a map where it has values.
#[derive(Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The types of which its keys are put together.
    pub key: Vec<DataType>,
    /// The type of its values.
    pub data: Option<DataType>,
    /// Whether its elements have timeouts.
    pub has_timeouts: bool,
    /// Whether rules add elements to it.
    pub is_dynamic: bool,
    /// How many elements it may hold.
    pub size: Option<u32>,
    /// Elements that it holds from the start.
    pub elements: Vec<InitialElement>,
    /// The part that it belongs to, where it is not the guard itself.
    pub part: Option<OptionalPart>,
}

impl Set {
    /// A set that the daemon fills, with timeouts.
    fn timed(name: impl Into<String>, key: &[DataType]) -> Self {
        Self {
            name: name.into(),
            key: key.to_vec(),
            data: None,
            has_timeouts: true,
            is_dynamic: false,
            size: None,
            elements: Vec::new(),
            part: None,
        }
    }

    /// A set that rules fill, with timeouts, up to a size.
    fn dynamic(name: impl Into<String>, key: &[DataType], size: u32) -> Self {
        Self {
            is_dynamic: true,
            size: Some(size),
            ..Self::timed(name, key)
        }
    }
}

/// An element that a set holds from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialElement {
    /// Its key.
    pub key: ElementKey,
    /// How long it stays; for good where there is none.
    pub timeout: Option<Duration>,
}

/// The key of an [`InitialElement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementKey {
    /// An address.
    Address(IpAddr),
    /// A transport protocol.
    Protocol(Transport),
}

/// A chain.
#[derive(Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where it begins, if no rule leads to it.
    pub hook: Option<BaseHook>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
    /// The part that it belongs to, where it is not the guard itself.
    pub part: Option<OptionalPart>,
}

impl Chain {
    fn new(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self {
            name: name.into(),
            hook: None,
            rules,
            part: None,
        }
    }

    fn base(name: &str, at: HookPoint, priority: i32, rules: Vec<Rule>) -> Self {
        Self {
            hook: Some(BaseHook { at, priority }),
            ..Self::new(name, rules)
        }
    }
}

/// Where packets come to a base chain: of type filter, accepting what it does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseHook {
    /// The point.
    pub at: HookPoint,
    /// The order among the chains there: lower ones first.
    pub priority: i32,
}

/// A hook of the family inet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    /// Before routing.
    Prerouting,
    /// Where packets are delivered to this machine.
    Input,
}

impl HookPoint {
    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
        }
    }
}

/// A rule: its statements, of which each is done if all before it hold.
pub type Rule = Vec<Statement>;
