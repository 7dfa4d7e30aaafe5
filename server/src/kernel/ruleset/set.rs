//! A table's sets and maps: as nft text, and as the messages that add them.
//!
//! A set's user data is what nft 1.0.6 writes there: the byte order of the keys, and of raw
//! payload the expression that it is, so that nft lists the set as its own.

use super::super::elements::{self, Element};
use super::super::guard::OptionalPart;
use super::super::netlink::{Attributes, Batch, CREATE, Writer, kind};
use super::field::{Field, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The flags of a set.
pub mod set_flag {
    /// It is a part of its rule.
    pub const ANONYMOUS: u32 = 0x01;
    pub(super) const MAP: u32 = 0x08;
    pub(super) const TIMEOUT: u32 = 0x10;
    pub(super) const DYNAMIC: u32 = 0x20;
}

/// A named set, or a map where it has values.
#[derive(Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The fields whose values together are its keys.
    pub key: Vec<Field>,
    /// The field that its values are for.
    pub data: Option<Field>,
    /// Whether its elements have timeouts.
    pub has_timeouts: bool,
    /// Whether rules add elements to it.
    pub is_dynamic: bool,
    /// How many elements it may hold; 0 where that is not limited.
    pub size: u32,
    /// Elements that it holds from the start, and how long each stays; for good where there
    /// is no time.
    pub elements: Vec<(Value, Option<Duration>)>,
    /// The part that it belongs to, where it is not the guard itself.
    pub part: Option<OptionalPart>,
}

/// What the kernel tells one kind of set from another by: its attributes of these numbers,
/// but for those that say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKind(BTreeMap<u16, Vec<u8>>);

impl SetKind {
    /// Flags, types and lengths of keys and values, the description, which holds the size,
    /// the timeout of elements that are added without one, and what nft has noted.
    const NUMBERS: [u16; 8] = [3, 4, 5, 6, 7, 9, 11, 13];

    /// That of a set with these attributes.
    pub fn of(set: Attributes<'_>) -> Self {
        let told = set.each().filter(|(number, value)| {
            Self::NUMBERS.contains(number) && value.iter().any(|byte| *byte != 0)
        });
        Self(
            told.map(|(number, value)| (number, value.to_vec()))
                .collect(),
        )
    }
}

impl Set {
    /// A set that the daemon fills, with timeouts.
    pub fn timed(name: impl Into<String>, key: &[Field]) -> Self {
        Self {
            name: name.into(),
            key: key.to_vec(),
            data: None,
            has_timeouts: true,
            is_dynamic: false,
            size: 0,
            elements: Vec::new(),
            part: None,
        }
    }

    /// A set that rules fill, with timeouts, up to a size.
    pub fn dynamic(name: impl Into<String>, key: &[Field], size: u32) -> Self {
        Self {
            is_dynamic: true,
            size,
            ..Self::timed(name, key)
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
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = flag(self.data.is_some(), set_flag::MAP)
            | flag(self.has_timeouts, set_flag::TIMEOUT)
            | flag(self.is_dynamic, set_flag::DYNAMIC);
        let (number, length) = self.key_type();
        message.number(3, flags);
        message.number(4, number);
        message.number(5, length);
        if let Some(Field { data, .. }) = self.data {
            message.number(6, data.number);
            message.number(7, data.length);
        }
        message.number(10, id);
        if self.size > 0 {
            message.nest(9, |description| description.number(1, self.size));
        }
        message.bytes(13, &self.user_data());
    }

    /// Number and bytes. Of several, each takes six bits of the number, and a multiple of
    /// four bytes.
    fn key_type(&self) -> (u32, u32) {
        if let [Field { data, .. }] = self.key[..] {
            return (data.number, data.length);
        }
        let parts = self.key.iter().map(|field| field.data);
        parts.fold((0, 0), |(number, length), part| {
            (
                number << 6 | part.number,
                length + part.length.next_multiple_of(4),
            )
        })
    }

    fn user_data(&self) -> Vec<u8> {
        let number = |kind, number: u32| record(kind, &number.to_ne_bytes());
        let order = match self.key[..] {
            [Field { data, .. }] => data.byte_order,
            _ => 0,
        };
        let mut noted = number(0, order);
        if let Some(Field { data, .. }) = self.data {
            noted.extend(number(1, data.byte_order));
            noted.extend(number(6, 0));
        }
        if self.key == [Field::SELECTOR] {
            // Payload (7) of no named protocol (0, 0), behind the transport header (3), from
            // bit 64, 64 bits.
            let fields = [(0, 0), (1, 0), (2, 3), (3, 64), (4, 64)];
            let fields = fields.map(|(kind, value)| number(kind, value)).concat();
            let of = [number(0, 7), record(1, &fields)].concat();
            noted.extend(record(3, &of));
        }
        noted
    }

    /// Appends messages that add the elements which it holds from the start.
    pub fn add_elements(&self, batch: &mut Batch, table: &str) {
        let elements = self.elements.iter().map(|(key, timeout)| Element {
            timeout: *timeout,
            ..Element::permanent(key.bytes.clone())
        });
        let elements: Vec<_> = elements.collect();
        elements::add(batch, CREATE, table, &self.name, &elements);
    }
}

/// Of nft's user data: kind, length, value.
fn record(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[kind, length], value].concat()
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.data.is_some() { "map" } else { "set" };
        writeln!(f, "\t{kind} {} {{", self.name)?;
        let key: Vec<&str> = self.key.iter().map(|field| field.data.text).collect();
        let is_raw = self.key == [Field::SELECTOR];
        let word = if is_raw { "typeof" } else { "type" };
        write!(f, "\t\t{word} {}", key.join(" . "))?;
        if let Some(value) = self.data {
            write!(f, " : {}", value.data.text)?;
        }
        writeln!(f)?;
        if self.size > 0 {
            writeln!(f, "\t\tsize {}", self.size)?;
        }
        match (self.is_dynamic, self.has_timeouts) {
            (true, _) => writeln!(f, "\t\tflags dynamic,timeout")?,
            (false, true) => writeln!(f, "\t\tflags timeout")?,
            (false, false) => {}
        }
        if !self.elements.is_empty() {
            let element = |(key, timeout): &(Value, Option<Duration>)| match timeout {
                Some(time) => format!("{} timeout {}s", key.text, time.as_secs()),
                None => key.text.clone(),
            };
            let elements: Vec<String> = self.elements.iter().map(element).collect();
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}")
    }
}
