//! A table's sets and maps: as nft text, and as the messages that add them.
//!
//! A set's user data is what nft 1.0.6 writes there: the byte order of the keys, and of raw
//! payload the expression that it is, so that nft lists the set as its own.

use super::super::elements::{self, Element};
use super::super::guard::OptionalPart;
use super::super::netlink::{Attributes, Batch, CREATE, Writer, kind};
use super::field::value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// nft's types: the name, the number, the bytes, and the number of the byte order, which is 0
/// of a single byte, 1 of this machine's, 2 of the network's.
const TYPES: [(&str, u32, u32, u32); 7] = [
    ("nf_proto", 2, 1, 0),
    // nft has no name for the type of raw payload.
    (RAW, 4, 8, 2),
    ("ipv4_addr", 7, 4, 2),
    ("ipv6_addr", 8, 16, 2),
    ("inet_proto", 12, 1, 0),
    ("inet_service", 13, 2, 2),
    ("mark", 19, 4, 1),
];
/// The first eight bytes of a datagram's payload.
const RAW: &str = "@th,64,64";

/// The flags of a set, as nft writes them: its elements stay until they are removed; have
/// timeouts; have timeouts, and rules add them.
pub const PERMANENT: &str = "";
/// See [`PERMANENT`].
pub const TIMED: &str = "timeout";
/// See [`PERMANENT`].
pub const DYNAMIC: &str = "dynamic,timeout";
/// The kernel's flag of a set that is a part of its rule.
pub const ANONYMOUS: u32 = 0x01;
const MAP: u32 = 0x08;

/// A named set, or a map where it has values.
#[derive(Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The type of its keys, as nft writes it, and of its values behind `:`, in a map.
    pub types: String,
    /// [`PERMANENT`], [`TIMED`] or [`DYNAMIC`].
    pub flags: &'static str,
    /// How many elements it may hold; 0 where that is not limited.
    pub size: u32,
    /// Elements that it holds from the start, as nft writes them, and how long each stays;
    /// for good where there is no time.
    pub elements: Vec<(String, Option<Duration>)>,
    /// The part that it belongs to, where it is not the guard itself.
    pub part: Option<OptionalPart>,
}

/// What the kernel tells one kind of set from another by: attributes by number, but for those
/// that say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKind(BTreeMap<u16, Vec<u8>>);

impl SetKind {
    /// Flags, types and lengths of keys and values, the timeout of elements that are added
    /// without one, and what nft has noted.
    const NUMBERS: [u16; 7] = [3, 4, 5, 6, 7, 11, 13];

    /// That of a set with these attributes; of its description the size counts.
    pub fn of(set: Attributes<'_>) -> Self {
        let size = set.nested(9).get(1).map(|size| (9, size));
        let told = set.each().filter(|(of, _)| Self::NUMBERS.contains(of));
        let told = told.chain(size);
        let told = told.filter(|(_, value)| value.iter().any(|byte| *byte != 0));
        Self(told.map(|(of, value)| (of, value.to_vec())).collect())
    }
}

impl Set {
    /// A set that the daemon fills, with timeouts.
    pub fn timed(name: impl Into<String>, types: &str) -> Self {
        Self {
            name: name.into(),
            types: types.into(),
            flags: TIMED,
            size: 0,
            elements: Vec::new(),
            part: None,
        }
    }

    /// A set that rules fill, with timeouts, up to a size.
    pub fn dynamic(name: impl Into<String>, types: &str, size: u32) -> Self {
        Self {
            flags: DYNAMIC,
            size,
            ..Self::timed(name, types)
        }
    }

    /// The kind of set that it is.
    #[must_use]
    pub fn kind(&self) -> SetKind {
        let mut attributes = Writer::default();
        self.describe(&mut attributes, 0);
        SetKind::of(Attributes(&attributes.0))
    }

    /// Appends a message that adds the set.
    pub fn add(&self, batch: &mut Batch, table: &str) {
        // What tells the sets of one batch apart; rules name them.
        let id = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        batch.push(kind::NEW_SET, CREATE, |message| {
            message.text(1, table);
            message.text(2, &self.name);
            self.describe(message, id);
        });
    }

    fn describe(&self, message: &mut Writer, id: u32) {
        let (key, data) = match self.types.split_once(" : ") {
            Some((key, data)) => (key, Some(type_of(data))),
            None => (self.types.as_str(), None),
        };
        let flags = self.flags.split(',').map(|flag| match flag {
            "timeout" => 0x10,
            "dynamic" => 0x20,
            _ => 0_u32,
        });
        let flags: u32 = flags.sum::<u32>() | data.map_or(0, |_| MAP);
        // Of several types, each takes six bits of the number, and a multiple of four bytes.
        let parts: Vec<_> = key.split(" . ").map(type_of).collect();
        let (number, length, order) = match parts[..] {
            [(_, number, length, order)] => (number, length, order),
            _ => parts.iter().fold((0, 0, 0), |(number, length, _), part| {
                let padded = part.2.next_multiple_of(4);
                (number << 6 | part.1, length + padded, 0)
            }),
        };
        message.number(3, flags);
        message.number(4, number);
        message.number(5, length);
        let mut noted = record(0, &order.to_ne_bytes());
        if let Some((_, number, length, order)) = data {
            message.number(6, number);
            message.number(7, length);
            noted.extend(record(1, &order.to_ne_bytes()));
            noted.extend(record(6, &[0; 4]));
        }
        message.number(10, id);
        if self.size > 0 {
            message.nest(9, |description| description.number(1, self.size));
        }
        if key == RAW {
            noted.extend(raw());
        }
        message.bytes(13, &noted);
    }

    /// Appends messages that add the elements which it holds from the start.
    pub fn add_elements(&self, batch: &mut Batch, table: &str) {
        let elements = self.elements.iter().map(|(key, timeout)| Element {
            timeout: *timeout,
            // An empty key is refused.
            ..Element::permanent(value(key).unwrap_or_default())
        });
        let elements: Vec<_> = elements.collect();
        elements::add(batch, CREATE, table, &self.name, &elements);
    }
}

/// Of none that is known: one of no bytes, which the kernel refuses.
fn type_of(text: &str) -> (&str, u32, u32, u32) {
    let known = TYPES.into_iter().find(|known| known.0 == text);
    known.unwrap_or_default()
}

/// What nft notes of keys that are raw payload: payload (7) of no named protocol (0, 0),
/// behind the transport header (3), from bit 64, 64 bits.
fn raw() -> Vec<u8> {
    let number = |kind, number: u32| record(kind, &number.to_ne_bytes());
    let fields = [(0, 0), (1, 0), (2, 3), (3, 64), (4, 64)];
    let fields = fields.map(|(kind, value)| number(kind, value)).concat();
    record(3, &[number(0, 7), record(1, &fields)].concat())
}

/// Of nft's user data: kind, length, value.
fn record(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[kind, length], value].concat()
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_map = self.types.contains(" : ");
        let kind = if is_map { "map" } else { "set" };
        writeln!(f, "\t{kind} {} {{", self.name)?;
        let word = if self.types == RAW { "typeof" } else { "type" };
        writeln!(f, "\t\t{word} {}", self.types)?;
        if self.size > 0 {
            writeln!(f, "\t\tsize {}", self.size)?;
        }
        if !self.flags.is_empty() {
            writeln!(f, "\t\tflags {}", self.flags)?;
        }
        if !self.elements.is_empty() {
            let element = |(key, timeout): &(String, Option<Duration>)| match timeout {
                Some(time) => format!("{key} timeout {}s", time.as_secs()),
                None => key.clone(),
            };
            let elements: Vec<String> = self.elements.iter().map(element).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}
