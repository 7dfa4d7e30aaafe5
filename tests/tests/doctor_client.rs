//! `oneknock doctor`: against a silent server, each cause produced for real.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Site, binaries};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A site with a door on the laptop, whose clock says this of itself.
fn site(clock: &str) -> Site {
    let site = Site::new(binaries!());
    site.laptop_key();
    let program = site.lab.dir().join("bin/timedatectl");
    fs::write(&program, format!("#!/bin/sh\necho {clock}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    site
}

/// What is said to be most likely.
fn likely(site: &Site) -> String {
    let said = site.oneknock(&["doctor", "home"]);
    assert_eq!(said.code, Some(1), "{said}");
    let line = said
        .out
        .lines()
        .find_map(|line| line.strip_prefix("likely"));
    line.unwrap_or_else(|| panic!("{said}")).trim().to_owned()
}

#[test]
fn a_door_that_opens_has_nothing_the_matter() {
    let site = site("yes");
    let _daemon = site.daemon();
    let said = site.oneknock(&["doctor", "home"]).ok();
    assert!(
        said.contains("the door opens") && !said.contains("likely"),
        "{said}"
    );
    assert!(said.contains("192.0.2.10 from 198.51.100.7"), "{said}");
    // And while it is open.
    let said = site.oneknock(&["doctor", "home"]);
    assert!(said.out.contains("answers without one"), "{said}");
}

#[test]
fn the_likely_cause_is_the_one_that_was_made() {
    let site = site("yes");
    site.ctl(&["guard"]).ok();
    // Nobody listens, and the server's machine says so.
    assert!(likely(&site).contains("oneknockd does not run"));
    let server = &site.lab.server;
    server.nft(
        "table inet mine { chain input { type filter hook input priority 0
            udp dport 45123 drop
        }
        }",
    );
    assert!(likely(&site).contains("does not arrive"));
    site.lab.laptop.nft(
        "table inet own { chain output { type filter hook output priority 0
            udp dport 45123 drop
        }
        }",
    );
    assert!(likely(&site).contains("a firewall on this machine"));
    site.lab.laptop.nft("delete table inet own");
    site.lab.laptop.ip_batch("link set eth0 down\n");
    assert!(likely(&site).contains("not online"));
}

#[test]
fn a_clock_that_is_wrong_and_a_service_that_is_down_are_told_apart() {
    let mut site = site("no");
    let _daemon = site.daemon();
    let signal = nix::sys::signal::Signal::SIGTERM;
    site.sshd.running.signal(signal);
    site.sshd.running.end();
    // The knock is taken all the same.
    let said = site.oneknock(&["doctor", "home"]);
    assert!(said.out.contains("not synchronised"), "{said}");
    assert!(
        said.out
            .contains("the service behind the door does not run"),
        "{said}"
    );
    site.lab.server.nft(
        "table inet mine { chain input { type filter hook input priority 0
            udp dport 45123 drop
        }
        }",
    );
    site.ctl(&["revoke", "--all"]).ok();
    assert!(likely(&site).contains("clock is wrong"));
}
