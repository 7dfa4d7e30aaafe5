//! Rules of other programs: whether one of their tables blocks knocks, or connections to guarded
//! ports. They are not read but tried: the table is loaded into a sandbox, and packets from far away
//! are sent there.

use super::foreign::{ForeignTable, legacy_tables, nft_tables};
use super::sandbox::{AddressPair, Sandbox};
use super::{Check, Finding, Subject, forwards};
use crate::config::Config;
use crate::kernel::TABLE;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrIn6;
use oneknock_shared::port::Transport;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses far away: those of documentation, which no rule is made for.
const FAR: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(203, 0, 113, 254),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe),
);

/// A port that nothing listens on and no rule is made for.
const UNUSED: u16 = 9;

/// After so many tries a sandbox that lets nothing through will not.
const READY_AFTER: u32 = 10;

/// What became of packets from far away.
#[derive(Default)]
struct ProbeResult {
    findings: Vec<Finding>,
    /// Whether a port that no rule is made for was blocked, over IPv4 and over IPv6.
    blocked: [Option<bool>; 2],
}

/// See the module.
pub struct ForeignRules;

impl Check for ForeignRules {
    fn code(&self) -> &'static str {
        "E-RULES"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        subject.config.map_or_else(Vec::new, examine)
    }
}

fn examine(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut tables = nft_tables().unwrap_or_else(|why| {
        found.push(cannot("the rules of other programs cannot be read", &why));
        Vec::new()
    });
    tables.extend(legacy_tables());
    let mut blocked = [None; 2];
    for table in tables {
        let table = match table {
            Ok(table) => table,
            Err((name, why)) => {
                found.push(cannot(&format!("table {name} cannot be read"), &why));
                continue;
            }
        };
        found.extend(forwards::examine(config, &table.text));
        match probe(config, &table) {
            Ok(result) => {
                found.extend(result.findings);
                for (all, one) in blocked.iter_mut().zip(result.blocked) {
                    *all = (*all).max(one);
                }
            }
            Err(why) => {
                let ForeignTable { family, name, .. } = &table;
                let mut finding = cannot(&format!("table {family} {name} cannot be tried"), &why);
                // It may be for an interface that does not lead to the world, which the sandbox
                // does not have.
                if family == "netdev" {
                    finding.severity = super::Severity::Note;
                }
                found.push(finding);
            }
        }
    }
    if blocked == [Some(true), Some(false)] {
        let what = "this machine's own rules allow over IPv6 what they block over IPv4; guarded ports are guarded over both";
        found.push(Finding::note(what).hint("use the same rules for IPv6"));
    }
    found
}

fn cannot(what: &str, why: &io::Error) -> Finding {
    Finding::error(format!("{what}: {why}"))
        .hint("nft list ruleset; iptables-legacy-save; ip6tables-legacy-save")
}

/// The interface of a family's default route, of the kernel's own tables.
fn default_interface(is_ipv6: bool, routes: &str) -> Option<String> {
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

/// This machine's address of each family that it has, on the interface that leads to the world,
/// else on any.
fn own(addresses: &[(String, IpAddr)], default: [Option<String>; 2]) -> Vec<AddressPair> {
    let far = [IpAddr::V4(FAR.0), IpAddr::V6(FAR.1)];
    let pair = |(other, default): (IpAddr, Option<String>)| {
        let of_family = |(_, own): &&(String, IpAddr)| own.is_ipv6() == other.is_ipv6();
        let mut on_it = addresses.iter().filter(of_family);
        let first = on_it.clone().next()?;
        let on_default = on_it.find(|(link, _)| Some(link) == default.as_ref());
        let (link, own) = on_default.unwrap_or(first).clone();
        Some(AddressPair {
            interface: default.unwrap_or(link),
            own,
            other,
        })
    };
    far.into_iter().zip(default).filter_map(pair).collect()
}

/// The addresses that other machines could reach, each with its interface.
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

fn probe(config: &Config, table: &ForeignTable) -> io::Result<ProbeResult> {
    let routes = [(false, "/proc/net/route"), (true, "/proc/net/ipv6_route")];
    // A kernel without IPv6 has no such table.
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let default = routes.map(|(is_ipv6, path)| default_interface(is_ipv6, &read(path)));
    let pairs = own(&addresses()?, default);
    if pairs.is_empty() {
        return Err(io::Error::other("this machine has no address yet"));
    }
    let sandbox = Sandbox::new(&pairs)?;
    let listen = config.listen.iter();
    let knock_ports: Vec<u16> = listen.map(std::net::SocketAddr::port).collect();
    wait_until_ready(&sandbox, &pairs, &knock_ports)?;
    table.load(&sandbox)?;
    // As the guard's own prefilter has it, whatever that is to the other table.
    sandbox.run(&["nft", "-f", "-"], untracked(&knock_ports).as_bytes())?;
    let mut result = ProbeResult::default();
    for pair in &pairs {
        let blocked = !sandbox.connection_stands(pair, UNUSED)?;
        result.blocked[usize::from(pair.own.is_ipv6())] = Some(blocked);
        result
            .findings
            .extend(probe_pair(config, table, &sandbox, pair)?);
    }
    // One port in both families is one finding.
    result.findings.dedup_by(|a, b| a.message == b.message);
    Ok(result)
}

/// The sandbox itself must not be what blocks; on a busy machine it takes its time.
fn wait_until_ready(sandbox: &Sandbox, pairs: &[AddressPair], ports: &[u16]) -> io::Result<()> {
    for (pair, port) in pairs.iter().zip(ports.iter().cycle()) {
        let mut tries = 1;
        while !sandbox.datagram_arrives(pair, *port)? {
            if tries == READY_AFTER {
                let why = "no packet gets through the sandbox even without it";
                return Err(io::Error::other(why));
            }
            tries += 1;
        }
    }
    Ok(())
}

/// Knocks, and connections to guarded ports, of one family.
fn probe_pair(
    config: &Config,
    table: &ForeignTable,
    sandbox: &Sandbox,
    pair: &AddressPair,
) -> io::Result<Vec<Finding>> {
    let mut found = Vec::new();
    let knock_ports = config
        .listen
        .iter()
        .filter(|a| a.is_ipv4() == pair.own.is_ipv4());
    for port in knock_ports.map(std::net::SocketAddr::port) {
        if !sandbox.datagram_arrives(pair, port)? {
            found.push(table.blocks("knocks do not arrive", Transport::Udp, port, pair));
        }
    }
    let forwarded = forwards::forwarded(&table.text);
    for service in &config.services {
        for ports in &service.ports {
            let (port, transport) = (ports.first(), ports.transport());
            // The sandbox lacks the host that it is forwarded to.
            if forwarded.contains(&(transport, port)) {
                continue;
            }
            let passes = match transport {
                Transport::Tcp => sandbox.connection_stands(pair, port)?,
                Transport::Udp => sandbox.datagram_arrives(pair, port)?,
            };
            if !passes {
                let what = format!("service {} cannot be reached with a grant", service.name);
                found.push(table.blocks(&what, transport, port, pair));
            }
        }
    }
    Ok(found)
}

/// Knocks are kept from connection tracking.
fn untracked(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!(
        "table inet {TABLE} {{ chain prefilter {{ type filter hook prerouting priority raw;
            udp dport {{ {} }} notrack; }}; }}",
        ports.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_is_tried_over_its_default_route() {
        let v4 =
            "Iface\tDestination\tGateway\neth0\t0000000A\t00000000\nwan0\t00000000\t0100000A\n";
        assert_eq!(default_interface(false, v4).as_deref(), Some("wan0"));
        let zero = "0".repeat(32);
        let v6 = format!(
            "fd00{0} 40 {zero} 00 {zero} 100 1 0 1 eth0\n{zero} 00 {zero} 00 {zero} 400 1 0 200200 lo\n{zero} 00 {zero} 00 fe80{0} 400 1 0 3 six0\n",
            "0".repeat(28)
        );
        assert_eq!(default_interface(true, &v6).as_deref(), Some("six0"));
        let address = |link: &str, address: &str| (link.to_owned(), address.parse().unwrap());
        let addresses = [
            address("eth0", "10.0.0.1"),
            address("wan0", "192.0.2.10"),
            address("eth0", "2001:db8::1"),
        ];
        let found = own(&addresses, [Some("wan0".into()), Some("six0".into())]);
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.interface.as_str(), p.own))
            .collect();
        // One without an address of its own borrows one.
        assert_eq!(found, [("wan0", addresses[1].1), ("six0", addresses[2].1)]);
        let found = own(&addresses[..1], [None, None]);
        assert_eq!((found.len(), found[0].interface.as_str()), (1, "eth0"));
        assert_eq!(own(&[], [Some("wan0".into()), None]), []);
    }
}
