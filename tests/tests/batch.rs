//! Packets that arrive together are recorded and granted together.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, send};
use oneknock_tests::{Site, binaries, wait};
use std::net::{IpAddr, Ipv4Addr};

#[test]
fn packets_that_wait_for_the_daemon_are_all_granted_in_their_order() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "allow_other_addresses", "true");
    site.set(&site.key_file("laptop"), "max_grants", "1000");
    site.set(&site.key_file("laptop"), "knocks_per_minute", "1000");
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, IpAddr::from(site.lab.server.v4));
    let of = |n: u8| IpAddr::from(Ipv4Addr::new(203, 0, 113, n));
    daemon.signal(Signal::SIGSTOP);
    let mut made = wire::now();
    let mut knock = |address, open: bool, seconds| {
        let mut knock = if open {
            wire::open(Some("ssh"), seconds)
        } else {
            wire::close(Some("ssh"))
        };
        // No two of the same millisecond: a close refuses what is not later.
        made += 1;
        knock.timestamp.0 = made;
        knock.address = Some(address);
        send(laptop, (server, PORT).into(), &key.seal(&knock));
    };
    // More than one batch; addresses that come twice, and such as go again.
    for n in 0..150 {
        knock(of(n), true, 100);
    }
    for n in (0..150).step_by(3) {
        knock(of(n), true, 500);
        knock(of(n + 1), false, 0);
    }
    for n in (0..150).step_by(6) {
        knock(of(n + 1), true, 300);
    }
    daemon.signal(Signal::SIGCONT);
    wait::until_true("all are granted", || daemon.count("granted ") == 225);
    wait::until_true("all are closed", || daemon.count("closed ") == 50);
    let guests = site.guests("ssh");
    for n in 0..150 {
        let guest = guests.iter().find(|guest| guest.address == of(n));
        let left = guest.map_or(0, |guest| guest.expires);
        let want = match n % 6 {
            0 | 3 => 400..=500,
            1 => 200..=300,
            4 => 0..=0,
            _ => 60..=100,
        };
        assert!(want.contains(&left), "{n}: {left}");
    }
    // The state has it all.
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let mut daemon = site.daemon();
    let status = site.ctl(&["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["grants"], 125);
    assert!(daemon.is_alive());
}
