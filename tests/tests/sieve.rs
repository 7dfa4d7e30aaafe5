//! Junk to the knock port ends in the kernel, and a genuine knock never does.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Listener, until_read};
use oneknock_tests::{Site, binaries, wait};
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// More than what may reach the daemon as a sample.
const MANY: usize = 1_000;

fn junk_of(site: &Site) -> Value {
    let status = site.ctl(&["status", "--json"]).ok();
    let status: Value = serde_json::from_str(&status).unwrap();
    status["counters"]["junk"].clone()
}

fn tracked_to_the_knock_port(site: &Site) -> usize {
    let table = site
        .lab
        .server
        .enter(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap_or_default());
    let to = format!("dport={PORT} ");
    table.lines().filter(|line| line.contains(&to)).count()
}

#[test]
fn junk_is_refused_in_the_kernel_and_a_few_packets_reach_the_daemon() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let mut daemon = site.daemon();
    let stranger = &site.lab.stranger;
    for server in site.lab.server.addresses() {
        for number in 0..MANY {
            let mut junk = [0x5a; 112];
            junk[..8].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
            wire::send(stranger, (server, PORT).into(), &junk);
            // A selector in force does not help where the length is another.
            let mut long = key.seal(&wire::open(None, 0)).to_vec();
            // Longer than a packet may ever be.
            long.resize(513, 0);
            wire::send(stranger, (server, PORT).into(), &long);
        }
    }
    until_read(&site.lab.server, PORT);
    let junk = junk_of(&site);
    let count = |word: &str| usize::try_from(junk[word].as_u64().unwrap()).unwrap();
    assert_eq!(count("length"), 0, "{junk}");
    assert_eq!(count("kernel") + count("no-key"), 4 * MANY, "{junk}");
    assert!(count("no-key") < MANY, "{junk}");
    assert_eq!(tracked_to_the_knock_port(&site), 0);
    // The sample is what is left of the rate: a genuine knock needs none of it.
    for server in site.lab.server.addresses() {
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
        daemon.expect("granted address=");
    }
}

#[test]
fn a_forgery_with_a_selector_in_force_is_not_tracked() {
    let site = Site::new(binaries!());
    let key = site.laptop_key();
    let mut daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    for _ in 0..100 {
        let mut forged = key.seal(&wire::open(None, 0));
        forged[111] ^= 1;
        wire::send(&site.lab.stranger, (server, PORT).into(), &forged);
    }
    wait::until_true("they are counted", || junk_of(&site)["forged"] == 100);
    assert_eq!(tracked_to_the_knock_port(&site), 0);
    key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 60));
    daemon.expect("granted address=");
    assert_eq!(tracked_to_the_knock_port(&site), 0);
}

#[test]
fn a_sieve_that_was_emptied_shuts_nobody_out() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    let key = site.laptop_key();
    let mut daemon = site.daemon();
    let server = &site.lab.server;
    server.nft("flush set inet oneknock selectors\n");
    key.knock(
        &site.lab.laptop,
        server.v4.into(),
        &wire::open(Some("ssh"), 60),
    );
    daemon.expect("granted address=198.51.100.7");
    // Taken away altogether, it comes back with the guard, and filled.
    server.nft("delete table inet oneknock\n");
    daemon.expect("guard-repaired");
    let full = ["nft", "list", "set", "inet", "oneknock", "selectors"];
    let full = server.run(&full).ok();
    assert!(full.contains("expires"), "{full}");
    for _ in 0..50 {
        key.knock(
            &site.lab.laptop,
            server.v6.into(),
            &wire::open(Some("ssh"), 60),
        );
        daemon.expect("granted address=2001:db8:0:2::7");
    }
}

#[test]
fn no_selector_stays_for_ever() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    let list = ["nft", "-j", "list", "set", "inet", "oneknock", "selectors"];
    let list: Value = serde_json::from_str(&site.lab.server.run(&list).ok()).unwrap();
    let set = list["nftables"].as_array().unwrap().iter();
    let all: Vec<&Value> = set
        .filter_map(|o| o["set"]["elem"].as_array())
        .flatten()
        .collect();
    assert!(all.len() >= 3, "{all:?}");
    for element in all {
        let seconds = element["elem"]["timeout"].as_u64().unwrap();
        // Four minutes and twice the skew.
        assert!((1..=4 * 60 + 2 * 30).contains(&seconds), "{element}");
    }
}

#[test]
fn another_program_may_have_the_port_at_another_address() {
    let site = Site::new(binaries!());
    let server = &site.lab.server;
    server.ip_batch("addr add 192.0.2.11/24 dev eth0\n");
    let listen = format!("[\"{}:{PORT}\"]", server.v4);
    site.set(&site.config(), "listen", &listen);
    let _daemon = site.daemon();
    let other = Listener::start_at(server, (Ipv4Addr::new(192, 0, 2, 11), PORT).into());
    for _ in 0..100 {
        let to = (Ipv4Addr::new(192, 0, 2, 11), PORT).into();
        wire::send(&site.lab.stranger, to, b"not for oneknock");
    }
    let mut count = 0;
    wait::until_true("all of it arrives", || {
        count += other.received().len();
        count == 100
    });
}
