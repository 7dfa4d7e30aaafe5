//! Trusted networks, which never need to knock: `trusted_networks` of the main file.

use super::reader::Section;
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

const EXAMPLE: &str = "[\"192.168.1.0/24\", \"fd00:1::/64\"]";

/// A network as the file writes it: an address alone is a network of one.
struct Entry(IpNet);

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let alone = || text.parse::<IpAddr>().map(IpNet::from);
        let network: IpNet = text
            .parse()
            .or_else(|_| alone())
            .map_err(|_| format!("{text:?} is not a network; write for example 192.168.1.0/24"))?;
        if network.prefix_len() == 0 {
            return Err(format!(
                "{text} is everybody: then there is nothing to guard"
            ));
        }
        if network.trunc() != network {
            let network = network.trunc();
            return Err(format!("{text} is inside a network: write {network}"));
        }
        if network.addr().to_canonical() != network.addr() {
            return Err(format!("{text}: write it as an IPv4 network"));
        }
        Ok(Self(network))
    }
}

/// Reads the setting.
pub fn read(section: &mut Section<'_, '_>) -> Option<Vec<IpNet>> {
    let entries: Vec<Entry> = section.list_or_none("trusted_networks")?;
    let networks: Vec<IpNet> = entries.into_iter().map(|entry| entry.0).collect();
    for (at, network) in networks.iter().enumerate() {
        let overlaps = |other: &&IpNet| other.contains(network) || network.contains(*other);
        if let Some(other) = networks[..at].iter().find(overlaps) {
            section.note("trusted_networks", format!("{network} and {other} overlap"));
        }
    }
    if are_everybody(&networks) {
        let what = "half of all addresses or more is everybody: then there is nothing to guard";
        section.note("trusted_networks", what);
    }
    Some(networks)
}

/// Whether networks, of which no two overlap, are together half of the addresses of a family
/// or more: of IPv6 those that are anybody's, `2000::/3`.
fn are_everybody(networks: &[IpNet]) -> bool {
    let global = Ipv6Net::new(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    let (mut v4, mut v6) = (0_u128, 0_u128);
    for network in networks {
        let bits = u32::from(network.max_prefix_len() - network.prefix_len());
        let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        match (network, &global) {
            (IpNet::V4(_), _) => v4 = v4.saturating_add(size),
            (IpNet::V6(network), Ok(global)) => {
                // It holds them all, or is among them, or is none of them.
                let is_any = network.contains(global) || global.contains(network);
                v6 = v6.saturating_add(if is_any { size } else { 0 });
            }
            (IpNet::V6(_), Err(_)) => {}
        }
    }
    v4 >= 1 << 31 || v6 >= 1 << 124
}

/// The setting's text, or how it would be written.
pub fn text(networks: &[IpNet]) -> String {
    let about = "# Networks that never need to knock, such as the console's or a VPN's. Everybody who can send\n# from there reaches every guarded port.\n";
    if networks.is_empty() {
        return format!("{about}#trusted_networks = {EXAMPLE}\n");
    }
    let networks = networks.iter().map(|network| format!("\"{network}\""));
    let networks = networks.collect::<Vec<_>>().join(", ");
    format!("{about}trusted_networks = [{networks}]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNet {
        text.parse::<Entry>()
            .unwrap_or_else(|why| panic!("{why}"))
            .0
    }

    #[test]
    fn a_network_is_read_as_it_is_written() {
        for text in [
            "192.168.1.0/24",
            "10.0.0.0/8",
            "192.0.2.7/32",
            "fd00:1::/64",
        ] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("192.0.2.7").to_string(), "192.0.2.7/32");
        assert_eq!(network("2001:db8::7").to_string(), "2001:db8::7/128");
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
            assert!(text.parse::<Entry>().is_err(), "{text:?}");
        }
        let inside = "192.168.1.7/24".parse::<Entry>().err().unwrap();
        assert!(inside.ends_with("write 192.168.1.0/24"), "{inside}");
    }

    #[test]
    fn networks_that_add_up_to_everybody_are_known() {
        for (texts, want) in [
            (&["0.0.0.0/1", "128.0.0.0/1"][..], true),
            (&["64.0.0.0/2", "128.0.0.0/2"], true),
            (&["0.0.0.0/1"], true),
            (&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], false),
            (&["64.0.0.0/2", "fc00::/7", "fe80::/10"], false),
            (&["2000::/3"], true),
            (&["::/1"], true),
            (&["2000::/5", "2800::/5", "3000::/5"], true),
            (&["2000::/5", "fc00::/7"], false),
            (&[], false),
        ] {
            let networks: Vec<IpNet> = texts.iter().map(|text| network(text)).collect();
            assert_eq!(are_everybody(&networks), want, "{texts:?}");
        }
    }
}
