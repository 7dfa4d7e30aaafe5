//! The rules of others: what becomes of a knock, and of a connection to a guarded port,
//! where nothing but one other table stands. It is not read but tried: that table is
//! loaded into a copy of this machine's network, and somebody from far away comes.

use super::Finding;
use super::copy::{Copy, Pair};
use super::forwards;
use crate::config::Config;
use crate::firewall::TABLE;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use oneknock_shared::port::Transport;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

/// Somebody far away: documentation's addresses, which no rule is made for.
const FAR: (Ipv4Addr, Ipv6Addr) = (
    Ipv4Addr::new(203, 0, 113, 254),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe),
);

/// Another table, as its own program saves it.
#[derive(Debug, PartialEq, Eq)]
struct Other {
    family: String,
    name: String,
    text: String,
}

/// A port that nobody has and no rule is made for.
const UNUSED: u16 = 9;

/// What became of somebody from far away.
#[derive(Default)]
struct Tried {
    findings: Vec<Finding>,
    /// Whether a port that no rule is made for was stopped, over IPv4 and over IPv6.
    stopped: [Option<bool>; 2],
}

/// What is found.
pub fn examine(config: &Config) -> Vec<Finding> {
    let others = match others() {
        Ok(others) => others,
        Err(why) => return vec![cannot("the machine's other rules cannot be read", &why)],
    };
    let mut findings = Vec::new();
    let mut stopped = [None; 2];
    for other in others {
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
                findings.push(cannot(&what, &why));
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
    Finding::note(
        format!("{what}: {why}"),
        "look at it yourself: nft list ruleset",
    )
}

/// Every table but ours that can have to do with packets for this machine.
fn others() -> io::Result<Vec<Other>> {
    let mut others = Vec::new();
    for line in output("nft", &["list", "tables"])?.lines() {
        let [_, family, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        if ["ip", "ip6", "inet"].contains(&family) && (family, name) != ("inet", TABLE) {
            others.push(Other {
                family: family.into(),
                name: name.into(),
                text: output("nft", &["--stateless", "list", "table", family, name])?,
            });
        }
    }
    Ok(others)
}

fn output(program: &str, args: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(args).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program}: {said}")))
}

/// The link that leads to the world, or any, and this machine's address of each family.
fn own() -> io::Result<(String, Vec<Pair>)> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let fields = routes
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut defaults = fields.filter(|f| f.get(1) == Some(&"00000000"));
    let default = defaults.next().and_then(|f| Some((*f.first()?).to_owned()));
    let mut link = default;
    let (mut v4, mut v6) = (None, None);
    for interface in getifaddrs()? {
        let is_loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = interface.address.filter(|_| !is_loopback) else {
            continue;
        };
        let is_it = *link.get_or_insert_with(|| interface.interface_name.clone())
            == interface.interface_name;
        if let Some(address) = address.as_sockaddr_in().filter(|_| is_it) {
            v4.get_or_insert(address.ip());
        }
        if let Some(address) = address.as_sockaddr_in6().filter(|_| is_it)
            && !address.ip().is_unicast_link_local()
        {
            v6.get_or_insert(address.ip());
        }
    }
    let v4 = v4.map(|own| (IpAddr::V4(own), IpAddr::V4(FAR.0)));
    let v6 = v6.map(|own| (IpAddr::V6(own), IpAddr::V6(FAR.1)));
    let pairs = v4
        .into_iter()
        .chain(v6)
        .map(|(own, other)| Pair { own, other });
    Ok((link.unwrap_or_else(|| "eth0".into()), pairs.collect()))
}

fn rehearse(config: &Config, other: &Other) -> io::Result<Tried> {
    let (link, pairs) = own()?;
    let copy = Copy::new(&link, &pairs)?;
    let knock_ports: Vec<u16> = config
        .listen
        .iter()
        .map(std::net::SocketAddr::port)
        .collect();
    // The copy itself must not be what is in the way.
    for (pair, port) in pairs.iter().zip(knock_ports.iter().cycle()) {
        if !copy.datagram_arrives(*pair, *port)? {
            return Err(io::Error::other(
                "no packet gets through the copy even without it",
            ));
        }
    }
    other.load(&copy)?;
    // As the guard's own sieve has it, whatever that is to the other table.
    copy.run(&["nft", "-f", "-"], untracked(&knock_ports).as_bytes())?;
    let passed_on = forwards::passed_on(&other.text);
    let mut tried = Tried::default();
    let findings = &mut tried.findings;
    for pair in pairs {
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

impl Other {
    fn load(&self, copy: &Copy) -> io::Result<()> {
        let loaded = copy.run(&["nft", "-f", "-"], without_owner(&self.text).as_bytes());
        // What iptables made may be beyond what nft can say.
        let program = match self.family.as_str() {
            "ip" => "iptables",
            "ip6" => "ip6tables",
            _ => return loaded,
        };
        loaded.or_else(|error| {
            let _ = copy.run(&["nft", "flush", "ruleset"], b"");
            let saved = output(&format!("{program}-save"), &["-t", &self.name]);
            let saved = saved.map_err(|_| error)?;
            copy.run(&[&format!("{program}-restore")], saved.as_bytes())
        })
    }

    fn in_the_way(&self, what: &str, transport: Transport, port: u16, pair: Pair) -> Finding {
        let family = if pair.own.is_ipv4() { "IPv4" } else { "IPv6" };
        let Self {
            family: of,
            name,
            text,
        } = self;
        // Knocks are kept from connection tracking.
        let untracked = match transport {
            Transport::Udp => ", and without \"ct state\"",
            Transport::Tcp => "",
        };
        let (whose, mend) = if text.contains("ufw") {
            ("of ufw's", format!("ufw allow {port}/{transport}"))
        } else if name == "firewalld" {
            let add = format!("--add-port={port}/{transport}");
            let mend = format!("firewall-cmd --permanent {add} && firewall-cmd --reload");
            ("of firewalld's", mend)
        } else {
            let mend = format!(
                "let a rule of its own accept {transport} dport {port}, before what drops it{untracked}"
            );
            ("of this machine's own", mend)
        };
        Finding::trouble(
            format!("{what}: table {of} {name}, {whose}, stops {transport}/{port} over {family}"),
            mend,
        )
    }
}

/// A table that belongs to its program would go with the nft that loads it.
fn without_owner(text: &str) -> String {
    let is_flag = |line: &&str| {
        let line = line.trim();
        line.starts_with("flags ") && (line.contains("owner") || line.contains("persist"))
    };
    let lines = text.lines().filter(|line| !is_flag(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_a_programs_own_is_copied_without_that() {
        let text = "table inet firewalld { # progname firewalld\n\tflags owner,persist\n\tset s {\n\t\tflags interval\n\t}\n}\n";
        let copied = without_owner(text);
        assert!(!copied.contains("owner") && copied.contains("flags interval"));
    }

    #[test]
    fn the_command_that_mends_it_is_that_of_whoever_made_the_table() {
        let pair = Pair {
            own: [192, 0, 2, 10].into(),
            other: FAR.0.into(),
        };
        for (name, text, mend) in [
            ("filter", "chain ufw-user-input {", "ufw allow 45123/udp"),
            ("firewalld", "", "--add-port=45123/udp"),
            ("mine", "", "accept udp dport 45123"),
        ] {
            let (name, text) = (name.to_owned(), text.to_owned());
            let family = "ip".to_owned();
            let other = Other { family, name, text };
            let found = other.in_the_way("knocks do not arrive", Transport::Udp, 45123, pair);
            assert!(found.mend.contains(mend), "{found}");
            assert!(
                found.is_trouble && found.what.contains("over IPv4"),
                "{found}"
            );
        }
    }
}
