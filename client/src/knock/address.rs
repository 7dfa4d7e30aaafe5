//! Which address is signed into a packet.
//!
//! A signed address is worth more: a packet that is caught on its way admits nobody
//! else. But only the machine whose address is its own on the way to the server knows
//! it; behind NAT the packet's source is all that the server can count on.

use oneknock_shared::invitation::AddressRule;
use oneknock_shared::knock::is_admissible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::str::FromStr;

/// What the person wants: the option `--address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressArg {
    /// The local address where it is global, else the packet's source.
    Auto,
    /// The packet's source, always.
    Source,
    /// This one.
    Given(IpAddr),
}

/// The text is none of `auto`, `source` and an IP address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither auto, nor source, nor an IP address")]
pub struct BadAddressArg;

impl FromStr for AddressArg {
    type Err = BadAddressArg;

    fn from_str(text: &str) -> Result<Self, BadAddressArg> {
        match text {
            "auto" => Ok(Self::Auto),
            "source" => Ok(Self::Source),
            ip => ip
                .parse()
                .map(|ip: IpAddr| Self::Given(ip.to_canonical()))
                .map_err(|_| BadAddressArg),
        }
    }
}

impl fmt::Display for AddressArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Source => f.write_str("source"),
            Self::Given(ip) => ip.fmt(f),
        }
    }
}

/// What is done about the address in each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressBinding {
    /// None is signed.
    Never,
    /// The local one, where it is global.
    IfGlobal,
    /// The local one; without, nothing is sent.
    Always,
    /// This one.
    Given(IpAddr),
}

/// The server demands a signed address, and this local one cannot be admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signed address is demanded, and the local address {0} cannot be one")]
pub struct CannotSign(IpAddr);

impl AddressBinding {
    /// For an open: what the person wants, within what the server demands. `None` where
    /// the two contradict each other.
    #[must_use]
    pub fn for_open(choice: AddressArg, rule: AddressRule) -> Option<Self> {
        match (choice, rule) {
            (AddressArg::Auto, AddressRule::Any) => Some(Self::IfGlobal),
            (AddressArg::Auto, AddressRule::Signed) => Some(Self::Always),
            (AddressArg::Source, AddressRule::Any) => Some(Self::Never),
            (AddressArg::Source, AddressRule::Signed) => None,
            (AddressArg::Given(ip), _) => Some(Self::Given(ip)),
        }
    }

    /// For a close. Unsigned unless demanded: whichever way the port was opened, what
    /// was admitted is the source of this machine's packets.
    #[must_use]
    pub fn for_close(choice: AddressArg, rule: AddressRule) -> Option<Self> {
        match (choice, rule) {
            (AddressArg::Auto, AddressRule::Any) => Some(Self::Never),
            _ => Self::for_open(choice, rule),
        }
    }

    /// The address to sign in a packet that leaves from `local`.
    pub fn address(self, local: IpAddr) -> Result<Option<IpAddr>, CannotSign> {
        match self {
            Self::Never => Ok(None),
            Self::IfGlobal => Ok(is_global(local).then_some(local)),
            Self::Always if is_admissible(local) => Ok(Some(local)),
            Self::Always => Err(CannotSign(local)),
            Self::Given(ip) => Ok(Some(ip)),
        }
    }
}

/// Whether a local address can be the one that a distant server sees. Addresses for
/// documentation count as global: laboratories use them as such.
#[must_use]
pub fn is_global(address: IpAddr) -> bool {
    let address = address.to_canonical();
    is_admissible(address)
        && match address {
            IpAddr::V4(v4) => is_global_v4(v4),
            IpAddr::V6(v6) => is_global_v6(v6),
        }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && b & 0xc0 == 64; // RFC 6598, between a provider and its NAT
    let protocol = (a, b, c) == (192, 0, 0); // RFC 6890; 464XLAT's end on a telephone
    let benchmark = a == 198 && b & 0xfe == 18; // RFC 2544
    let reserved = a == 0 || a >= 240; // RFC 1122
    !(address.is_private() || shared || protocol || benchmark || reserved)
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let site_local = address.segments()[0] & 0xffc0 == 0xfec0; // RFC 3879, given up
    !(address.is_unique_local() || site_local)
}

/// Whether `address` is one of this machine's, which is what can be bound to.
#[must_use]
pub fn is_here(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_a_distant_server_cannot_see_are_not_global() {
        for text in [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.2",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.1.1",
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.4",
            "198.18.0.1",
            "198.19.255.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_global(ip(text)), "{text}");
        }
    }

    #[test]
    fn public_and_documentation_addresses_are_global() {
        for text in [
            "9.9.9.9",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.0.2.7",
            "198.17.0.1",
            "198.20.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "2001:db8::7",
            "2620:fe::fe",
            "::ffff:9.9.9.9",
        ] {
            assert!(is_global(ip(text)), "{text}");
        }
    }

    #[test]
    fn auto_signs_the_local_address_where_it_is_global() {
        let signing = AddressBinding::for_open(AddressArg::Auto, AddressRule::Any).unwrap();
        assert_eq!(signing.address(ip("192.0.2.7")), Ok(Some(ip("192.0.2.7"))));
        assert_eq!(signing.address(ip("192.168.1.2")), Ok(None));
    }

    #[test]
    fn what_the_server_demands_is_signed_or_nothing_is_sent() {
        let signing = AddressBinding::for_open(AddressArg::Auto, AddressRule::Signed).unwrap();
        assert_eq!(
            signing.address(ip("192.168.1.2")),
            Ok(Some(ip("192.168.1.2")))
        );
        assert!(signing.address(ip("127.0.0.1")).is_err());
        assert_eq!(
            AddressBinding::for_open(AddressArg::Source, AddressRule::Signed),
            None
        );
        assert_eq!(
            AddressBinding::for_close(AddressArg::Auto, AddressRule::Signed),
            Some(AddressBinding::Always)
        );
    }

    #[test]
    fn source_never_signs_and_a_given_address_always() {
        let source = AddressBinding::for_open(AddressArg::Source, AddressRule::Any).unwrap();
        assert_eq!(source.address(ip("192.0.2.7")), Ok(None));
        let given = AddressArg::Given(ip("203.0.113.9"));
        let given = AddressBinding::for_open(given, AddressRule::Any).unwrap();
        assert_eq!(given.address(ip("10.0.0.1")), Ok(Some(ip("203.0.113.9"))));
    }

    #[test]
    fn a_close_names_no_address_unless_told() {
        let of = |choice| AddressBinding::for_close(choice, AddressRule::Any);
        assert_eq!(of(AddressArg::Auto), Some(AddressBinding::Never));
        assert_eq!(
            of(AddressArg::Given(ip("9.9.9.9"))),
            Some(AddressBinding::Given(ip("9.9.9.9")))
        );
    }

    #[test]
    fn the_option_is_written_as_it_is_read() {
        for text in ["auto", "source", "192.0.2.7", "2001:db8::7"] {
            assert_eq!(text.parse::<AddressArg>().unwrap().to_string(), text);
        }
        for text in ["", "AUTO", "192.0.2", "[::1]", "fe80::1%eth0"] {
            assert_eq!(text.parse::<AddressArg>(), Err(BadAddressArg), "{text:?}");
        }
    }

    #[test]
    fn this_machines_addresses_are_known_as_such() {
        assert!(is_here(ip("127.0.0.1")));
        assert!(!is_here(ip("192.0.2.231")));
    }
}
