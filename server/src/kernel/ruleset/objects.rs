//! Tables, chains and sets as the kernel has them.
//!
//! A set's user data is what nft 1.0.6 writes there: the byte order of the keys, and of raw
//! payload the expression that it is, so that nft lists the set as its own.

use super::super::elements;
use super::super::netlink::{Batch, CREATE, kind};
use super::values::{octets, protocol_number};
use super::{Chain, DataType, ElementKey, Set};

/// The flags of a table.
pub mod table_flag {
    /// Nothing in it is applied.
    pub const DORMANT: u32 = 1;
    /// A socket owns it: nothing else can change it.
    pub const OWNER: u32 = 2;
    /// It outlives the socket that owns it.
    pub const PERSIST: u32 = 4;
}

/// The flags of a chain.
pub mod chain_flag {
    /// Network cards are to do its work.
    pub const OFFLOAD: u32 = 2;
    /// It is a part of the rule that jumps to it.
    pub const BINDING: u32 = 4;
}

/// The flags of a set.
pub mod set_flag {
    /// It is a part of its rule.
    pub const ANONYMOUS: u32 = 0x01;
    pub(super) const MAP: u32 = 0x08;
    pub(super) const TIMEOUT: u32 = 0x10;
    pub(super) const DYNAMIC: u32 = 0x20;
}

/// What the kernel tells one kind of set from another by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetKind {
    /// Its flags.
    pub flags: u32,
    /// Number and bytes of its keys' type.
    pub key: (u32, u32),
    /// Number and bytes of its values' type; zero where it has none.
    pub data: (u32, u32),
    /// How many elements it may hold; zero where that is not limited.
    pub size: u32,
    /// What nft has noted of it.
    pub user_data: Vec<u8>,
}

impl DataType {
    /// nft's number of the type, and its bytes.
    fn number(self) -> (u32, u32) {
        match self {
            Self::Family => (2, 1),
            Self::Selector => (4, 8),
            Self::Ipv4Address => (7, 4),
            Self::Ipv6Address => (8, 16),
            Self::Protocol => (12, 1),
            Self::Port => (13, 2),
            Self::Mark => (19, 4),
        }
    }

    /// nft's number of the byte order: 0 of a single byte, 1 of this machine's, 2 of the
    /// network's.
    fn byte_order(self) -> u32 {
        match self {
            Self::Family | Self::Protocol => 0,
            Self::Mark => 1,
            Self::Selector | Self::Ipv4Address | Self::Ipv6Address | Self::Port => 2,
        }
    }
}

impl Set {
    /// The kind of set that it is.
    #[must_use]
    pub fn kind(&self) -> SetKind {
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        SetKind {
            flags: flag(self.data.is_some(), set_flag::MAP)
                | flag(self.has_timeouts, set_flag::TIMEOUT)
                | flag(self.is_dynamic, set_flag::DYNAMIC),
            key: self.key_type(),
            data: self.data.map(DataType::number).unwrap_or_default(),
            size: self.size.unwrap_or_default(),
            user_data: self.user_data(),
        }
    }

    /// Of several, each takes six bits of the number, and a multiple of four bytes.
    fn key_type(&self) -> (u32, u32) {
        if let [single] = self.key[..] {
            return single.number();
        }
        let parts = self.key.iter().map(|part| part.number());
        parts.fold((0, 0), |(number, bytes), (one, length)| {
            (number << 6 | one, bytes + length.next_multiple_of(4))
        })
    }

    fn user_data(&self) -> Vec<u8> {
        let order = match self.key[..] {
            [single] => single.byte_order(),
            _ => 0,
        };
        let mut data = record(0, &order.to_ne_bytes());
        if let Some(value) = self.data {
            data.extend(record(1, &value.byte_order().to_ne_bytes()));
            data.extend(record(6, &0_u32.to_ne_bytes()));
        }
        if self.key == [DataType::Selector] {
            // Payload (7) of no named protocol (0, 0), behind the transport header (3), from
            // bit 64, 64 bits.
            let number = |kind, number: u32| record(kind, &number.to_ne_bytes());
            let fields = [(0, 0), (1, 0), (2, 3), (3, 64), (4, 64)];
            let fields = fields.map(|(kind, value)| number(kind, value)).concat();
            let of = [number(0, 7), record(1, &fields)].concat();
            data.extend(record(3, &of));
        }
        data
    }

    /// Appends a message that adds the set.
    pub fn add(&self, batch: &mut Batch, table: &str) {
        let kind = self.kind();
        // What tells the sets of one batch apart; rules name them.
        let id = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        batch.push(kind::NEW_SET, CREATE, |message| {
            message.text(1, table);
            message.text(2, &self.name);
            message.number(3, kind.flags);
            message.number(4, kind.key.0);
            message.number(5, kind.key.1);
            if self.data.is_some() {
                message.number(6, kind.data.0);
                message.number(7, kind.data.1);
            }
            message.number(10, id);
            if kind.size > 0 {
                message.nest(9, |description| description.number(1, kind.size));
            }
            message.bytes(13, &kind.user_data);
        });
    }

    /// Appends messages that add the elements which it holds from the start.
    pub fn add_elements(&self, batch: &mut Batch, table: &str) {
        let elements = self.elements.iter().map(|element| elements::Element {
            key: match element.key {
                ElementKey::Address(address) => octets(address),
                ElementKey::Protocol(transport) => vec![protocol_number(transport)],
            },
            data: None,
            lifetime: element
                .timeout
                .map_or(elements::Lifetime::Permanent, elements::Lifetime::For),
            comment: None,
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

impl Chain {
    /// Appends a message that adds the chain, or makes it accept what it does not decide
    /// where it is there.
    pub fn add(&self, batch: &mut Batch, table: &str) {
        batch.push(kind::NEW_CHAIN, CREATE, |message| {
            message.text(1, table);
            message.text(3, &self.name);
            if let Some(hook) = self.hook {
                message.text(7, "filter");
                message.number(5, ACCEPT);
                message.nest(4, |at| {
                    at.number(1, hook.at.number());
                    at.bytes(2, &hook.priority.to_be_bytes());
                });
            }
        });
    }
}

/// `NF_ACCEPT`, a base chain's policy.
pub const ACCEPT: u32 = 1;
