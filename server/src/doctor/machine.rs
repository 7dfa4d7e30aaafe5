//! The machine itself: what listens, its clock, its kernel and programs, its start.

use super::Finding;
use crate::clock;
use crate::config::Config;
use oneknock_shared::port::{Ports, Transport};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

/// From here on the kernel can give a table to the daemon alone.
const OWNING_KERNEL: (u32, u32) = (6, 9);
/// Older ones do not understand all of the ruleset.
const NFT: [u32; 3] = [1, 0, 6];
/// Flushes every ruleset when it starts, as Debian ships it.
const NFTABLES_CONF: &str = "/etc/nftables.conf";

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
    let release = read("/proc/sys/kernel/osrelease");
    findings.extend(old_kernel(release.trim()));
    findings.extend(old_nft(&said("nft", &["--version"])));
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
    if config.on_trial {
        findings.push(Finding::note(
            "the guard is on trial, and not confirmed: it goes down by itself, and nothing is guarded after the machine's next start",
            "oneknockctl confirm, in a session that knocked its way in meanwhile",
        ));
    } else if Path::new("/run/systemd/system").exists() {
        let is_enabled =
            |unit: &str| said("systemctl", &["is-enabled", unit]).starts_with("enabled");
        let flushes = flushes(&read(NFTABLES_CONF)) && is_enabled("nftables.service");
        findings.extend(start(
            is_enabled("oneknock-guard.service"),
            is_enabled("oneknockd.service"),
            flushes,
        ));
    }
    findings
}

/// What a program prints; nothing where it cannot be run.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
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

/// The numbers that a version begins with.
fn numbers(version: &str) -> Vec<u32> {
    let from = version
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(version.len());
    let end = |c: char| !c.is_ascii_digit() && c != '.';
    let text = version[from..].split(end).next().unwrap_or_default();
    text.split('.').map_while(|n| n.parse().ok()).collect()
}

fn old_kernel(release: &str) -> Option<Finding> {
    let found = numbers(release);
    let found = (*found.first()?, *found.get(1)?);
    (found < OWNING_KERNEL).then(|| {
        let (major, minor) = OWNING_KERNEL;
        Finding::note(
            format!("the kernel is {release}: other programs can change the guard, which is then put right within a second"),
            format!("Linux {major}.{minor} or later keeps them from it"),
        )
    })
}

fn old_nft(version: &str) -> Option<Finding> {
    let [major, minor, patch] = NFT;
    let mend = format!("install nftables {major}.{minor}.{patch} or later");
    let found = numbers(version);
    if found.is_empty() {
        let what = "there is no nft: the guard cannot be put up";
        return Some(Finding::trouble(what, mend));
    }
    (found[..] < NFT[..]).then(|| {
        let version = version.trim();
        Finding::trouble(
            format!("nft is too old for the guard's ruleset: {version}"),
            mend,
        )
    })
}

/// Whether a script of nft's takes everybody's rules down.
fn flushes(script: &str) -> bool {
    let lines = script
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    lines
        .map(str::trim)
        .any(|line| line.starts_with("flush ruleset"))
}

fn start(guard: bool, daemon: bool, flushes: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !guard {
        let what = if flushes {
            "nothing puts the guard up at the machine's start, and nftables.service takes it down whenever it starts while no daemon runs"
        } else {
            "nothing puts the guard up at the machine's start before the network"
        };
        findings.push(Finding::trouble(what, "systemctl enable oneknock-guard"));
    }
    if guard && !daemon {
        findings.push(Finding::trouble(
            "after the machine's next start the guard is up and no daemon runs: nobody gets in",
            "systemctl enable oneknockd",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(old_kernel("6.1.0-30-amd64").is_some());
        assert!(old_kernel("6.9.0").is_none());
        assert!(old_kernel("6.18.3+deb14").is_none());
        assert!(old_kernel("garbage").is_none());
        assert!(old_nft("nftables v1.0.6 (Lester Gooch #5)").is_none());
        assert!(old_nft("nftables v1.1.1 (Commodore Bullmoose #2)").is_none());
        assert!(old_nft("nftables v0.9.8 (E.D.S.)").is_some());
        assert!(old_nft("").unwrap().what.contains("there is no nft"));
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        let table = "  sl  local_address rem_address   st\n\
            0: 00000000:0016 00000000:0000 0A 00000000:00000000\n\
            1: 0A0200C0:0050 0A0200C0:C001 01 00000000:00000000\n\
            2: garbage\n";
        assert_eq!(ports(table, &["0A"]), BTreeSet::from([22]));
    }

    #[test]
    fn a_script_that_flushes_is_known_by_its_command_and_not_by_a_comment() {
        assert!(flushes("#!/usr/sbin/nft -f\n\nflush ruleset\n"));
        assert!(!flushes("# flush ruleset\ntable inet filter { }\n"));
    }

    #[test]
    fn a_start_that_locks_out_and_one_that_leaves_open_are_both_troubles() {
        assert_eq!(start(true, true, true), []);
        assert!(start(true, false, false)[0].what.contains("nobody gets in"));
        assert!(
            start(false, true, true)[0]
                .what
                .contains("nftables.service")
        );
        assert_eq!(start(false, false, false).len(), 1);
    }
}
