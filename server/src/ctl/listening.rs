//! On which ports something of this machine listens: they are no steps of a sequence.

use super::Failure;
use crate::config::{self, Config, Sequence, Steps, ports_text, propose_sequence};
use crate::files::{self, Access, Owner};
use oneknock_shared::port::{Ports, Transport};
use oneknock_shared::rolling;
use std::collections::BTreeSet;
use std::fs;
use std::io;
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

/// The local ports of the table's lines that are in this state.
fn in_state(table: &str, state: &str) -> impl Iterator<Item = u16> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, its) = (fields.next()?, fields.next()?, fields.next()?);
        let (_, port) = local.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok().filter(|_| its == state)
    })
}

/// A good sequence for the configuration in this folder, as its line of `ports`. `None`
/// where that has other mistakes than in its sequence, or there is no randomness.
pub fn proposal(dir: &Path, listening: &Listening) -> Option<String> {
    let path = files::config_file(dir);
    let text = files::read(&path, Access::WrittenOnlyBy(Owner::wanted())).ok()?;
    let mut table = text.parse::<toml::Table>().ok()?;
    let section = table.remove("sequence");
    let public = section.as_ref().and_then(|section| section.get("public"));
    let public = public.and_then(toml::Value::as_array).into_iter().flatten();
    let public: Vec<Ports> = public
        .filter_map(|port| port.as_str()?.parse().ok())
        .collect();
    let config: Config = config::parse_config(&path, &table.to_string()).ok()?;
    let listens = |step: Ports| listening.has(step);
    let steps = propose_sequence(&config.services, &config.knock_ports(), &public, listens);
    Some(format!("ports = {}", ports_text(&steps.ok()??)))
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
}
