//! The table as the kernel has it: what an install has to plan for, and, by the kernel's own
//! handles, what tells that another program has changed it since.

use super::names::{self, GUARD, ROLLING, SEQUENCE, TABLE, TRIAL};
use super::netlink::{Attributes, INET, Netlink, RawMessage, Writer, kind};
use super::ruleset::{ACCEPT, ANONYMOUS, BaseHook, Chain, Ruleset, SetKind};
use oneknock_shared::secret::ServerId;
use std::collections::BTreeMap;
use std::io;

/// How often a picture is begun again when something changes while it is read.
const MAX_READS: usize = 5;

/// The flags of a table.
pub mod table_flag {
    /// Nothing in it is applied.
    pub const DORMANT: u32 = 1;
    /// A socket owns it: nothing else can change it.
    pub const OWNER: u32 = 2;
    /// It outlives the socket that owns it.
    pub const PERSIST: u32 = 4;
}

/// A chain's flag: network cards are to do its work.
const OFFLOAD: u32 = 2;
/// A chain's flag: it is a part of the rule that jumps to it.
const BINDING: u32 = 4;

/// When an installed guard guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardForm {
    /// At all times.
    Enforcing,
    /// Only while a trial lasts.
    Trial,
}

/// The table `inet oneknock` as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledTable {
    /// The form of the guard in it; `None` where there is just a table.
    pub form: Option<GuardForm>,
    /// Whose guard it is: the id in 32 hexadecimal digits, as
    /// [`oneknock_shared::secret::ServerId::to_hex`] gives it.
    pub server: Option<String>,
    /// Whether the table outlives the process that owns it.
    pub is_persistent: bool,
    /// Whether a process owns it.
    pub is_owned: bool,
    /// Whether a port sequence is watched for that needs no daemon: a fixed one.
    pub has_fixed_sequence: bool,
}

/// The table, its chains with their rules, and its sets. Counters and elements come and go,
/// and are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// Its flags.
    pub flags: u32,
    handle: u64,
    /// Its chains, by name.
    pub chains: BTreeMap<String, ChainState>,
    /// Its sets, by name; those that are a part of a rule are not among them.
    pub sets: BTreeMap<String, SetState>,
}

/// The table as it was installed.
#[derive(Debug)]
pub struct KnownTable {
    /// The table.
    pub state: TableState,
    /// The number of the ruleset's last change then.
    pub generation: u32,
    /// Changes that this process has made since. Never too many: one too few costs a look,
    /// one too many would hide another program's.
    pub own_changes: u32,
}

/// A chain in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainState {
    handle: u64,
    /// Its hook's number and priority, where it has one.
    hook: Option<(u32, u32)>,
    policy: u32,
    is_filter: bool,
    flags: u32,
    /// The handles of its rules, in order.
    rules: Vec<u64>,
}

/// A set in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetState {
    handle: u64,
    /// The kind of set that it is.
    pub kind: SetKind,
}

impl TableState {
    /// Reads it; `None` where there is no table.
    pub fn read(netlink: &mut Netlink) -> io::Result<Option<Self>> {
        match Self::try_read(netlink) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }

    fn try_read(netlink: &mut Netlink) -> io::Result<Option<Self>> {
        let of = Writer::body(INET, |message| message.text(1, TABLE));
        let table = netlink.get(kind::GET_TABLE, &of, |table| {
            let table = table.attributes();
            Some((table.number(2).unwrap_or_default(), handle(table, 4)))
        })?;
        let Some((flags, of_table)) = table else {
            return Ok(None);
        };
        let mut state = Self {
            flags,
            handle: of_table,
            chains: BTreeMap::new(),
            sets: BTreeMap::new(),
        };
        let every = Writer::body(INET, |_| {});
        let chains = netlink.dump(kind::GET_CHAIN, &every, |chain| {
            let chain = ours(chain)?;
            Some((chain.text(3)?.to_owned(), ChainState::read(chain)))
        })?;
        state.chains.extend(chains);
        let rules = netlink.dump(kind::GET_RULE, &of, |rule| {
            let rule = ours(rule)?;
            Some((rule.text(2)?.to_owned(), handle(rule, 3)))
        })?;
        for (chain, rule) in rules {
            if let Some(chain) = state.chains.get_mut(&chain) {
                chain.rules.push(rule);
            }
        }
        let sets = netlink.dump(kind::GET_SET, &of, |set| {
            let set = ours(set)?;
            let is_anonymous = set.number(3).unwrap_or_default() & ANONYMOUS != 0;
            (!is_anonymous).then_some((set.text(2)?.to_owned(), SetState::read(set)))
        })?;
        state.sets.extend(sets);
        Ok(Some(state))
    }

    /// As [`TableState::read`], with the number of the ruleset's change after which it was
    /// so. The outer `None`: other programs change so much that no whole picture is to be
    /// had just now.
    pub fn read_whole(netlink: &mut Netlink) -> io::Result<Option<(Option<Self>, u32)>> {
        for _ in 0..MAX_READS {
            let before = generation(netlink)?;
            let state = Self::read(netlink);
            if generation(netlink)? == before {
                return Ok(Some((state?, before)));
            }
        }
        Ok(None)
    }

    /// Whether there is a guard in it, and not just a table.
    pub fn is_guard(&self) -> bool {
        self.chains.contains_key(GUARD)
    }

    /// The ids of the servers whose guard it is, as its chains say.
    fn servers(&self) -> impl Iterator<Item = &str> {
        let chains = self.chains.keys();
        chains.filter_map(|name| names::marked_server(name))
    }

    /// What is told of it outside this room.
    pub fn summary(&self) -> InstalledTable {
        let has = |name: &str| self.chains.contains_key(name);
        let form = if self.sets.contains_key(TRIAL) {
            GuardForm::Trial
        } else {
            GuardForm::Enforcing
        };
        InstalledTable {
            form: self.is_guard().then_some(form),
            server: self.servers().next().map(str::to_owned),
            is_persistent: self.flags & table_flag::PERSIST != 0,
            is_owned: self.flags & table_flag::OWNER != 0,
            has_fixed_sequence: has(SEQUENCE) && !has(ROLLING),
        }
    }

    /// Whether this is the guard of a server other than this one.
    pub fn is_foreign(&self, server: ServerId) -> bool {
        self.servers().any(|id| id != server.to_hex())
    }

    /// Whether the table is what the ruleset describes, as far as can be told without what
    /// the rules say.
    pub fn is_whole(&self, ruleset: &Ruleset) -> bool {
        let is_chain = |chain: &Chain| {
            let state = self.chains.get(&chain.name);
            state.is_some_and(|state| {
                state.has_hook(chain.hook)
                    && state.policy == ACCEPT
                    && state.rules.len() == chain.rules.len()
            })
        };
        self.flags & table_flag::DORMANT == 0
            && self.chains.len() == ruleset.chains.len()
            && ruleset.chains.iter().all(is_chain)
            && self.sets.len() == ruleset.sets.len()
            && ruleset.sets.iter().all(|set| {
                let state = self.sets.get(&set.name);
                state.is_some_and(|state| state.kind == set.kind())
            })
    }

    /// What is different in a later picture, in words; `None` where nothing is. That a
    /// process has begun or ended to own the table is no change.
    pub fn changed(&self, later: Option<&Self>) -> Option<String> {
        let Some(later) = later else {
            return Some("the table is gone".into());
        };
        let mut chains = self.chains.keys();
        if let Some(name) = chains.find(|name| !later.chains.contains_key(*name)) {
            return Some(format!("chain {name} is gone"));
        }
        let mut sets = self.sets.keys();
        if let Some(name) = sets.find(|name| !later.sets.contains_key(*name)) {
            return Some(format!("set {name} is gone"));
        }
        let rules = |state: &Self, name| state.chains.get(name).map(|chain| chain.rules.clone());
        let mut chains = self.chains.keys();
        if let Some(name) = chains.find(|name| rules(self, *name) != rules(later, *name)) {
            return Some(format!("the rules of chain {name} were changed"));
        }
        let as_now = Self {
            flags: self.flags & !table_flag::OWNER | later.flags & table_flag::OWNER,
            ..self.clone()
        };
        (as_now != *later).then(|| "the table, a chain or a set was replaced or added".into())
    }
}

impl ChainState {
    fn read(chain: Attributes<'_>) -> Self {
        Self {
            handle: handle(chain, 2),
            hook: chain.nested(4).number(1).zip(chain.nested(4).number(2)),
            policy: chain.number(5).unwrap_or(ACCEPT),
            is_filter: chain.text(7) == Some("filter"),
            flags: chain.number(10).unwrap_or_default(),
            rules: Vec::new(),
        }
    }

    /// Whether it sits in this hook, as a filter, or in none. One that does can stay: a new
    /// one beside it would have no rules for packets that are on their way between the two
    /// while the batch is applied.
    pub fn has_hook(&self, hook: Option<BaseHook>) -> bool {
        self.hook == hook.map(BaseHook::numbers)
            && (hook.is_none() || self.is_filter && self.flags & OFFLOAD == 0)
    }

    /// Whether it is a part of the rule that jumps to it, and goes with it.
    pub fn is_bound(&self) -> bool {
        self.flags & BINDING != 0
    }
}

impl SetState {
    fn read(set: Attributes<'_>) -> Self {
        Self {
            handle: handle(set, 16),
            kind: SetKind::of(set),
        }
    }
}

/// The attributes of a part of the guard's table: of chains the kernel gives every table's.
fn ours<'b>(part: &RawMessage<'b>) -> Option<Attributes<'b>> {
    let part = part.attributes();
    (part.text(1) == Some(TABLE)).then_some(part)
}

/// The number of the ruleset's last change, of all tables.
pub fn generation(netlink: &mut Netlink) -> io::Result<u32> {
    let of = Writer::body(INET, |_| {});
    let number = netlink.get(kind::GET_GENERATION, &of, |a| a.attributes().number(1))?;
    number.ok_or_else(|| io::Error::other("the kernel does not say which ruleset this is"))
}

/// Whether there is a table of family inet with this name.
pub fn has_table(netlink: &mut Netlink, name: &str) -> io::Result<bool> {
    let of = Writer::body(INET, |message| message.text(1, name));
    match netlink.get(kind::GET_TABLE, &of, |_| Some(())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|found| found.is_some()),
    }
}

fn handle(attributes: Attributes<'_>, number: u16) -> u64 {
    attributes.long(number).unwrap_or_default()
}

#[cfg(test)]
#[path = "tests/state.rs"]
mod tests;
