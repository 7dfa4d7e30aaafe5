//! On which ports something of this machine listens: they are no steps of a sequence, and who
//! connects to them may walk none.

use super::Failure;
use crate::config::{Config, Paths, Sequence, Steps, ports_text, propose_sequence};
use crate::files::{self, Access, Owner};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

/// The tables of proc(5), and the state of a socket that waits for anybody.
const TABLES: [(&str, Transport, &str); 4] = [
    ("tcp", Transport::Tcp, "0A"),
    ("tcp6", Transport::Tcp, "0A"),
    ("udp", Transport::Udp, "07"),
    ("udp6", Transport::Udp, "07"),
];

/// The ports of this machine, here, on which something listens.
#[derive(Debug, Default)]
pub struct Listening(BTreeSet<(Transport, u16)>);

impl Listening {
    /// Reads it. A kernel without IPv6 has none of its tables.
    pub fn read() -> Result<Self, Failure> {
        let mut ports = BTreeSet::new();
        for (name, transport, state) in TABLES {
            let path = Path::new("/proc/net").join(name);
            match fs::read_to_string(&path) {
                Ok(text) => ports.extend(in_state(&text, state).map(|port| (transport, port))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::io(&path, &error)),
            }
        }
        Ok(Self(ports))
    }

    /// What of it is neither for those who knock nor for everybody: whoever connects there has
    /// made a misstep. `outgoing` are ports that the kernel hands out: a datagram's socket there
    /// may be a client's, and nobody else knows of it.
    pub fn missteps(&self, config: &Config, outgoing: &RangeInclusive<u16>) -> Vec<String> {
        let Some(sequence) = &config.sequence else {
            return Vec::new();
        };
        let guarded = config.services.iter().flat_map(|service| &service.ports);
        let open: Vec<&Ports> = guarded.chain(&sequence.public).collect();
        let knock = config.knock_ports();
        let is_fine = |(transport, port): &&(Transport, u16)| match transport {
            Transport::Udp if knock.contains(port) || outgoing.contains(port) => true,
            _ => open.iter().any(|ports| ports.contains(*transport, *port)),
        };
        let missteps = self.0.iter().filter(|one| !is_fine(one));
        missteps.map(|(t, port)| format!("{t}/{port}")).collect()
    }

    fn has(&self, port: Ports) -> bool {
        self.0.contains(&(port.transport(), port.first()))
    }

    /// The steps that cannot work, since a service of this machine has their port.
    pub fn mistakes(&self, sequence: &Sequence) -> Vec<String> {
        let taken: Vec<String> = match &sequence.steps {
            Steps::Fixed(steps) => {
                let taken = steps.iter().filter(|step| self.has(**step));
                taken.map(ToString::to_string).collect()
            }
            Steps::Rolling => {
                let range = |&&(transport, port): &&(Transport, u16)| {
                    transport == Transport::Tcp && rolling::PORTS.contains(&port)
                };
                let taken = self.0.iter().filter(range);
                taken.map(|(t, port)| format!("{t}/{port}")).collect()
            }
        };
        let key = match sequence.steps {
            Steps::Fixed(_) => "ports",
            Steps::Rolling => "rolling",
        };
        let what = |step| {
            format!(
                "sequence.{key}: something on this machine listens on {step}: nobody else could reach it"
            )
        };
        taken.into_iter().map(what).collect()
    }
}

/// The local ports of the table's lines that are in this state, but for those that this
/// machine alone can reach: a step comes from elsewhere.
fn in_state(table: &str, state: &str) -> impl Iterator<Item = u16> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, its) = (fields.next()?, fields.next()?, fields.next()?);
        let (address, port) = local.rsplit_once(':')?;
        let is_wanted = its == state && !is_loopback(address);
        u16::from_str_radix(port, 16).ok().filter(|_| is_wanted)
    })
}

/// Whether this machine alone has that address, as these tables write it: words of eight
/// hexadecimal digits in the machine's byte order.
fn is_loopback(address: &str) -> bool {
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = str::from_utf8(word).ok()?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let Some(words) = words.collect::<Option<Vec<[u8; 4]>>>() else {
        return false;
    };
    let octets = words.concat();
    if let Ok(v4) = <[u8; 4]>::try_from(&*octets) {
        return IpAddr::from(v4).is_loopback();
    }
    <[u8; 16]>::try_from(&*octets).is_ok_and(|v6| IpAddr::from(v6).to_canonical().is_loopback())
}

/// The ports that the kernel hands out to outgoing connections; none where it does not say.
pub fn outgoing() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let text = text.unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => RangeInclusive::new(1, 0),
    }
}

/// A good sequence for the configuration in this folder, as its line of `ports`, also where
/// that has mistakes of any kind. `None` where it cannot be read at all, or there is no
/// randomness.
pub fn proposal(paths: &Paths, listening: &Listening) -> Option<String> {
    let path = paths.main_file();
    let text = files::read(&path, Access::WrittenOnlyBy(Owner::wanted())).ok()?;
    let table = text.parse::<toml::Table>().ok()?;
    let (knock, taken) = (knock_ports(&table), taken(&table));
    let listens = |step: Ports| listening.has(step);
    let steps = propose_sequence(&knock, &taken, listens);
    Some(format!("ports = {}", ports_text(&steps.ok()??)))
}

/// The ports that the file has for something, as far as they can be read.
fn taken(file: &toml::Table) -> Vec<Ports> {
    let services = file.get("service").and_then(toml::Value::as_array);
    let services = services.into_iter().flatten().map(|s| s.get("ports"));
    let public = file.get("sequence").and_then(|s| s.get("public"));
    let lists = services.chain([public]).flatten();
    let texts = lists.filter_map(toml::Value::as_array).flatten();
    texts.filter_map(|one| one.as_str()?.parse().ok()).collect()
}

fn knock_ports(file: &toml::Table) -> Vec<u16> {
    let port = file.get("port").and_then(toml::Value::as_integer);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let listen = file.get("listen").and_then(toml::Value::as_array);
    let listen = listen.into_iter().flatten().filter_map(|address| {
        let address: SocketAddr = address.as_str()?.parse().ok()?;
        Some(address.port())
    });
    port.into_iter().chain(listen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_anybody_is_told_from_connections() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
             0: 00000000:1B58 00000000:0000 0A 00000000:00000000 00:00000000\n   \
             1: 0100007F:0016 0100007F:8000 01 00000000:00000000 00:00000000\n   \
             2: 00000000000000000000000000000000:0050 0000:0000 0A 0:0\n   what\n";
        let ports: Vec<u16> = in_state(table, "0A").collect();
        assert_eq!(ports, [7000, 80]);
        assert_eq!(in_state(table, "07").count(), 0);
    }

    #[test]
    fn what_this_machine_alone_can_reach_is_nothing_to_a_step() {
        let word = |octets: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(octets));
        let zeros = word([0; 4]);
        let v6 = |third: [u8; 4], last: [u8; 4]| {
            [&zeros, &zeros, &word(third), &word(last)]
                .map(String::as_str)
                .concat()
        };
        for (address, is_own) in [
            (word([127, 0, 0, 1]), true),
            (word([127, 0, 0, 53]), true),
            (word([192, 0, 2, 1]), false),
            (word([1, 0, 0, 127]), false),
            (zeros.clone(), false),
            (v6([0; 4], [0, 0, 0, 1]), true),
            (v6([0, 0, 255, 255], [127, 0, 0, 1]), true),
            (v6([0, 0, 255, 255], [192, 0, 2, 1]), false),
            (v6([0; 4], [0; 4]), false),
            ("what".into(), false),
        ] {
            assert_eq!(is_loopback(&address), is_own, "{address}");
            let table = format!("\n 0: {address}:1B58 0:0 0A\n");
            assert_eq!(in_state(&table, "0A").count(), usize::from(!is_own));
        }
    }
}
