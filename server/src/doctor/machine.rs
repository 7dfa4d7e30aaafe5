//! The machine itself: what listens, and its clock.

use super::Finding;
use crate::clock;
use crate::config::Config;
use crate::proc_net::{self, LISTEN, UNCONNECTED};
use oneknock_shared::port::{Ports, Transport};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};

/// What is found.
pub fn examine(config: &Config) -> Vec<Finding> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let both = |transport: &str| {
        let tables =
            [transport, &format!("{transport}6")].map(|name| read(&format!("/proc/net/{name}")));
        tables.concat()
    };
    let mut findings = nobody_listens(config, &both("tcp"), &both("udp"));
    findings.extend(config.listen.iter().filter_map(elsewhere));
    findings.extend(match clock::is_synchronised() {
        Ok(true) => None,
        Ok(false) => Some(Finding::trouble(
            "this machine's clock is not synchronised: a packet is refused whose time is too far from it",
            "timedatectl set-ntp true",
        )),
        Err(why) => Some(Finding::note(
            format!("whether the clock is synchronised cannot be asked: timedatectl: {why}"),
            "compare it with another: date --utc",
        )),
    });
    findings
}

/// What listens on a port, of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    /// Only for this machine itself.
    Here,
    /// For others too.
    ForAll,
}

/// The ports that are taken in the kernel's table of sockets, by those in this state.
fn taken(table: &str, state: u8) -> BTreeMap<u16, Taken> {
    let mut found = BTreeMap::new();
    for socket in proc_net::sockets(table).filter(|socket| socket.state == state) {
        let by = if socket.local.ip().is_loopback() {
            Taken::Here
        } else {
            Taken::ForAll
        };
        let known = found.entry(socket.local.port()).or_insert(by);
        *known = by.max(*known);
    }
    found
}

fn nobody_listens(config: &Config, tcp: &str, udp: &str) -> Vec<Finding> {
    let (tcp, udp) = (taken(tcp, LISTEN), taken(udp, UNCONNECTED));
    let mut findings = Vec::new();
    for service in &config.services {
        // The ports of a range are taken when somebody comes, as mosh does.
        let is_single = |ports: &&Ports| ports.first() == ports.last();
        for ports in service.ports.iter().filter(is_single) {
            let taken = match ports.transport() {
                Transport::Tcp => &tcp,
                Transport::Udp => &udp,
            };
            let who = match taken.get(&ports.first()) {
                Some(Taken::ForAll) => continue,
                Some(Taken::Here) => "nothing listens for others than this machine itself",
                None => "nothing listens",
            };
            findings.push(Finding::note(
                format!(
                    "{who} on {ports} of service {}: whoever is let in finds nobody, unless it is passed on to another host or container",
                    service.name
                ),
                "start the service, or correct its addresses, or ports in oneknockd.toml; \"ss -lntup\" shows what listens",
            ));
        }
    }
    findings
}

/// The daemon listens there all the same: the address may come later.
fn elsewhere(listen: &SocketAddr) -> Option<Finding> {
    let mut any_port = *listen;
    any_port.set_port(0);
    let error = UdpSocket::bind(any_port).err()?;
    (error.kind() == io::ErrorKind::AddrNotAvailable).then(|| {
        Finding::trouble(
            format!(
                "listen: {} is no address of this machine: no knock arrives there",
                listen.ip()
            ),
            "correct listen in oneknockd.toml; \"ip -brief address\" shows those there are",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn what_listens_for_this_machine_alone_is_told_from_what_listens_for_all() {
        let table = "  sl  local_address rem_address   st\n\
            0: 0100007F:0016 00000000:0000 0A 0:0 0:0 0 0 0 1 1\n\
            1: 0100007F:0050 00000000:0000 0A 0:0 0:0 0 0 0 2 1\n\
            2: 00000000:0016 00000000:0000 0A 0:0 0:0 0 0 0 3 1\n\
            3: 0A0200C0:0051 0A0200C0:C001 01 0:0 0:0 0 0 0 4 1\n\
            4: garbage\n";
        let want = [(22, Taken::ForAll), (80, Taken::Here)];
        assert_eq!(taken(table, LISTEN), BTreeMap::from(want));
    }
}
