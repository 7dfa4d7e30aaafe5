//! Scans do not walk a sequence, and a set that is full lets nobody on.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::chance::Chance;
use oneknock_tests::host::Host;
use oneknock_tests::process::Running;
use oneknock_tests::sequence::{
    STEPS, both, configure, first_packet, is_open, send_all, somebody, until_judged, walk,
};
use oneknock_tests::wire::{Probe, probe};
use oneknock_tests::{Site, binaries, figure, wait};
use std::fs;
use std::net::IpAddr;

/// A site whose sequence opens for so long that no scan's success could be over before it
/// is looked for.
fn site(steps: &[&str]) -> (Site, Running) {
    let site = Site::new(binaries!());
    configure(&site, steps, "step_time = \"1m\"\nduration = \"5m\"");
    let daemon = site.daemon();
    (site, daemon)
}

/// Every port of both protocols, rising.
fn every_port() -> Vec<String> {
    let of = |transport| (1..=u16::MAX).map(move |port| format!("{transport}/{port}"));
    of("tcp").chain(of("udp")).collect()
}

#[test]
fn a_scan_of_all_ports_opens_nothing_in_whatever_order() {
    let (site, _daemon) = site(&STEPS);
    let mut chance = Chance::new("scan of all ports");
    let scan = |from: IpAddr, ports: &[String]| {
        let to = site.lab.server.address_like(from);
        let packets = ports.iter().map(|port| first_packet(&site, from, port));
        send_all(&site, to, packets);
    };
    let mut ports = every_port();
    for from in both(1) {
        scan(from, &ports);
    }
    ports.reverse();
    for from in both(2) {
        scan(from, &ports);
    }
    // Protocol by protocol, and the two in turns.
    for from in both(3) {
        chance.shuffle(&mut ports);
        scan(from, &ports);
    }
    until_judged(&site, 1000);
    for from in both(1).into_iter().chain(both(2)).chain(both(3)) {
        assert!(!is_open(&site, from), "{from}");
    }
    // Each of them was seen; of IPv6 its network.
    assert_eq!(site.guests("penalty_v").len(), 6);
}

#[test]
fn where_a_router_forwards_only_the_steps_no_scan_of_one_protocol_and_then_the_other_opens() {
    let steps = ["tcp/7000", "udp/8000", "udp/300", "tcp/9000"];
    let (site, _daemon) = site(&steps);
    let of = |transport: &str| -> Vec<&str> {
        let mut of = steps.to_vec();
        of.retain(|step| step.starts_with(transport));
        of.sort_by_key(|step| step[4..].parse::<u16>().unwrap());
        of
    };
    let reversed = |of: &[&'static str]| of.iter().rev().copied().collect::<Vec<_>>();
    let (tcp, udp) = (of("tcp"), of("udp"));
    let ways = |of: &[&'static str]| [of.to_vec(), reversed(of)];
    let mut number = 0;
    for tcp in ways(&tcp) {
        for udp in ways(&udp) {
            for scan in [[&tcp[..], &udp].concat(), [&udp[..], &tcp].concat()] {
                number += 1;
                for from in both(number) {
                    walk(&site, from, &scan);
                }
            }
        }
    }
    for from in both(1000) {
        walk(&site, from, &steps);
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("seq_ssh").len(), 2);
}

#[test]
fn a_scan_of_a_few_ports_with_the_steps_in_order_among_them_opens_nothing_however_slow() {
    let (site, _daemon) = site(&STEPS);
    let [a, b, c, d] = STEPS;
    let others = ["tcp/21", "udp/53", "tcp/80"];
    std::thread::scope(|scope| {
        for (number, pause) in (1..).zip([0, 10, 300, 2_000]) {
            let site = &site;
            scope.spawn(move || {
                for port in [others[0], a, others[1], b, others[2], c, d] {
                    for from in both(number) {
                        walk(site, from, &[port]);
                    }
                    // A pace, not a wait: nothing is expected of the time.
                    std::thread::sleep(std::time::Duration::from_millis(pause));
                }
            });
        }
    });
    until_judged(&site, 1000);
    for from in (1..5).flat_map(both) {
        assert!(!is_open(&site, from), "{from}");
    }
}

#[test]
fn nmaps_scans_open_nothing_and_see_only_silence_at_the_steps() {
    let steps = ["tcp/7000", "tcp/8000", "tcp/300", "tcp/9000"];
    let site = Site::new(binaries!());
    configure(&site, &steps, "step_time = \"1m\"\nduration = \"5m\"");
    // Of an owned guard nobody could take the penalties.
    site.set(&site.config(), "guard", "\"monitored\"");
    let _daemon = site.daemon();
    let some = "-p22,80-95,300,443,7000,8000,9000";
    let all = ["-p-", "--min-rate", "20000"];
    let syn = |more: &[&'static str]| [&["-sS"], more].concat();
    let scans = [
        syn(&all),
        syn(&[&all[..], &["-r"]].concat()),
        syn(&[&all[..], &["-6"]].concat()),
        syn(&[some]),
        syn(&[some, "-r", "--scan-delay", "300ms"]),
        syn(&[some, "-6"]),
        vec!["-sT", some],
        vec!["-sA", some],
        vec!["-sF", some],
        vec!["-sN", some],
        vec!["-sX", some],
    ];
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    for scan in scans {
        // Each begins as if nothing had been before it.
        for set in ["penalty_v4", "penalty_v6"] {
            server.nft(&format!("flush set inet oneknock {set}"));
        }
        let is_ipv6 = scan.contains(&"-6");
        let to = server.addresses()[usize::from(is_ipv6)].to_string();
        let always = ["nmap", "-n", "-Pn", "-T5", "--max-retries", "1"];
        let listing = laptop.run(&[&always[..], &scan, &[&to]].concat()).ok();
        if scan.contains(&some) {
            for step in steps {
                let line = format!("{}/tcp ", step.split_once('/').unwrap().1);
                let found = listing.lines().find(|l| l.starts_with(&line));
                assert!(found.is_some_and(|l| l.contains("filtered")), "{listing}");
            }
        }
        assert_eq!(site.guests("seq_ssh"), [], "{scan:?}");
        // The other kinds of scans begin no connection.
        if ["-sS", "-sT"].contains(&scan[0]) {
            assert_eq!(site.guests("penalty_v").len(), 1, "{scan:?}");
        }
    }
    for to in server.addresses() {
        assert_eq!(probe(laptop, to, 22), Probe::Silent);
    }
}

/// The figure of GUIDE.md: where a router forwards nothing but the sequence's ports, a
/// scan meets no port that would be a misstep by itself.
#[test]
fn the_chance_of_a_random_scan_of_the_steps_alone_is_one_in_the_number_of_orders() {
    const SCANS: u16 = 12_000;
    let (site, _daemon) = site(&STEPS);
    let mut chance = Chance::new("chance of a scan");
    let mut orders = Vec::new();
    for number in 1..=SCANS {
        // Silent ports are asked again, in another order.
        for _ in 0..2 {
            let mut steps = STEPS;
            chance.shuffle(&mut steps);
            orders.extend(steps.map(|step| (number, step)));
        }
    }
    let to = site.lab.server.v4.into();
    let packets = orders.iter().map(|(number, step)| {
        let from = somebody(*number, false);
        first_packet(&site, from, step)
    });
    send_all(&site, to, packets);
    until_judged(&site, SCANS + 1);
    let controls = 2;
    let opened = u16::try_from(site.guests("seq_ssh").len() - controls).unwrap();
    let expected = SCANS / 24;
    let one_in = f64::from(SCANS) / f64::from(opened);
    figure(format_args!(
        "a random scan of 4 steps alone: {opened} of {SCANS} opened, one in {one_in:.1}"
    ));
    assert!(opened.abs_diff(expected) < expected / 3, "{opened}");
}

#[test]
fn where_a_misstep_finds_no_room_nobody_of_that_family_gets_on() {
    let (site, _daemon) = site(&STEPS);
    let to = site.lab.server.v4.into();
    let all = (0..=u16::MAX).map(|number| somebody(number, false));
    let early = "198.51.100.77".parse().unwrap();
    walk(&site, early, &STEPS[..3]);
    send_all(
        &site,
        to,
        all.map(|from| first_packet(&site, from, "tcp/81")),
    );
    // One too many.
    let late = "198.51.100.78".parse().unwrap();
    walk(&site, late, &["tcp/82"]);
    walk(&site, late, &STEPS);
    walk(&site, early, &STEPS[3..]);
    let v6 = somebody(1, true);
    walk(&site, v6, &STEPS);
    wait::until_true("the other family goes on", || is_open(&site, v6));
    assert_eq!(site.guests("seq_ssh").len(), 1);
    let penalty_overflow =
        site.lab
            .server
            .run(&["nft", "list", "set", "inet", "oneknock", "penalty_overflow"]);
    assert!(penalty_overflow.ok().contains("ipv4"));
}

#[test]
fn where_the_set_of_the_admitted_is_full_nobody_else_is_admitted() {
    let (site, _daemon) = site(&STEPS);
    let to = site.lab.server.v4.into();
    let walkers = (1..=1_100).map(|number| somebody(number, false));
    let steps = walkers.flat_map(|from| STEPS.map(|step| (from, step)));
    let packets: Vec<_> = steps
        .map(|(from, step)| first_packet(&site, from, step))
        .collect();
    send_all(&site, to, packets.into_iter());
    let v6 = somebody(1, true);
    walk(&site, v6, &STEPS);
    wait::until_true("the other family goes on", || is_open(&site, v6));
    assert_eq!(site.guests("seq_ssh").len(), 1_024 + 1);
    assert!(!is_open(&site, somebody(1_099, false)));
}

#[test]
fn where_the_set_of_a_step_is_full_nobody_else_gets_on() {
    let (site, _daemon) = site(&STEPS);
    let to = site.lab.server.v4.into();
    let all = (1..=16_384).map(|number| somebody(number, false));
    let first = all.map(|from| first_packet(&site, from, STEPS[0]));
    send_all(&site, to, first);
    let late = "198.51.100.78".parse().unwrap();
    walk(&site, late, &STEPS);
    // Whoever was there before goes on, and so does the other family.
    for from in both(16_384) {
        walk(&site, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
    assert!(!is_open(&site, late));
}

#[test]
fn every_set_of_a_sequence_has_a_size() {
    let (site, _daemon) = site(&STEPS);
    let rules = site.ctl(&["debug", "rules", "--sequence-only"]).ok();
    site.lab.stranger.nft(&rules);
    let unsized_of = |host: &Host| -> Vec<String> {
        let listings = ["sets", "maps"].map(|kind| {
            let listing = host.run(&["nft", "-j", "list", kind]).ok();
            let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
            listing["nftables"].as_array().unwrap().clone()
        });
        let all = listings.concat().into_iter();
        let all = all.filter_map(|one| one.get("set").or(one.get("map")).cloned());
        let all: Vec<serde_json::Value> = all.collect();
        // What packets fill: steps, done ones, penalties and the admitted.
        let by_daemon = [
            "grace",
            "selectors",
            "gateway_",
            "blocked_",
            "ssh",
            "guard_",
        ];
        let is_filled = |set: &&serde_json::Value| {
            let name = set["name"].as_str().unwrap();
            !by_daemon.iter().any(|begin| name.starts_with(begin))
        };
        let filled: Vec<_> = all.iter().filter(is_filled).collect();
        assert!(filled.len() >= 3 * 2 + 3 * 2, "{all:?}");
        let unsized_ones = filled.iter().filter(|set| set["size"].as_u64().is_none());
        let names = unsized_ones.map(|set| set["name"].as_str().unwrap().into());
        names.collect()
    };
    assert_eq!(unsized_of(&site.lab.stranger), [""; 0]);
    let text = fs::read_to_string(site.config()).unwrap();
    let rolling = text.replace(&format!("ports = {STEPS:?}"), "rolling = true");
    assert_ne!(text, rolling);
    for text in [text, rolling] {
        fs::write(site.config(), text).unwrap();
        site.ctl(&["reload", "--yes"]).ok();
        assert_eq!(unsized_of(&site.lab.server), [""; 0]);
    }
}
