//! What a client asks for, and its 44 bytes inside the packet.

use crate::name::ServiceName;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// What is to be done with the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Admit the address for some seconds; 0 means what the server's policy says. The
    /// policy also caps it.
    Open {
        /// 0 to 65535 seconds.
        seconds: u16,
    },
    /// Take back what this key opened.
    Close,
}

/// The plain text of a packet: what a client asks for.
///
/// A server acts only on a [`crate::packet::Request`], which holds one of these and is
/// made by the verifier alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Knock {
    /// Open or close.
    pub action: Action,
    /// When the client made the packet.
    pub timestamp: Timestamp,
    /// The address to admit; `None` is the address that the packet comes from.
    pub address: Option<IpAddr>,
    /// The service; `None` is every service that the key may open.
    pub service: Option<ServiceName>,
}

/// Why 44 authenticated bytes are not a knock. Only a holder of the key can cause it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The first byte is not 1.
    #[error("protocol version {0} is unknown")]
    Version(u8),
    /// The second byte is neither 0 nor 1.
    #[error("action {0} is unknown")]
    Action(u8),
    /// A close that asks for seconds.
    #[error("a close must not ask for seconds")]
    SecondsInClose,
    /// The service field holds neither a name followed by zeros nor zeros alone.
    #[error("the service name is not well-formed")]
    Service,
    /// An address that nobody can connect from: unspecified, loopback, link-local,
    /// multicast or broadcast.
    #[error("the signed address is not one that can be admitted")]
    Address,
    /// The ciphertext does not open under the key that authenticated it.
    #[error("the request does not decrypt")]
    Ciphertext,
    /// The selector is that of another minute than the signed timestamp's.
    #[error("the selector belongs to another minute than the timestamp")]
    Slot,
}

/// Bytes of an encoded knock.
pub const LEN: usize = 44;

const VERSION: u8 = 1;

impl Knock {
    /// The 44 bytes: version, action, seconds (2), timestamp (8), address (16),
    /// service (16); integers big-endian. An IPv4 address is mapped (RFC 4291 section
    /// 2.5.5.2).
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let (action, seconds) = match self.action {
            Action::Open { seconds } => (0, seconds),
            Action::Close => (1, 0),
        };
        let address = match self.address {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
            Some(IpAddr::V6(v6)) => v6,
        };
        let mut bytes = [0; LEN];
        bytes[0] = VERSION;
        bytes[1] = action;
        bytes[2..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.timestamp.0.to_be_bytes());
        bytes[12..28].copy_from_slice(&address.octets());
        bytes[28..].copy_from_slice(&self.service.map_or([0; 16], |s| s.field()));
        bytes
    }

    /// Reads the 44 bytes; accepts exactly what [`Knock::encode`] writes, so every
    /// knock has one encoding.
    pub(crate) fn decode(bytes: &[u8; LEN]) -> Result<Self, Malformed> {
        let field = |from: usize| -> [u8; 16] { std::array::from_fn(|i| bytes[from + i]) };
        if bytes[0] != VERSION {
            return Err(Malformed::Version(bytes[0]));
        }
        let seconds = u16::from_be_bytes([bytes[2], bytes[3]]);
        let action = match (bytes[1], seconds) {
            (0, seconds) => Action::Open { seconds },
            (1, 0) => Action::Close,
            (1, _) => return Err(Malformed::SecondsInClose),
            (other, _) => return Err(Malformed::Action(other)),
        };
        let timestamp = u64::from_be_bytes(std::array::from_fn(|i| bytes[4 + i]));
        let service = match field(28) {
            [0, rest @ ..] if rest == [0; 15] => None,
            name => Some(ServiceName::from_field(name).ok_or(Malformed::Service)?),
        };
        Ok(Self {
            action,
            timestamp: Timestamp(timestamp),
            address: address(field(12))?,
            service,
        })
    }
}

/// The address field; all zero is none. What could never be a connection's source
/// address, or would admit the server to itself, is malformed.
fn address(field: [u8; 16]) -> Result<Option<IpAddr>, Malformed> {
    if field == [0; 16] {
        return Ok(None);
    }
    let address = Ipv6Addr::from(field).to_canonical();
    if is_admissible(address) {
        Ok(Some(address))
    } else {
        Err(Malformed::Address)
    }
}

/// Whether an address may be signed into a packet: not unspecified, loopback,
/// link-local, multicast or broadcast. An IPv4-mapped address counts as its IPv4 one.
#[must_use]
pub fn is_admissible(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4 == Ipv4Addr::BROADCAST)
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_multicast())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> [u8; LEN] {
        Knock {
            action: Action::Open { seconds: 30 },
            timestamp: Timestamp(1_750_000_000_000),
            address: Some("203.0.113.7".parse().unwrap()),
            service: Some("ssh".parse().unwrap()),
        }
        .encode()
    }

    /// The plain text with some bytes put in another's place.
    fn with(at: usize, bytes: &[u8]) -> Result<Knock, Malformed> {
        let mut text = plain();
        text[at..at + bytes.len()].copy_from_slice(bytes);
        Knock::decode(&text)
    }

    fn v6(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn version_unknown() {
        for version in [0, 2, 255] {
            assert_eq!(with(0, &[version]), Err(Malformed::Version(version)));
        }
    }

    #[test]
    fn action_unknown() {
        assert_eq!(with(1, &[2]), Err(Malformed::Action(2)));
        assert_eq!(with(1, &[255]), Err(Malformed::Action(255)));
    }

    #[test]
    fn close_with_seconds() {
        assert_eq!(with(1, &[1]), Err(Malformed::SecondsInClose));
        assert_eq!(with(1, &[1, 0, 0]).unwrap().action, Action::Close);
    }

    #[test]
    fn service_with_a_capital() {
        assert_eq!(with(28, b"Ssh"), Err(Malformed::Service));
        assert_eq!(with(29, b"S"), Err(Malformed::Service));
    }

    #[test]
    fn service_beginning_with_a_digit_or_dash() {
        assert_eq!(with(28, b"9"), Err(Malformed::Service));
        assert_eq!(with(28, b"-"), Err(Malformed::Service));
    }

    #[test]
    fn service_with_a_byte_after_the_padding() {
        assert_eq!(with(43, &[1]), Err(Malformed::Service));
        assert_eq!(with(32, b"x"), Err(Malformed::Service));
        assert_eq!(with(28, &[0]), Err(Malformed::Service));
    }

    #[test]
    fn service_of_sixteen_bytes_needs_no_padding() {
        let knock = with(28, b"a-16-byte-name-x").unwrap();
        assert_eq!(knock.service.unwrap().as_str(), "a-16-byte-name-x");
    }

    #[test]
    fn address_that_cannot_be_admitted() {
        for text in [
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:0.0.0.0",
            "::ffff:127.0.0.1",
            "::ffff:127.9.9.9",
            "::ffff:169.254.1.1",
            "::ffff:224.0.0.1",
            "::ffff:255.255.255.255",
        ] {
            assert_eq!(with(12, &v6(text)), Err(Malformed::Address), "{text}");
        }
    }

    #[test]
    fn address_all_zero_is_the_source() {
        assert_eq!(with(12, &v6("::")).unwrap().address, None);
    }

    #[test]
    fn address_mapped_is_ipv4() {
        let knock = with(12, &v6("::ffff:198.51.100.1")).unwrap();
        assert_eq!(knock.address, Some("198.51.100.1".parse().unwrap()));
    }
}
