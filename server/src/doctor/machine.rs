//! The machine itself: what listens, and its clock.

use super::Finding;
use crate::clock;
use crate::config::Config;
use oneknock_shared::port::{Ports, Transport};
use std::collections::BTreeSet;
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

/// The ports in the kernel's table of sockets whose state is one of `states`.
fn ports(table: &str, states: &[&str]) -> BTreeSet<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let port = local.rsplit_once(':')?.1;
        states
            .contains(&state)
            .then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().filter_map(port).collect()
}

fn nobody_listens(config: &Config, tcp: &str, udp: &str) -> Vec<Finding> {
    // Listening; a UDP socket that is not connected.
    let (tcp, udp) = (ports(tcp, &["0A"]), ports(udp, &["07"]));
    let mut findings = Vec::new();
    for service in &config.services {
        let has_one = |ports: &Ports| {
            let taken = match ports.transport() {
                Transport::Tcp => &tcp,
                Transport::Udp => &udp,
            };
            taken.range(ports.first()..=ports.last()).next().is_some()
        };
        // The ports of a range are taken when somebody comes, as mosh does.
        let is_single = |ports: &&Ports| ports.first() == ports.last();
        for ports in service.ports.iter().filter(is_single) {
            if !has_one(ports) {
                findings.push(Finding::note(
                    format!(
                        "nothing listens on {ports} of service {}: whoever is let in finds nobody, unless it is passed on to another host or container",
                        service.name
                    ),
                    "start the service, or correct ports in oneknockd.toml; \"ss -lntup\" shows what listens",
                ));
            }
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

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "  sl  local_address rem_address   st\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000\n\
            1: 0A0200C0:0050 0A0200C0:C001 01 00000000:00000000\n\
            2: garbage\n";
        assert_eq!(ports(table, &["0A"]), BTreeSet::from([22]));
    }
}
