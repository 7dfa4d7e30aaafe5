//! The table as the kernel has it: what an install has to plan for, and, by the kernel's own
//! handles, what tells that another program has changed it since.

use super::names::{self, GUARD, ROLLING, SEQUENCE, TABLE, TRIAL};
use super::netlink::{Attributes, Netlink, Writer, kind};
use super::ruleset::{ACCEPT, BaseHook, Ruleset, SetKind, chain_flag, set_flag, table_flag};
use super::{GuardForm, InstalledTable};
use oneknock_shared::secret::ServerId;
use std::collections::BTreeMap;
use std::io;

/// How often a picture is begun again when something changes while it is read.
const MAX_READS: usize = 5;

/// The table, its chains, rules and sets. Counters and elements come and go, and are not in
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// Its flags.
    pub flags: u32,
    handle: u64,
    /// Its chains, by name.
    pub chains: BTreeMap<String, ChainState>,
    /// Its sets, by name; those that are a part of a rule are not among them.
    pub sets: BTreeMap<String, SetState>,
    /// The handles of each chain's rules, in order.
    rules: BTreeMap<String, Vec<u64>>,
}

/// A chain in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainState {
    handle: u64,
    /// Its hook's number and priority, where it has one.
    hook: Option<(u32, u32)>,
    policy: u32,
    kind: String,
    flags: u32,
}

/// A set in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetState {
    handle: u64,
    /// The kind of set that it is.
    pub kind: SetKind,
    /// The timeout of elements that are added without one, in milliseconds.
    timeout: u64,
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
        let of = |message: &mut Writer<'_>| message.text(1, TABLE);
        let table = netlink.get(kind::GET_TABLE, of, |table| {
            Some((table.number(2).unwrap_or_default(), handle(table, 4)))
        })?;
        let Some((flags, of_table)) = table else {
            return Ok(None);
        };
        // The kernel gives every table's chains.
        let ours = |chain: &Attributes<'_>| chain.text(1) == Some(TABLE);
        let chains = netlink.dump(
            kind::GET_CHAIN,
            |_| {},
            |chain| {
                let own = ours(&chain).then_some(chain)?;
                Some((own.text(3)?.to_owned(), ChainState::read(own)))
            },
        )?;
        let rules = netlink.dump(kind::GET_RULE, of, |rule| {
            let own = ours(&rule).then_some(rule)?;
            Some((own.text(2)?.to_owned(), handle(own, 3)))
        })?;
        let sets = netlink.dump(kind::GET_SET, of, |set| {
            let own = ours(&set).then_some(set)?;
            Some((own.text(2)?.to_owned(), SetState::read(own)))
        })?;
        let mut by_chain: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (chain, rule) in rules {
            by_chain.entry(chain).or_default().push(rule);
        }
        let sets = sets.into_iter().filter(|(_, set)| !set.is_anonymous());
        Ok(Some(Self {
            flags,
            handle: of_table,
            chains: chains.into_iter().collect(),
            sets: sets.collect(),
            rules: by_chain,
        }))
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

    /// What is told of it outside this room.
    pub fn summary(&self) -> InstalledTable {
        let has = |name: &str| self.chains.contains_key(name);
        let form = self.is_guard().then(|| {
            if self.sets.contains_key(TRIAL) {
                GuardForm::Trial
            } else {
                GuardForm::Enforcing
            }
        });
        let mut marks = self.chains.keys();
        InstalledTable {
            form,
            server: marks.find_map(|name| names::marked_server(name).map(str::to_owned)),
            is_persistent: self.flags & table_flag::PERSIST != 0,
            is_owned: self.flags & table_flag::OWNER != 0,
            has_fixed_sequence: has(SEQUENCE) && !has(ROLLING),
        }
    }

    /// Whether this is the guard of a server other than this one.
    pub fn is_foreign(&self, server: ServerId) -> bool {
        let mut marks = self
            .chains
            .keys()
            .filter_map(|name| names::marked_server(name));
        marks.any(|id| id != server.to_hex())
    }

    /// Whether the table is what the ruleset describes, as far as can be told without what
    /// the rules say.
    pub fn is_whole(&self, ruleset: &Ruleset) -> bool {
        let chains_match = self.chains.len() == ruleset.chains.len()
            && ruleset.chains.iter().all(|chain| {
                let state = self.chains.get(&chain.name);
                let rules = self.rules.get(&chain.name).map_or(0, Vec::len);
                rules == chain.rules.len()
                    && state.is_some_and(|state| state.has_hook(chain.hook) && state.accepts())
            });
        let sets_match = self.sets.len() == ruleset.sets.len()
            && ruleset.sets.iter().all(|set| {
                let state = self.sets.get(&set.name);
                state.is_some_and(|state| state.kind == set.kind())
            });
        self.flags & table_flag::DORMANT == 0 && chains_match && sets_match
    }

    /// What is different in a later picture, in words; `None` where nothing is. That a
    /// process has begun or ended to own the table is no change.
    pub fn changed(&self, later: Option<&Self>) -> Option<String> {
        let Some(later) = later else {
            return Some("the table is gone".into());
        };
        let gone = |what: &str, name: &str| Some(format!("{what} {name} is gone"));
        if let Some(name) = self
            .chains
            .keys()
            .find(|name| !later.chains.contains_key(*name))
        {
            return gone("chain", name);
        }
        if let Some(name) = self
            .sets
            .keys()
            .find(|name| !later.sets.contains_key(*name))
        {
            return gone("set", name);
        }
        let differs = |name: &&String| self.rules.get(*name) != later.rules.get(*name);
        if let Some(name) = self.chains.keys().find(differs) {
            return Some(format!("the rules of chain {name} were changed"));
        }
        let as_now = Self {
            flags: self.flags & !table_flag::OWNER | later.flags & table_flag::OWNER,
            ..self.clone()
        };
        (as_now != *later).then(|| "the table, a chain or a set was replaced or added".into())
    }

    /// Forgets the rules of a chain.
    pub fn without_rules(mut self, chain: &str) -> Self {
        self.rules.remove(chain);
        self
    }
}

impl ChainState {
    fn read(chain: Attributes<'_>) -> Self {
        let hook = chain.get(4).map(Attributes::new);
        Self {
            handle: handle(chain, 2),
            hook: hook.and_then(|hook| Some((hook.number(1)?, hook.number(2)?))),
            policy: chain.number(5).unwrap_or(ACCEPT),
            kind: chain.text(7).unwrap_or_default().to_owned(),
            flags: chain.number(10).unwrap_or_default(),
        }
    }

    /// Whether it sits in this hook, as a filter, or in none. One that does can stay: a new
    /// one beside it would have no rules for packets that are on their way between the two
    /// while the batch is applied.
    pub fn has_hook(&self, hook: Option<BaseHook>) -> bool {
        match (self.hook, hook) {
            (None, None) => true,
            (Some((number, priority)), Some(hook)) => {
                number == hook.at.number()
                    && priority.to_be_bytes() == hook.priority.to_be_bytes()
                    && self.kind == "filter"
                    && self.flags & chain_flag::OFFLOAD == 0
            }
            _ => false,
        }
    }

    /// Whether it is a part of the rule that jumps to it, and goes with it.
    pub fn is_bound(&self) -> bool {
        self.flags & chain_flag::BINDING != 0
    }

    fn accepts(&self) -> bool {
        self.policy == ACCEPT
    }
}

impl SetState {
    fn read(set: Attributes<'_>) -> Self {
        let number = |kind| set.number(kind).unwrap_or_default();
        Self {
            handle: handle(set, 16),
            kind: SetKind {
                flags: number(3),
                key: (number(4), number(5)),
                data: (number(6), number(7)),
                size: set.nested(9).number(1).unwrap_or_default(),
                user_data: set.get(13).unwrap_or_default().to_vec(),
            },
            timeout: set.long(11).unwrap_or_default(),
        }
    }

    /// Whether it is a part of its rule, and goes with it.
    fn is_anonymous(&self) -> bool {
        self.kind.flags & set_flag::ANONYMOUS != 0
    }

    /// Whether it can stay as this kind of set.
    pub fn is(&self, kind: &SetKind) -> bool {
        self.timeout == 0 && self.kind == *kind
    }
}

/// The number of the ruleset's last change, of all tables.
pub fn generation(netlink: &mut Netlink) -> io::Result<u32> {
    let number = netlink.get(kind::GET_GENERATION, |_| {}, |answer| answer.number(1))?;
    number.ok_or_else(|| io::Error::other("the kernel does not say which ruleset this is"))
}

/// Whether there is a table of family inet with this name.
pub fn has_table(netlink: &mut Netlink, name: &str) -> io::Result<bool> {
    match netlink.get(kind::GET_TABLE, |table| table.text(1, name), |_| Some(())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|found| found.is_some()),
    }
}

fn handle(attributes: Attributes<'_>, kind: u16) -> u64 {
    attributes.long(kind).unwrap_or_default()
}

#[cfg(test)]
impl TableState {
    /// A table with these flags, base chains and sets.
    pub fn of(flags: u32, chains: &[(&str, Option<BaseHook>)], sets: &[(&str, SetKind)]) -> Self {
        let chain = |(name, hook): &(&str, Option<BaseHook>)| {
            let hook = hook.map(|hook| (hook.at.number(), hook.priority.cast_unsigned()));
            let state = ChainState {
                handle: 1,
                hook,
                policy: ACCEPT,
                kind: "filter".into(),
                flags: 0,
            };
            ((*name).to_owned(), state)
        };
        let set = |(name, kind): &(&str, SetKind)| {
            let state = SetState {
                handle: 1,
                kind: kind.clone(),
                timeout: 0,
            };
            ((*name).to_owned(), state)
        };
        Self {
            flags,
            handle: 1,
            chains: chains.iter().map(chain).collect(),
            sets: sets.iter().map(set).collect(),
            rules: BTreeMap::new(),
        }
    }
}
