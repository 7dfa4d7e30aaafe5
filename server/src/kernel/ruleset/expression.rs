//! What rules are made of: exactly what the guard's need.

use super::super::names::AddressFamily;
use super::values::{CtState, Value};
use oneknock_shared::port::Transport;
use std::net::IpAddr;
use std::time::Duration;

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on where the field compares so.
    If(Field, Compare),
    /// Goes on where the fields together are a key of the set.
    In(Vec<Field>, String),
    /// Goes on where they are not.
    NotIn(Vec<Field>, String),
    /// Goes on where the connection is in one of the states.
    State(CtState),
    /// Adds the fields to the set for this long, or renews them there. Where the set is
    /// full, the rule ends here.
    Update {
        /// The set.
        set: String,
        /// The fields.
        key: Vec<Field>,
        /// For how long; whole seconds.
        timeout: Duration,
    },
    /// Sets the packet's mark to what the map says of its TCP port. Where the map does not
    /// have the port, the rule ends here.
    MarkByPort(String),
    /// Counts the packet.
    Counter,
    /// Goes on for so many packets a second, and for so many at once.
    Limit {
        /// Packets a second.
        per_second: u32,
        /// Packets at once.
        burst: u32,
    },
    /// Keeps connection tracking from the packet.
    Notrack,
    /// Lets the packet pass this base chain.
    Accept,
    /// Drops it.
    Drop,
    /// Goes back to where this chain was jumped to.
    Return,
    /// Goes through that chain, and then on with the next rule.
    Jump(String),
    /// Goes through that chain in place of the rest of this one.
    Goto(String),
}

impl Statement {
    /// Whether the field is this.
    pub fn is(field: Field, value: impl Into<Value>) -> Self {
        Self::If(field, Compare::Equal(value.into()))
    }

    /// Whether the field is anything else.
    pub fn is_not(field: Field, value: impl Into<Value>) -> Self {
        Self::If(field, Compare::Unequal(value.into()))
    }
}

/// How a field compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// It is this.
    Equal(Value),
    /// It is anything else.
    Unequal(Value),
    /// It lies between the two, or is one of them.
    Between(u16, u16),
    /// It lies in the network of this address and so many bits.
    Network(IpAddr, u8),
    /// Of these TCP flags exactly those are set.
    FlagsEqual(u8, u8),
    /// Of these TCP flags others are set than those.
    FlagsUnequal(u8, u8),
}

/// A field of a packet, or something that the kernel knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The name of the interface that it came in by.
    InputInterface,
    /// The family of its addresses.
    NetworkFamily,
    /// The transport protocol, behind all extension headers.
    TransportProtocol,
    /// The mark.
    Mark,
    /// What routing says of the destination address.
    DestinationType,
    /// The source address.
    Source(AddressFamily),
    /// The source's first 64 bits, the rest zero: of IPv6 one customer's addresses.
    SourceNetwork64,
    /// The destination address.
    Destination(AddressFamily),
    /// The protocol that the IPv6 header names as the next.
    NextHeader,
    /// The source port of any transport.
    SourcePort,
    /// The destination port of any transport.
    AnyPort,
    /// The destination port of this transport.
    Port(Transport),
    /// The length of UDP's header and payload.
    UdpLength,
    /// TCP's flags.
    TcpFlags,
    /// The first eight bytes of UDP's payload.
    Selector,
}

impl Field {
    /// The source as penalties know it.
    pub fn penalized(family: AddressFamily) -> Self {
        match family {
            AddressFamily::V4 => Self::Source(family),
            AddressFamily::V6 => Self::SourceNetwork64,
        }
    }

    /// Bytes in a register.
    pub fn length(self) -> usize {
        match self {
            Self::InputInterface
            | Self::SourceNetwork64
            | Self::Source(AddressFamily::V6)
            | Self::Destination(AddressFamily::V6) => 16,
            Self::Selector => 8,
            Self::Mark
            | Self::DestinationType
            | Self::Source(AddressFamily::V4)
            | Self::Destination(AddressFamily::V4) => 4,
            Self::SourcePort | Self::AnyPort | Self::Port(_) | Self::UdpLength => 2,
            Self::NetworkFamily | Self::TransportProtocol | Self::NextHeader | Self::TcpFlags => 1,
        }
    }

    /// The family of addresses that a packet must have for it to have the field.
    pub fn family(self) -> Option<AddressFamily> {
        match self {
            Self::Source(family) | Self::Destination(family) => Some(family),
            Self::SourceNetwork64 | Self::NextHeader => Some(AddressFamily::V6),
            _ => None,
        }
    }

    /// The transport that a packet must have for it to have the field.
    pub fn transport(self) -> Option<Transport> {
        match self {
            Self::Port(transport) => Some(transport),
            Self::UdpLength => Some(Transport::Udp),
            Self::TcpFlags => Some(Transport::Tcp),
            _ => None,
        }
    }
}
