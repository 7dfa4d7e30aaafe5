//! The rolling sequence: it follows from a key's secret and the minute, and from nothing
//! else.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::invitation::Invitation;
use oneknock_shared::port::Ports;
use oneknock_shared::rolling;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::Slot;
use oneknock_tests::chance::Chance;
use oneknock_tests::clock::WallClock;
use oneknock_tests::sequence::{self, both, first_packet, is_open, send_all, somebody, walk};
use oneknock_tests::wire::{self, Key, Probe};
use oneknock_tests::{Site, binaries, wait};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

/// A site whose sequence for ssh rolls.
fn site() -> Site {
    site_with("")
}

/// The same with more lines of its section.
fn site_with(more: &str) -> Site {
    let site = Site::new(binaries!());
    let text = fs::read_to_string(site.config()).unwrap();
    let section = format!("\n[sequence]\nservice = \"ssh\"\nrolling = \"1m\"\n{more}\n");
    fs::write(site.config(), format!("{text}{section}")).unwrap();
    site
}

/// The steps of a key so many minutes from now.
fn steps(key: &Key, minutes: i64) -> Vec<String> {
    steps_of(key, (wire::now() / 60_000).saturating_add_signed(minutes))
}

fn steps_of(key: &Key, slot: u64) -> Vec<String> {
    let keys = Subkeys::derive(&key.invitation.secret, &key.invitation.server_id);
    let steps = rolling::steps(&keys, Slot(slot));
    steps.iter().map(Ports::to_string).collect()
}

fn walk_texts(site: &Site, from: std::net::IpAddr, steps: &[String]) {
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    walk(site, from, &steps);
}

/// Two keys none of whose sequences meet in the minutes that a test may see: of two that
/// have a port at the same step, one is left out.
fn two_keys(site: &Site, names: [&str; 2]) -> [Key; 2] {
    loop {
        let keys = names.map(|name| site.key(name, &["ssh"]));
        let minutes = keys
            .iter()
            .flat_map(|key| (-4..=4).map(|minutes| steps(key, minutes)));
        let all: Vec<Vec<String>> = minutes.collect();
        let meet = |a: &[String], b: &[String]| a.iter().zip(b).any(|(a, b)| a == b);
        let apart = (1..all.len()).all(|n| all[..n].iter().all(|other| !meet(other, &all[n])));
        if apart {
            return keys;
        }
        for name in names {
            site.ctl(&["key", "remove", name, "--force"]).ok();
        }
    }
}

/// Waits until a minute has enough left of it that a test's steps are all in it, and has
/// begun long enough ago that the kernel was told of the next.
fn early_in_a_minute() {
    let early = 3_000..41_000;
    wait::until_true("an early second", || {
        early.contains(&(wire::now() % 60_000))
    });
}

#[test]
fn each_keys_own_sequence_opens_in_its_minute_and_in_those_beside_it_and_no_other_does() {
    let site = site();
    let [first, second] = two_keys(&site, ["first", "second"]);
    assert!(first.invitation.rolling && first.invitation.sequence.is_none());
    let _daemon = site.daemon();
    early_in_a_minute();
    let good = [
        (&first, 0),
        (&second, 0),
        (&first, -1),
        (&first, 1),
        (&second, 1),
    ];
    for (number, (key, minutes)) in (1..).zip(good) {
        for from in both(number) {
            walk_texts(&site, from, &steps(key, minutes));
            wait::until_true("it opens", || is_open(&site, from));
        }
    }
    let (a, b) = (steps(&first, 0), steps(&second, 0));
    let mixed = [&a[..3], &b[3..]].concat();
    let minutes = [&a[..3], &steps(&first, 1)[3..]].concat();
    let other = [&a[..4], &[a[5].clone(), a[4].clone()]].concat();
    let bad = [
        mixed,
        minutes,
        other,
        steps(&first, 2),
        steps(&first, -2),
        steps(&first, 60),
    ];
    for (number, steps) in (100..).zip(&bad) {
        for from in both(number) {
            walk_texts(&site, from, steps);
        }
    }
    for from in both(1000) {
        walk_texts(&site, from, &a);
        wait::until_true("the control opens", || is_open(&site, from));
    }
    for (number, steps) in (100..).zip(&bad) {
        for from in both(number) {
            assert!(!is_open(&site, from), "{steps:?}");
        }
    }
}

#[test]
fn a_key_whose_policy_a_sequence_cannot_keep_has_none() {
    let site = site();
    let [signs, stays] = two_keys(&site, ["signs", "stays"]);
    let short = site.key("short", &["ssh"]);
    site.set(&site.key_file("signs"), "signed_address", "true");
    site.set(&site.key_file("short"), "max_open_for", "\"19s\"");
    let invited = |key: &str| -> Invitation {
        let line = site.ctl(&["key", "invite", key]).ok();
        line.parse().unwrap()
    };
    assert!(invited("stays").rolling);
    let said = site.ctl(&["check"]);
    for key in ["signs", "short"] {
        assert!(!invited(key).rolling);
        assert!(
            said.err
                .contains(&format!("key {key}: has no port sequence")),
            "{said}"
        );
    }
    assert!(!said.err.contains("key stays"), "{said}");
    let _daemon = site.daemon();
    early_in_a_minute();
    for (number, key) in (1..).zip([&signs, &short]) {
        for from in both(number) {
            walk_texts(&site, from, &steps(key, 0));
        }
    }
    for from in both(1000) {
        walk_texts(&site, from, &steps(&stays, 0));
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("seq_ssh").len(), 2);
    // Nor is a fixed one in what such a key is invited with.
    sequence::configure(&site, &sequence::STEPS, "");
    assert!(invited("stays").sequence.is_some());
    assert!(invited("signs").sequence.is_none());
    assert!(invited("short").sequence_service.is_none());
}

#[test]
fn a_removed_keys_holder_has_nothing_and_the_others_go_on() {
    let site = site();
    let [gone, stays] = two_keys(&site, ["gone", "stays"]);
    let _daemon = site.daemon();
    early_in_a_minute();
    let [begun, other] = both(1);
    walk_texts(&site, begun, &steps(&gone, 0)[..3]);
    walk_texts(&site, other, &steps(&stays, 0)[..3]);
    site.ctl(&["key", "remove", "gone", "--force"]).ok();
    walk_texts(&site, begun, &steps(&gone, 0)[3..]);
    // How far the other one was is kept.
    walk_texts(&site, other, &steps(&stays, 0)[3..]);
    wait::until_true("it opens", || is_open(&site, other));
    for (number, minutes) in (10..).zip([-1, 0, 1]) {
        for from in both(number) {
            walk_texts(&site, from, &steps(&gone, minutes));
        }
    }
    for from in both(1000) {
        walk_texts(&site, from, &steps(&stays, 0));
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("seq_ssh").len(), 3);
}

#[test]
fn a_scan_of_all_ports_that_may_be_steps_opens_nothing_in_whatever_order() {
    let site = site();
    let key = site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    early_in_a_minute();
    let mut chance = Chance::new("scan of rolling ports");
    let mut ports: Vec<u16> = rolling::PORTS.collect();
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
        walk_texts(&site, from, &steps(&key, 0));
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("seq_ssh").len(), 2);
    assert_eq!(site.guests("penalty_v").len(), 6);
}

#[test]
fn what_a_removed_keys_sequence_has_opened_is_closed() {
    let site = site();
    let [gone, stays] = two_keys(&site, ["gone", "stays"]);
    let mut daemon = site.daemon();
    early_in_a_minute();
    let open = |key: &Key, number| {
        for from in both(number) {
            walk_texts(&site, from, &steps(key, 0));
            wait::until_true("it opens", || is_open(&site, from));
        }
    };
    open(&gone, 1);
    open(&stays, 2);
    site.ctl(&["reload"]).ok();
    assert_eq!(site.guests("seq_ssh").len(), 4);
    site.ctl(&["key", "remove", "gone", "--force"]).ok();
    daemon.expect("closed what such have opened: grants=4");
    assert_eq!(site.guests("seq_ssh"), []);
    open(&stays, 3);
    site.ctl(&["key", "rotate", "stays", "--now"]).ok();
    daemon.expect("closed what such have opened: grants=2");
    assert_eq!(site.guests("seq_ssh"), []);
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
            site.ctl(&["reload"]).ok();
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
    let site = site_with("step_time = \"5s\"\nopen_for = \"5s\"");
    let key = site.key("laptop", &["ssh"]);
    let _daemon = site.daemon();
    early_in_a_minute();
    let all = steps(&key, 0);
    for from in both(1) {
        walk_texts(&site, from, &all);
        wait::until_true("it opens", || is_open(&site, from));
    }
    for set in ["step6_v4", "step6_v6"] {
        let list = ["nft", "list", "set", "inet", "oneknock", set];
        let is_over = || !site.lab.server.run(&list).ok().contains("expires");
        wait::until_true("the last step has ended", is_over);
    }
    for from in both(1) {
        walk_texts(&site, from, &all[1..]);
        assert!(!is_open(&site, from));
        walk_texts(&site, from, &all);
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
    walk_texts(&site, owner, &recorded);
    wait::until_true("it opens", || is_open(&site, owner));
    let new = steps_of(&key, slot + 2);
    let first: Ports = new[0].parse().unwrap();
    let list = ["nft", "list", "map", "inet", "oneknock", "port_1"];
    wait::until_true("the minute after the next is told of", || {
        let listing = site.lab.server.run(&list).ok();
        listing.contains(&format!("{} timeout", first.first()))
    });
    for from in [thief, thief6] {
        walk_texts(&site, from, &recorded);
    }
    for from in both(1000) {
        walk_texts(&site, from, &new);
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
        walk_texts(&site, from, &over);
    }
    for from in both(1000) {
        walk_texts(&site, from, &later);
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
    assert!(shown.contains("rolls every minute"), "{shown}");
    site.lab.net.nft(
        "table inet swallow {
            chain forward {
                type filter hook forward priority 0;
                meta l4proto udp drop
            }
        }",
    );
    let opened = site.oneknock(&["open", "home"]);
    assert!(opened.err.contains("trying the port sequence"), "{opened}");
    opened.ok();
    assert_eq!(site.guests("ssh"), []);
    for to in site.lab.server.addresses() {
        assert_eq!(site.probe(&site.lab.stranger, to), Probe::Silent);
    }
}

#[test]
fn what_a_rolling_sequence_cannot_be_is_a_mistake() {
    let site = site();
    site.ctl(&["check"]).ok();
    let said = site.ctl(&["rules", "--sequence-only"]).fails(2);
    assert!(said.contains("a rolling one needs the daemon"), "{said}");
    let good = fs::read_to_string(site.config()).unwrap();
    for (from, to, why) in [
        (
            "rolling = \"1m\"",
            "rolling = \"2m\"",
            "sequence.rolling: must be from 1m to 1m",
        ),
        (
            "rolling = \"1m\"",
            "rolling = \"1m\"\nports = [\"tcp/9\"]",
            "no ports of its own",
        ),
        (
            "rolling = \"1m\"",
            "rolling = \"1m\"\npublic = [\"tcp/1-65535\"]",
            "is guarded or public",
        ),
    ] {
        let (from, to) = (format!("\n{from}\n"), format!("\n{to}\n"));
        fs::write(site.config(), good.replace(&from, &to)).unwrap();
        let said = site.ctl(&["check"]).fails(1);
        assert!(said.contains(why), "{said}");
    }
    fs::write(site.config(), &good).unwrap();
    for number in 0..17 {
        site.key(&format!("key{number}"), &["ssh"]);
    }
    let said = site.ctl(&["check"]).fails(1);
    assert!(
        said.contains("at most 16 can have a rolling sequence"),
        "{said}"
    );
}
