//! Networks that never need to knock: `[always]` of the main file.

use super::reader::Section;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

const EXAMPLE: &str = "[\"192.168.1.0/24\", \"fd00:1::/64\"]";

/// A network: every address whose first bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// Its first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// How many bits are the same, 1 to 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.bits) == self.first
    }

    fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & kept).into())
        }
        IpAddr::V6(v6) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & kept).into())
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a network; write for example 192.168.1.0/24");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_digits = |bits: &&str| bits.bytes().all(|b| b.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) => {
                let number = Some(bits).filter(is_digits).and_then(|b| b.parse().ok());
                number.filter(|&bits| bits <= most).ok_or_else(bad)?
            }
        };
        if bits == 0 {
            return Err(format!(
                "{text} is everybody: then there is nothing to guard"
            ));
        }
        let first = masked(address, bits);
        if first != address {
            return Err(format!("{text} is inside a network: write {first}/{bits}"));
        }
        if address.to_canonical() != address {
            return Err(format!("{text}: write it as an IPv4 network"));
        }
        Ok(Self { first, bits })
    }
}

/// Reads the table.
pub fn read(section: &mut Section<'_, '_>) -> Option<Vec<Network>> {
    let networks: Vec<Network> = section.list_or_none("networks")?;
    for (at, network) in networks.iter().enumerate() {
        if let Some(other) = networks[..at].iter().find(|n| n.overlaps(*network)) {
            section.note("networks", format!("{network} and {other} overlap"));
        }
    }
    Some(networks)
}

/// The table's text, or how it would be written.
pub fn text(networks: &[Network]) -> String {
    let about = "\n# Networks that never need to knock, such as the console's or a VPN's. Whoever can send\n# from there reaches every guarded port.\n";
    if networks.is_empty() {
        return format!("{about}#[always]\n#networks = {EXAMPLE}\n");
    }
    let networks = networks.iter().map(|network| format!("\"{network}\""));
    let networks = networks.collect::<Vec<_>>().join(", ");
    format!("{about}[always]\nnetworks = [{networks}]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_as_it_is_written() {
        for text in [
            "192.168.1.0/24",
            "10.0.0.0/8",
            "192.0.2.7/32",
            "fd00:1::/64",
            "::1/128",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let alone: Network = "192.0.2.7".parse().unwrap();
        assert_eq!(alone.to_string(), "192.0.2.7/32");
    }

    #[test]
    fn what_is_no_network_or_everybody_is_refused() {
        for text in [
            "",
            "lan",
            "192.168.1/24",
            "192.168.1.0/",
            "192.168.1.0/33",
            "192.168.1.0/+24",
            "0.0.0.0/0",
            "::/0",
            "fd00::/129",
            "192.168.1.7/24",
            "fd00::1/64",
            "::ffff:192.0.2.0/120",
            "192.168.1.0/24/24",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
        let inside = "192.168.1.7/24".parse::<Network>().unwrap_err();
        assert!(inside.ends_with("write 192.168.1.0/24"), "{inside}");
    }

    #[test]
    fn it_contains_its_first_and_last_address_and_no_other() {
        let lan: Network = "192.168.1.0/25".parse().unwrap();
        for (address, inside) in [
            ("192.168.1.0", true),
            ("192.168.1.127", true),
            ("192.168.1.128", false),
            ("192.168.0.255", false),
            ("::192.168.1.1", false),
        ] {
            assert_eq!(lan.contains(address.parse().unwrap()), inside, "{address}");
        }
        let vpn: Network = "fd00:1::/64".parse().unwrap();
        assert!(vpn.contains("fd00:1::ffff:ffff:ffff:ffff".parse().unwrap()));
        assert!(!vpn.contains("fd00:1:0:1::".parse().unwrap()));
    }
}
