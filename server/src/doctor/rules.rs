//! The rules of others: what becomes of a knock, and of a connection to a guarded port,
//! where nothing but one other table stands. It is not read but tried: that table is
//! loaded into a copy of this machine's network, and somebody from far away comes.

use super::Finding;
use super::copy::{Copy, Pair};
use super::forwards;
use super::others::{Other, legacy, others};
use crate::config::Config;
use crate::kernel::TABLE;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrIn6;
use oneknock_shared::port::Transport;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Somebody far away: documentation's addresses, which no rule is made for.
const FAR: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(203, 0, 113, 254),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe),
);

/// A port that nobody has and no rule is made for.
const UNUSED: u16 = 9;

/// After so many tries a copy that lets nothing through will not.
const READY_AFTER: u32 = 10;

/// What became of somebody from far away.
#[derive(Default)]
struct Tried {
    findings: Vec<Finding>,
    /// Whether a port that no rule is made for was stopped, over IPv4 and over IPv6.
    stopped: [Option<bool>; 2],
}

/// What is found.
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut all = others().unwrap_or_else(|why| {
        let what = "the machine's other rules cannot be read";
        findings.push(cannot(what, &why));
        Vec::new()
    });
    all.extend(legacy());
    let mut stopped = [None; 2];
    for other in all {
        let other = match other {
            Ok(other) => other,
            Err((name, why)) => {
                findings.push(cannot(&format!("table {name} cannot be read"), &why));
                continue;
            }
        };
        findings.extend(forwards::examine(config, &other.text));
        match rehearse(config, &other) {
            Ok(tried) => {
                findings.extend(tried.findings);
                for (all, one) in stopped.iter_mut().zip(tried.stopped) {
                    *all = (*all).max(one);
                }
            }
            Err(why) => {
                let what = format!("table {} {} cannot be tried out", other.family, other.name);
                let mut finding = cannot(&what, &why);
                // It may be for a link that does not lead to the world, which is not copied.
                finding.is_trouble = other.family != "netdev";
                findings.push(finding);
            }
        }
    }
    if stopped == [Some(true), Some(false)] {
        findings.push(Finding::note(
            "over IPv6 this machine's own rules let in what they stop over IPv4; the guarded ports are guarded over both",
            "give it the same rules for IPv6",
        ));
    }
    findings
}

fn cannot(what: &str, why: &io::Error) -> Finding {
    Finding::trouble(
        format!("{what}: {why}"),
        "look at it yourself: nft list ruleset, and where there are any, iptables-legacy-save and ip6tables-legacy-save",
    )
}

/// The link that a family's default route leads over, of the kernel's own tables.
fn default_link(is_ipv6: bool, routes: &str) -> Option<String> {
    let mut lines = routes.lines().map(|line| line.split_whitespace());
    lines.find_map(|fields| {
        let fields: Vec<&str> = fields.collect();
        let (link, is_default) = if is_ipv6 {
            let to = fields.first()?.bytes().all(|b| b == b'0');
            (fields.last()?, to && fields.get(1) == Some(&"00"))
        } else {
            (fields.first()?, fields.get(1) == Some(&"00000000"))
        };
        // Where there is no way, the kernel keeps one over "lo" that says so.
        (is_default && *link != "lo").then(|| (*link).to_owned())
    })
}

/// This machine's address of each family that it has, on the link that leads to the world,
/// else on any.
fn own(addresses: &[(String, IpAddr)], default: [Option<String>; 2]) -> Vec<Pair> {
    let far = [IpAddr::V4(FAR.0), IpAddr::V6(FAR.1)];
    let pair = |(other, default): (IpAddr, Option<String>)| {
        let of_family = |(_, own): &&(String, IpAddr)| own.is_ipv6() == other.is_ipv6();
        let mut on_it = addresses.iter().filter(of_family);
        let first = on_it.clone().next()?;
        let on_default = on_it.find(|(link, _)| Some(link) == default.as_ref());
        let (link, own) = on_default.unwrap_or(first).clone();
        Some(Pair {
            link: default.unwrap_or(link),
            own,
            other,
        })
    };
    far.into_iter().zip(default).filter_map(pair).collect()
}

/// The addresses that somebody from elsewhere could reach, each with its link.
fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let interfaces = getifaddrs()?;
    let found = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = || address.as_sockaddr_in6().map(SockaddrIn6::ip);
        let v6 = || v6().filter(|a| !a.is_unicast_link_local()).map(IpAddr::V6);
        let is_loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let address = v4.or_else(v6).filter(|_| !is_loopback)?;
        Some((interface.interface_name, address))
    });
    Ok(found.collect())
}

fn rehearse(config: &Config, other: &Other) -> io::Result<Tried> {
    let routes = [(false, "/proc/net/route"), (true, "/proc/net/ipv6_route")];
    // A kernel without IPv6 has none of its table.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let default = routes.map(|(is_ipv6, path)| default_link(is_ipv6, &read(path)));
    let pairs = own(&addresses()?, default);
    if pairs.is_empty() {
        return Err(io::Error::other("this machine has no address yet"));
    }
    let copy = Copy::new(&pairs)?;
    let knock_ports: Vec<u16> = config
        .listen
        .iter()
        .map(std::net::SocketAddr::port)
        .collect();
    // The copy itself must not be what is in the way; on a busy machine it takes its time.
    for (pair, port) in pairs.iter().zip(knock_ports.iter().cycle()) {
        let mut tries = 1;
        while !copy.datagram_arrives(pair, *port)? {
            if tries == READY_AFTER {
                let why = "no packet gets through the copy even without it";
                return Err(io::Error::other(why));
            }
            tries += 1;
        }
    }
    other.load(&copy)?;
    // As the guard's own sieve has it, whatever that is to the other table.
    copy.run(&["nft", "-f", "-"], untracked(&knock_ports).as_bytes())?;
    let passed_on = forwards::passed_on(&other.text);
    let mut tried = Tried::default();
    let findings = &mut tried.findings;
    for pair in &pairs {
        let stopped = !copy.connection_stands(pair, UNUSED)?;
        tried.stopped[usize::from(pair.own.is_ipv6())] = Some(stopped);
        for address in &config.listen {
            if address.is_ipv4() == pair.own.is_ipv4()
                && !copy.datagram_arrives(pair, address.port())?
            {
                let what = "knocks do not arrive";
                findings.push(other.in_the_way(what, Transport::Udp, address.port(), pair));
            }
        }
        for service in &config.services {
            for ports in &service.ports {
                let (port, transport) = (ports.first(), ports.transport());
                // Where it leads to is not in the copy.
                if passed_on.contains(&(transport, port)) {
                    continue;
                }
                let passes = match transport {
                    Transport::Tcp => copy.connection_stands(pair, port)?,
                    Transport::Udp => copy.datagram_arrives(pair, port)?,
                };
                if !passes {
                    let what = format!("whoever is let in does not get to {}", service.name);
                    findings.push(other.in_the_way(&what, transport, port, pair));
                }
            }
        }
    }
    // One port in both families is one trouble.
    findings.dedup_by(|a, b| a.what == b.what);
    Ok(tried)
}

/// Knocks are kept from connection tracking.
fn untracked(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!(
        "table inet {TABLE} {{ chain sieve {{ type filter hook prerouting priority raw;
            udp dport {{ {} }} notrack; }}; }}",
        ports.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_tried_over_the_link_that_its_default_route_has() {
        let v4 =
            "Iface\tDestination\tGateway\neth0\t0000000A\t00000000\nwan0\t00000000\t0100000A\n";
        assert_eq!(default_link(false, v4).as_deref(), Some("wan0"));
        let zero = "0".repeat(32);
        let v6 = format!(
            "fd00{0} 40 {zero} 00 {zero} 100 1 0 1 eth0\n{zero} 00 {zero} 00 {zero} 400 1 0 200200 lo\n{zero} 00 {zero} 00 fe80{0} 400 1 0 3 six0\n",
            "0".repeat(28)
        );
        assert_eq!(default_link(true, &v6).as_deref(), Some("six0"));
        let address = |link: &str, address: &str| (link.to_owned(), address.parse().unwrap());
        let addresses = [
            address("eth0", "10.0.0.1"),
            address("wan0", "192.0.2.10"),
            address("eth0", "2001:db8::1"),
        ];
        let found = own(&addresses, [Some("wan0".into()), Some("six0".into())]);
        let found: Vec<_> = found.iter().map(|p| (p.link.as_str(), p.own)).collect();
        // One without an address of its own borrows one.
        assert_eq!(found, [("wan0", addresses[1].1), ("six0", addresses[2].1)]);
        let found = own(&addresses[..1], [None, None]);
        assert_eq!((found.len(), found[0].link.as_str()), (1, "eth0"));
        assert_eq!(own(&[], [Some("wan0".into()), None]), []);
    }
}
