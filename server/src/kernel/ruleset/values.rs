//! What fields are compared with: each value as nft writes it and as the kernel has it.

use super::super::names::AddressFamily;
use oneknock_shared::port::Transport;
use std::fmt;
use std::net::IpAddr;

/// A value that a field is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// An interface's name, at most 15 bytes.
    Interface(&'static str),
    /// A family of addresses.
    Family(AddressFamily),
    /// A transport protocol.
    Transport(Transport),
    /// An address.
    Address(IpAddr),
    /// A port or a length.
    Number(u16),
    /// What routing says of an address.
    AddressType(AddressType),
}

/// What routing says of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressType {
    /// It is one host's elsewhere.
    Unicast,
    /// It is this machine's.
    Local,
}

/// States of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtState {
    /// Packets were seen in both directions.
    Established,
    /// This packet is the first.
    New,
    /// It is not the first.
    NotNew,
}

impl Value {
    /// The value as it stands in a register.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::Interface(name) => {
                let mut bytes = name.as_bytes().to_vec();
                bytes.resize(16, 0);
                bytes
            }
            Self::Family(AddressFamily::V4) => vec![2],
            Self::Family(AddressFamily::V6) => vec![10],
            Self::Transport(transport) => vec![protocol_number(transport)],
            Self::Address(address) => octets(address),
            Self::Number(number) => number.to_be_bytes().to_vec(),
            // A number of this machine's own.
            Self::AddressType(AddressType::Unicast) => 1_u32.to_ne_bytes().to_vec(),
            Self::AddressType(AddressType::Local) => 2_u32.to_ne_bytes().to_vec(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Family(AddressFamily::V4) => f.write_str("ipv4"),
            Self::Family(AddressFamily::V6) => f.write_str("ipv6"),
            Self::Transport(transport) => transport.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::AddressType(AddressType::Unicast) => f.write_str("unicast"),
            Self::AddressType(AddressType::Local) => f.write_str("local"),
        }
    }
}

impl From<AddressFamily> for Value {
    fn from(family: AddressFamily) -> Self {
        Self::Family(family)
    }
}

impl From<Transport> for Value {
    fn from(transport: Transport) -> Self {
        Self::Transport(transport)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<AddressType> for Value {
    fn from(kind: AddressType) -> Self {
        Self::AddressType(kind)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number)
    }
}

/// The protocol's number, RFC 5237.
#[must_use]
pub fn protocol_number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    }
}

/// The address in network order.
#[must_use]
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
