//! The rolling sequence: it follows from a key's secret and the minute, and from nothing
//! else.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::port::Ports;
use oneknock_shared::rolling::PORTS;
use oneknock_tests::chance::Chance;
use oneknock_tests::clock::WallClock;
use oneknock_tests::rolling::{self, early_in_a_minute, steps, steps_of};
use oneknock_tests::sequence::{both, first_packet, is_open, send_all, somebody};
use oneknock_tests::wire::{self, Probe};
use oneknock_tests::{Site, binaries, wait};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// A site whose sequence for ssh rolls.
fn site() -> Site {
    let site = Site::new(binaries!());
    rolling::configure(&site, "");
    site
}

#[test]
fn a_scan_of_all_ports_that_may_be_steps_opens_nothing_in_whatever_order() {
    let site = site();
    let key = site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    early_in_a_minute();
    let mut chance = Chance::new("scan of rolling ports");
    let mut ports: Vec<u16> = PORTS.collect();
    for number in 1..=3 {
        match number {
            1 => {}
            2 => ports.reverse(),
            _ => chance.shuffle(&mut ports),
        }
        for from in both(number) {
            let to = site.lab.server.address_like(from);
            let each = ports.iter().map(|port| format!("tcp/{port}"));
            let packets = each.map(|port| first_packet(&site, from, &port));
            send_all(&site, to, packets.collect::<Vec<_>>().into_iter());
        }
    }
    for from in both(1000) {
        rolling::walk(&site, from, &steps(&key, 0));
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("seq_ssh").len(), 2);
    assert_eq!(site.guests("penalty_v").len(), 6);
}

#[test]
fn no_step_is_a_misstep_while_all_are_told_anew() {
    let site = site();
    let key = site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    early_in_a_minute();
    let steps = steps(&key, 0);
    let walks = |is_over: &AtomicBool| {
        let to = site.lab.server.v4.into();
        for number in 1.. {
            let from = somebody(number, false);
            let packets = steps.iter().map(|step| first_packet(&site, from, step));
            send_all(&site, to, packets.collect::<Vec<_>>().into_iter());
            if is_over.load(Ordering::Relaxed) {
                return from;
            }
        }
        unreachable!("there are fewer addresses than reloads take time")
    };
    let (last, ()) = wait::meanwhile(walks, || {
        for _ in 0..10 {
            site.ctl(&["reload", "--yes"]).ok();
        }
    });
    // So many that the set of the admitted may be full.
    wait::until_true("all were judged", || {
        is_open(&site, last) || site.guests("seq_ssh").len() == 1024
    });
    assert_eq!(site.guests("penalty_v"), []);
}

#[test]
fn a_copy_of_a_rolling_step_that_has_ended_is_no_misstep() {
    let site = Site::new(binaries!());
    rolling::configure(&site, "step_time = \"5s\"\nduration = \"5s\"");
    let key = site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    early_in_a_minute();
    let all = steps(&key, 0);
    for from in both(1) {
        rolling::walk(&site, from, &all);
        wait::until_true("it opens", || is_open(&site, from));
    }
    for set in ["step6_v4", "step6_v6"] {
        let list = ["nft", "list", "set", "inet", "oneknock", set];
        let is_over = || !site.lab.server.run(&list).ok().contains("expires");
        wait::until_true("the last step has ended", is_over);
    }
    for from in both(1) {
        rolling::walk(&site, from, &all[1..]);
        assert!(!is_open(&site, from));
        rolling::walk(&site, from, &all);
        wait::until_true("it opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("penalty_v"), []);
}

#[test]
fn the_daemon_rolls_it_on_and_what_was_recorded_is_worthless() {
    let site = site();
    let key = site.key("laptop", &["ssh"]);
    let mut clock = WallClock::new(site.lab.dir());
    // A few seconds before the minute is over.
    let into = i64::try_from(wire::now() % 60_000).unwrap();
    clock.set(54_000 - into);
    let slot = clock.now() / 60_000;
    let _daemon = site.daemon_by(&clock);
    let recorded = steps_of(&key, slot - 1);
    let ([owner, _], [thief, thief6]) = (both(1), both(2));
    rolling::walk(&site, owner, &recorded);
    wait::until_true("it opens", || is_open(&site, owner));
    let new = steps_of(&key, slot + 2);
    let first: Ports = new[0].parse().unwrap();
    let list = ["nft", "list", "map", "inet", "oneknock", "port_1"];
    wait::until_true("the minute after the next is told of", || {
        let listing = site.lab.server.run(&list).ok();
        listing.contains(&format!("{} timeout", first.first()))
    });
    for from in [thief, thief6] {
        rolling::walk(&site, from, &recorded);
    }
    for from in both(1000) {
        rolling::walk(&site, from, &new);
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert!(!is_open(&site, thief) && !is_open(&site, thief6));
}

#[test]
fn with_the_daemon_dead_it_runs_out_and_stays_shut() {
    let site = site();
    let key = site.key("laptop", &["ssh"]);
    let mut clock = WallClock::new(site.lab.dir());
    // A few seconds before the sequence of the minute before is over.
    let into = i64::try_from(wire::now() % 60_000).unwrap();
    clock.set(54_000 - into);
    let slot = clock.now() / 60_000;
    let mut daemon = site.daemon_by(&clock);
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    for at in 1..=6 {
        let map = format!("port_{at}");
        let list = ["nft", "-j", "list", "map", "inet", "oneknock", &map];
        let listing: serde_json::Value =
            serde_json::from_str(&site.lab.server.run(&list).ok()).unwrap();
        let map = listing["nftables"].as_array().unwrap().iter();
        let elements = map.filter_map(|e| e["map"]["elem"].as_array()).flatten();
        let ends: Vec<u64> = elements
            .map(|pair| pair[0]["elem"]["expires"].as_u64().unwrap())
            .collect();
        assert!((2..=3).contains(&ends.len()), "{listing}");
        assert!(ends.iter().all(|&seconds| seconds <= 180), "{listing}");
    }
    // Each in its turn.
    let (over, later) = (steps_of(&key, slot - 1), steps_of(&key, slot + 1));
    let first: Ports = over[0].parse().unwrap();
    let list = ["nft", "list", "map", "inet", "oneknock", "port_1"];
    wait::until_true("the first of them is over", || {
        let listing = site.lab.server.run(&list).ok();
        !listing.contains(&format!("{} timeout", first.first()))
    });
    for from in both(1) {
        rolling::walk(&site, from, &over);
    }
    for from in both(1000) {
        rolling::walk(&site, from, &later);
        wait::until_true("the control opens", || is_open(&site, from));
    }
    for from in both(1) {
        assert!(!is_open(&site, from));
    }
}

#[test]
fn the_client_walks_it_where_udp_is_swallowed() {
    let site = site();
    site.laptop_key();
    let _daemon = site.daemon();
    let shown = site.oneknock(&["show", "home"]).ok();
    assert!(shown.contains("changes every minute"), "{shown}");
    site.lab.net.nft(
        "table inet swallow {
            chain forward {
                type filter hook forward priority 0;
                meta l4proto udp drop
            }
        }",
    );
    let opened = site.oneknock(&["open", "home"]);
    assert!(
        opened.err.contains("trying the rolling port sequence"),
        "{opened}"
    );
    opened.ok();
    assert_eq!(site.guests("ssh"), []);
    for to in site.lab.server.addresses() {
        assert_eq!(site.probe(&site.lab.stranger, to), Probe::Silent);
    }
}

#[test]
fn what_a_rolling_sequence_cannot_be_is_a_mistake() {
    let site = site();
    site.key("laptop", &["ssh"]);
    site.ctl(&["check"]).ok();
    let said = site.ctl(&["debug", "rules", "--sequence-only"]).fails(1);
    assert!(
        said.contains("a rolling sequence needs the daemon"),
        "{said}"
    );
    let good = fs::read_to_string(site.config()).unwrap();
    for (from, to, why) in [
        (
            "rolling = true",
            "rolling = \"2m\"",
            "sequence.rolling: must be true or false",
        ),
        (
            "rolling = true",
            "rolling = true\nports = [\"tcp/9\"]",
            "no ports of its own",
        ),
        (
            "rolling = true",
            "rolling = true\nignored_ports = [\"tcp/1-65535\"]",
            "is guarded or ignored",
        ),
    ] {
        let (from, to) = (format!("\n{from}\n"), format!("\n{to}\n"));
        fs::write(site.config(), good.replace(&from, &to)).unwrap();
        let said = site.ctl(&["check"]);
        assert!(said.code == Some(3) && said.out.contains(why), "{said}");
    }
    fs::write(site.config(), &good).unwrap();
    for number in 0..17 {
        site.key(&format!("key{number}"), &["ssh"]);
    }
    let said = site.ctl(&["check"]);
    assert!(
        said.out
            .contains("at most 16 keys can have the rolling sequence"),
        "{said}"
    );
}
