//! The ports of this machine on which something listens.

use crate::proc_net::{self, LISTEN, UNCONNECTED};
use oneknock_shared::port::Transport;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;

/// The tables of proc(5), and the state of a socket that waits for anyone.
const TABLES: [(&str, Transport, u8); 4] = [
    ("tcp", Transport::Tcp, LISTEN),
    ("tcp6", Transport::Tcp, LISTEN),
    ("udp", Transport::Udp, UNCONNECTED),
    ("udp6", Transport::Udp, UNCONNECTED),
];

/// The ports, each with whether other machines can reach it: not those of loopback addresses.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<(Transport, u16), bool>);

impl Listeners {
    /// Asks the kernel. One without IPv6 has none of its tables.
    pub fn read() -> io::Result<Self> {
        let mut listeners = Self::default();
        for (name, transport, state) in TABLES {
            match fs::read_to_string(format!("/proc/net/{name}")) {
                Ok(table) => listeners.add(&table, transport, state),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listeners)
    }

    fn add(&mut self, table: &str, transport: Transport, state: u8) {
        for socket in proc_net::sockets(table).filter(|socket| socket.state == state) {
            let is_reachable = !socket.local.ip().is_loopback();
            let port = (transport, socket.local.port());
            *self.0.entry(port).or_default() |= is_reachable;
        }
    }

    /// Whether other machines can reach what listens there; none where nothing does.
    #[must_use]
    pub fn reachable(&self, transport: Transport, port: u16) -> Option<bool> {
        self.0.get(&(transport, port)).copied()
    }

    /// Those that other machines can reach.
    pub fn for_others(&self) -> impl Iterator<Item = (Transport, u16)> {
        let reachable = self.0.iter().filter(|(_, is_reachable)| **is_reachable);
        reachable.map(|(port, _)| *port)
    }
}

/// The ports that the kernel hands out to outgoing connections; none where it does not say.
#[must_use]
pub fn outgoing() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let text = text.unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => RangeInclusive::new(1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn loopback_listeners_and_connections_are_told_from_others() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0100007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1\n\
            1: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 2 1\n\
            2: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 3 1\n\
            3: 0A0200C0:0051 0A0200C0:C001 01 0:0 0:0 0 0 0 4 1\n\
            4: 00000000000000000000000001000000:0052 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 5 1\n\
            5: 0000000000000000FFFF00000100007F:0053 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 6 1\n\
            6: garbage\n";
        let mut listeners = Listeners::default();
        listeners.add(table, Transport::Tcp, LISTEN);
        let found: Vec<_> = listeners.for_others().collect();
        assert_eq!(found, [(Transport::Tcp, 22)]);
        for (port, reachable) in [
            (22, Some(true)),
            (80, Some(false)),
            (81, None),
            (82, Some(false)),
            (83, Some(false)),
        ] {
            assert_eq!(
                listeners.reachable(Transport::Tcp, port),
                reachable,
                "{port}"
            );
        }
    }
}
