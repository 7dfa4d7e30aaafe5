//! What tells one connection from another, and how the guard's table writes it.

use super::address::{address_of, octets, protocol_number, transport_of};
use oneknock_shared::port::Transport;
use std::net::IpAddr;

/// A connection to a guarded port, or an exchange of datagrams with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// TCP or UDP.
    pub transport: Transport,
    /// The address that it comes from.
    pub remote: IpAddr,
    /// The port that it comes from.
    pub remote_port: u16,
    /// The guarded port, as its first packet was addressed.
    pub port: u16,
}

impl ConnectionId {
    /// Its key in the set of blocked connections, whose type is
    /// `ipv4_addr . inet_proto . inet_service . inet_service` or the same of IPv6: network
    /// order, each field at a multiple of four.
    #[must_use]
    pub fn set_key(&self) -> Vec<u8> {
        let mut key = octets(self.remote);
        let ports = [self.remote_port, self.port].map(u16::to_be_bytes);
        for field in [&[protocol_number(self.transport)][..], &ports[0], &ports[1]] {
            key.extend(field);
            key.resize(key.len().next_multiple_of(4), 0);
        }
        key
    }

    /// The connection of such a key; none where it is not one.
    #[must_use]
    pub fn from_set_key(key: &[u8]) -> Option<Self> {
        let (address, rest) = key.split_at_checked(key.len().checked_sub(12)?)?;
        let &[protocol, _, _, _, a, b, _, _, c, d, _, _] = rest else {
            return None;
        };
        Some(Self {
            transport: transport_of(protocol)?,
            remote: address_of(address)?,
            remote_port: u16::from_be_bytes([a, b]),
            port: u16::from_be_bytes([c, d]),
        })
    }
}

#[cfg(test)]
#[path = "tests/connection.rs"]
mod tests;
