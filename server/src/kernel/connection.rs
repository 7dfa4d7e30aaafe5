//! What tells one connection from another, and how the guard's table writes it.

use oneknock_shared::port::Transport;
use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;

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
        let ([a, b], [c, d]) = (self.remote_port.to_be_bytes(), self.port.to_be_bytes());
        let rest = [
            transport_number(self.transport),
            0,
            0,
            0,
            a,
            b,
            0,
            0,
            c,
            d,
            0,
            0,
        ];
        match self.remote {
            IpAddr::V4(v4) => [&v4.octets()[..], &rest].concat(),
            IpAddr::V6(v6) => [&v6.octets()[..], &rest].concat(),
        }
    }

    /// The connection of such a key; none where it is not one.
    #[must_use]
    pub fn from_set_key(key: &[u8]) -> Option<Self> {
        let (address, rest) = key.split_at_checked(key.len().checked_sub(12)?)?;
        let &[protocol, _, _, _, a, b, _, _, c, d, _, _] = rest else {
            return None;
        };
        Some(Self {
            transport: transport(protocol)?,
            remote: address_of(address)?,
            remote_port: u16::from_be_bytes([a, b]),
            port: u16::from_be_bytes([c, d]),
        })
    }
}

/// The transport's protocol number (IANA).
pub fn transport_number(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

/// The transport of a protocol number.
pub fn transport(number: u8) -> Option<Transport> {
    match number {
        TCP => Some(Transport::Tcp),
        UDP => Some(Transport::Udp),
        _ => None,
    }
}

/// An address of four or sixteen octets in network order.
pub fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn set_key_is_these_bytes() {
        let connection = ConnectionId {
            transport: Transport::Udp,
            remote: [192, 0, 2, 7].into(),
            remote_port: 8080,
            port: 53,
        };
        let want = [192, 0, 2, 7, 17, 0, 0, 0, 0x1f, 0x90, 0, 0, 0, 53, 0, 0];
        assert_eq!(connection.set_key(), want);
    }

    proptest! {
        #[test]
        fn set_key_is_read_back(
            is_tcp: bool,
            remote: IpAddr,
            remote_port: u16,
            port: u16,
        ) {
            let transport = if is_tcp { Transport::Tcp } else { Transport::Udp };
            let connection = ConnectionId { transport, remote, remote_port, port };
            let key = connection.set_key();
            prop_assert_eq!(ConnectionId::from_set_key(&key), Some(connection));
        }

        #[test]
        fn garbage_of_another_length_is_no_key(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let is_key = ConnectionId::from_set_key(&bytes).is_some();
            prop_assert!(!is_key || [16, 28].contains(&bytes.len()));
        }
    }
}
