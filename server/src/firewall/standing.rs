//! What the table holds, read from the kernel itself: nft 1.0.6 lists a persistent table
//! that nobody owns wrongly as JSON, and starting it takes longer than all of this.

use super::names::{GUARD, ROLLING, SELECTORS, SEQUENCE, TABLE, TRIAL, mark_of_another};
use super::netlink::{Attribute, Netlink, attributes};
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, SetAttribute, SetElementList, SetElementMessage, SetMessage,
    TableAttribute, TableMessage,
};
use oneknock_shared::secret::ServerId;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// What the table holds already.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is persistent: a table that can be owned.
    pub persistent: bool,
    /// Names of its chains.
    pub chains: Vec<String>,
    /// Names of its sets.
    pub sets: Vec<String>,
    /// The addresses in its sets that have a time and a comment.
    pub elements: Vec<Element>,
}

/// An admitted address.
#[derive(Debug, PartialEq, Eq)]
pub struct Element {
    /// The set's name.
    pub set: String,
    /// Who.
    pub address: IpAddr,
    /// The time it has left.
    pub left: Duration,
    /// The text beside it.
    pub comment: String,
}

/// `NFT_TABLE_F_PERSIST`, the last byte of the table's flags.
const PERSISTENT: u8 = 4;

impl Standing {
    /// Reads it; `None` where there is no table.
    pub fn read(netlink: &mut Netlink) -> io::Result<Option<Self>> {
        match Self::try_read(netlink) {
            Ok(standing) => Ok(Some(standing)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn try_read(netlink: &mut Netlink) -> io::Result<Self> {
        let names = vec![TableAttribute::Name(TABLE.into())];
        let table = NfTablesMessage::GetTable(TableMessage { attributes: names });
        let table = netlink.ask(table, false)?;
        let flags = table.iter().find_map(|table| value(table, 2)?.last());
        let mut standing = Self {
            persistent: flags.is_some_and(|flags| flags & PERSISTENT != 0),
            ..Self::default()
        };
        let chains = ChainMessage {
            attributes: Vec::new(),
        };
        for chain in netlink.ask(NfTablesMessage::GetChain(chains), true)? {
            // The kernel gives every table's chains.
            if text(&chain, 1) == TABLE {
                standing.chains.push(text(&chain, 3));
            }
        }
        let sets = SetMessage {
            attributes: vec![SetAttribute::Table(TABLE.into())],
        };
        for set in netlink.ask(NfTablesMessage::GetSet(sets), true)? {
            let name = text(&set, 2);
            // An unnamed set is a part of its rule.
            if name.starts_with("__") {
                continue;
            }
            // What the kernel itself fills has no comments and may be large; no service's
            // set has an underscore in its name.
            if name != SELECTORS && !name.contains('_') {
                standing.elements.extend(elements(netlink, &name)?);
            }
            standing.sets.push(name);
        }
        Ok(standing)
    }

    /// Whether there is a guard in it, and not just a table.
    #[must_use]
    pub fn is_guard(&self) -> bool {
        self.chains.iter().any(|chain| chain == GUARD)
    }

    /// Whether the guard in it is on trial.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.sets.iter().any(|set| set == TRIAL)
    }

    /// Whether it watches for a port sequence whose ports no daemon needs to say.
    #[must_use]
    pub fn has_fixed_sequence(&self) -> bool {
        let has = |name| self.chains.iter().any(|chain| chain == name);
        has(SEQUENCE) && !has(ROLLING)
    }

    /// Whether this is the guard of a server other than this one.
    #[must_use]
    pub fn is_anothers(&self, server: ServerId) -> bool {
        self.chains
            .iter()
            .any(|chain| mark_of_another(chain, server))
    }
}

/// Whether there is a table of family inet with this name.
pub fn is_there(netlink: &mut Netlink, table: &str) -> io::Result<bool> {
    let names = vec![TableAttribute::Name(table.into())];
    let table = NfTablesMessage::GetTable(TableMessage { attributes: names });
    match netlink.ask(table, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|_| true),
    }
}

fn elements(netlink: &mut Netlink, set: &str) -> io::Result<Vec<Element>> {
    let listed = list(netlink, set)?;
    Ok(listed.iter().filter_map(|one| element(set, one)).collect())
}

/// The addresses in a set, each with the time that it has left. Those that have ended by
/// now are not among them.
pub fn members(netlink: &mut Netlink, set: &str) -> io::Result<Vec<(IpAddr, Duration)>> {
    let listed = list(netlink, set)?;
    Ok(listed.iter().filter_map(|one| member(one)).collect())
}

/// The elements of a set, each with its attributes. `NotFound` where there is no such set.
pub fn list(netlink: &mut Netlink, set: &str) -> io::Result<Vec<Vec<Attribute>>> {
    let asked = SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(set.into()),
        ],
    };
    let answers = netlink.ask(NfTablesMessage::GetSetElement(asked), true)?;
    let mut found = Vec::new();
    for answer in answers {
        // The list is the third attribute of the answer.
        let list = value(&answer, 3).map(attributes).unwrap_or_default();
        found.extend(list.iter().map(|(_, one)| attributes(one)));
    }
    Ok(found)
}

fn element(set: &str, one: &[Attribute]) -> Option<Element> {
    let (address, left) = member(one)?;
    Some(Element {
        set: set.into(),
        address,
        left,
        comment: comment(value(one, 6)?)?,
    })
}

/// The kernel's numbers: key 1 (in it, value 1), expiration 5 in milliseconds, user data 6.
fn member(one: &[Attribute]) -> Option<(IpAddr, Duration)> {
    let key = attributes(value(one, 1)?);
    let octets = value(&key, 1)?;
    let address = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
        _ => return None,
    };
    let left = u64::from_be_bytes(value(one, 5)?.try_into().ok()?);
    Some((address, Duration::from_millis(left)))
}

/// nft keeps a comment as type 0, length with the final zero, text, zero.
fn comment(data: &[u8]) -> Option<String> {
    let (&[0, length], rest) = data.split_first_chunk::<2>()? else {
        return None;
    };
    let text = rest.get(..usize::from(length))?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}

/// The first attribute of this kind.
pub fn value(list: &[Attribute], kind: u16) -> Option<&[u8]> {
    let found = list.iter().find(|(k, _)| *k == kind);
    found.map(|(_, value)| value.as_slice())
}

fn text(list: &[Attribute], kind: u16) -> String {
    let bytes = value(list, kind).unwrap_or_default();
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_read_and_one_that_is_not_ours_is_none() {
        let ours = || {
            vec![
                (1, [&[8, 0, 1, 0][..], &[192, 0, 2, 7]].concat()),
                (5, 30_000_u64.to_be_bytes().to_vec()),
                (6, b"\0\x03me\0".to_vec()),
            ]
        };
        let want = Element {
            set: "ssh4".into(),
            address: [192, 0, 2, 7].into(),
            left: Duration::from_secs(30),
            comment: "me".into(),
        };
        assert_eq!(element("ssh4", &ours()), Some(want));
        for missing in 0..3 {
            let mut other = ours();
            other.remove(missing);
            assert_eq!(element("ssh4", &other), None);
        }
        for bad in [&b"\0\x04me\0"[..], b"\0\x03me", b"\0", b"", b"\x01\x03me\0"] {
            let mut other = ours();
            other[2].1 = bad.to_vec();
            assert_eq!(element("ssh4", &other), None);
        }
    }
}
