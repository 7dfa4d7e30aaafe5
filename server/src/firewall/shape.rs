//! What stands in the table, told apart by the kernel's own handles: enough to see that
//! another program has changed it, without reading what the rules say.

use super::names::{GUARD, INPUT, PRIORITY, TABLE};
use super::netlink::{Attribute, Netlink, attributes};
use netlink_packet_netfilter::nftables::{
    ChainMessage, GenMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetMessage, TableAttribute, TableMessage,
};
use std::collections::BTreeMap;
use std::io;

/// The table, its chains, rules and sets. Counters and elements come and go, and are not
/// in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    table: Vec<Attribute>,
    chains: BTreeMap<String, Vec<Attribute>>,
    rules: BTreeMap<String, Vec<Vec<u8>>>,
    sets: BTreeMap<String, Vec<Attribute>>,
}

/// The attributes that tell one from another; the rest counts uses and packets.
const OF_TABLE: [u16; 2] = [2, 4]; // flags, handle
const OF_CHAIN: [u16; 5] = [2, 4, 5, 7, 10]; // handle, hook, policy, type, flags
const OF_SET: [u16; 5] = [3, 4, 5, 11, 16]; // flags, key type, key length, timeout, handle
/// How often a picture is begun anew when something changes in between.
const TRIES: usize = 5;
/// The kernel's numbers of the two hooks of family inet.
const PREROUTING: u32 = 0;
const LOCAL_IN: u32 = 1;
/// The table's flag that says that nothing in it is in force.
const DORMANT: u8 = 1;
/// The table's flag that says that a socket owns it; it goes with the socket.
const OWNED: u8 = 2;

impl Shape {
    /// Reads it from the kernel, with the number of the change after which it was so;
    /// empty where there is no table. `None` where other programs change so much that no
    /// whole picture is to be had just now.
    pub fn read(netlink: &mut Netlink) -> io::Result<Option<(Self, u32)>> {
        for _ in 0..TRIES {
            let before = generation(netlink)?;
            let shape = Self::read_once(netlink);
            if generation(netlink)? == before {
                return Ok(Some((shape?, before)));
            }
        }
        Ok(None)
    }

    fn read_once(netlink: &mut Netlink) -> io::Result<Self> {
        let attributes = vec![TableAttribute::Name(TABLE.into())];
        let table = NfTablesMessage::GetTable(TableMessage { attributes });
        let mut shape = Self::default();
        match netlink.ask(table, false) {
            Ok(found) => shape.table = found.iter().flat_map(|one| only(one, &OF_TABLE)).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(shape),
            Err(error) => return Err(error),
        }
        for (kind, value) in &mut shape.table {
            if let (2, Some(flags)) = (*kind, value.last_mut()) {
                *flags &= !OWNED;
            }
        }
        let chains = ChainMessage {
            attributes: Vec::new(),
        };
        for chain in netlink.ask(NfTablesMessage::GetChain(chains), true)? {
            // The kernel gives every table's chains.
            if text(&chain, 1) == TABLE {
                shape
                    .chains
                    .insert(text(&chain, 3), only(&chain, &OF_CHAIN));
            }
        }
        let rules = RuleMessage {
            attributes: vec![RuleAttribute::Table(TABLE.into())],
        };
        for rule in netlink.ask(NfTablesMessage::GetRule(rules), true)? {
            let handle = rule.iter().find(|(kind, _)| *kind == 3);
            let handles = shape.rules.entry(text(&rule, 2)).or_default();
            handles.extend(handle.map(|(_, handle)| handle.clone()));
        }
        let sets = SetMessage {
            attributes: vec![SetAttribute::Table(TABLE.into())],
        };
        for set in netlink.ask(NfTablesMessage::GetSet(sets), true)? {
            let name = text(&set, 2);
            // An unnamed set is a part of its rule.
            if !name.starts_with("__") {
                shape.sets.insert(name, only(&set, &OF_SET));
            }
        }
        Ok(shape)
    }

    /// Whether the table is awake, and its two base chains stand where they should.
    pub fn is_sound(&self) -> bool {
        let flags = self.table.iter().find(|(kind, _)| *kind == 2);
        let flags = flags.and_then(|(_, value)| value.last());
        let stands = |name: &str, hook: u32| {
            let chain = self.chains.get(name).map_or(&[][..], Vec::as_slice);
            // In the hook: its number is 1, the priority 2.
            let at = chain.iter().find(|(kind, _)| *kind == 4);
            let at = at.map(|(_, value)| attributes(value)).unwrap_or_default();
            at.contains(&(1, hook.to_be_bytes().to_vec()))
                && at.contains(&(2, PRIORITY.to_be_bytes().to_vec()))
        };
        flags.is_none_or(|flags| flags & DORMANT == 0)
            && stands(GUARD, PREROUTING)
            && stands(INPUT, LOCAL_IN)
    }

    /// How many rules each chain has.
    pub fn rules(&self) -> BTreeMap<String, usize> {
        let count = |name: &String| self.rules.get(name).map_or(0, Vec::len);
        let chains = self.chains.keys();
        chains.map(|name| (name.clone(), count(name))).collect()
    }

    /// What is different in the other one, in words; `None` where nothing is.
    pub fn changed(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        if other.table.is_empty() {
            return Some("the table is gone".into());
        }
        let missing = |mine: Vec<&String>, theirs: Vec<&String>, what: &str| {
            let gone = mine.into_iter().find(|name| !theirs.contains(name))?;
            Some(format!("{what} {gone} is gone"))
        };
        let keys = |chains: bool, of: &Self| -> Vec<String> {
            let map = if chains { &of.chains } else { &of.sets };
            map.keys().cloned().collect()
        };
        for (chains, what) in [(true, "chain"), (false, "set")] {
            let (mine, theirs) = (keys(chains, self), keys(chains, other));
            let gone = missing(mine.iter().collect(), theirs.iter().collect(), what);
            if gone.is_some() {
                return gone;
            }
        }
        let differs = |name: &&String| self.rules.get(*name) != other.rules.get(*name);
        if let Some(name) = self.chains.keys().find(differs) {
            return Some(format!("the rules of chain {name} are others"));
        }
        Some("it is set up in another way".into())
    }
}

/// The number of the ruleset's last change, of all tables.
pub fn generation(netlink: &mut Netlink) -> io::Result<u32> {
    let message = GenMessage {
        attributes: Vec::new(),
    };
    let answer = netlink.ask(NfTablesMessage::GetGen(message), false)?;
    let id = answer.iter().flatten().find(|(kind, _)| *kind == 1);
    let id = id.and_then(|(_, value)| value.as_slice().try_into().ok());
    id.map(u32::from_be_bytes)
        .ok_or_else(|| io::Error::other("the kernel does not say which ruleset this is"))
}

fn only(attributes: &[Attribute], wanted: &[u16]) -> Vec<Attribute> {
    let found = attributes.iter().filter(|(kind, _)| wanted.contains(kind));
    found.cloned().collect()
}

fn text(attributes: &[Attribute], kind: u16) -> String {
    let found = attributes.iter().find(|(k, _)| *k == kind);
    let bytes = found.map_or(&[][..], |(_, value)| value);
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}
