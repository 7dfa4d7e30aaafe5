//! Scans do not walk a sequence, and a set that is full lets nobody on.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::chance::Chance;
use oneknock_tests::process::Running;
use oneknock_tests::sequence::{
    STEPS, both, configure, first_packet, is_open, send_all, somebody, until_judged, walk,
};
use oneknock_tests::wire::{Probe, probe};
use oneknock_tests::{Site, binaries, figure, wait};
use std::net::IpAddr;

/// A site whose sequence opens for so long that no scan's success could be over before it
/// is looked for.
fn site(steps: &[&str]) -> (Site, Running) {
    let site = Site::new(binaries!());
    configure(&site, steps, "step_time = \"1m\"\nopen_for = \"5m\"");
    let daemon = site.daemon();
    (site, daemon)
}

fn shuffle<T>(list: &mut [T], chance: &mut Chance) {
    for at in (1..list.len()).rev() {
        let other = chance.below(u64::try_from(at).unwrap() + 1);
        list.swap(at, usize::try_from(other).unwrap());
    }
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
    scan(somebody(1, false), &ports);
    ports.reverse();
    scan(somebody(2, false), &ports);
    // Protocol by protocol, and the two in turns.
    for from in [somebody(3, false), somebody(3, true)] {
        shuffle(&mut ports, &mut chance);
        scan(from, &ports);
    }
    until_judged(&site, 1000);
    for from in both(1).into_iter().chain(both(2)).chain(both(3)) {
        assert!(!is_open(&site, from), "{from}");
    }
    // Each of them was seen; of IPv6 its network.
    assert_eq!(site.guests("penalty_v").len(), 4);
}

#[test]
fn a_scan_of_a_few_ports_with_the_steps_in_order_among_them_opens_nothing_however_slow() {
    let (site, _daemon) = site(&STEPS);
    let [a, b, c, d] = STEPS;
    let others = ["tcp/21", "udp/53", "tcp/80"];
    for (number, pause) in (1..).zip([0, 10, 300]) {
        for from in both(number) {
            for port in [others[0], a, others[1], b, others[2], c, d] {
                walk(&site, from, &[port]);
                // A pace, not a wait: nothing is expected of the time.
                std::thread::sleep(std::time::Duration::from_millis(pause));
            }
        }
    }
    until_judged(&site, 1000);
    for from in (1..4).flat_map(both) {
        assert!(!is_open(&site, from), "{from}");
    }
}

#[test]
fn nmaps_scans_open_nothing_and_see_only_silence_at_the_steps() {
    let (site, _daemon) = site(&["tcp/7000", "tcp/8000", "tcp/300", "tcp/9000"]);
    let some = "-p22,80,300,443,7000,8000,9000";
    let scans: [&[&str]; 8] = [
        &["-sS", "-p-", "--min-rate", "20000"],
        &["-sS", "-p-", "-r", "--min-rate", "20000"],
        &["-sT", some],
        &["-sA", some],
        &["-sF", some],
        &["-sN", some],
        &["-sX", some],
        &["-sS", "-6", some],
    ];
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let addresses = [server.v4.to_string(), server.v6.to_string()];
    for scan in scans {
        let to = &addresses[usize::from(scan.contains(&"-6"))];
        let always = ["nmap", "-n", "-Pn", "-T5", "--max-retries", "1"];
        let listing = laptop.run(&[&always[..], scan, &[to]].concat()).ok();
        if scan.contains(&"-p-") {
            for port in ["300", "7000", "8000", "9000"] {
                let line = format!("{port}/tcp ");
                let found = listing.lines().find(|l| l.starts_with(&line));
                assert!(found.is_some_and(|l| l.contains("filtered")), "{listing}");
            }
        }
    }
    assert_eq!(site.guests("seq_ssh"), []);
    assert_eq!(site.guests("penalty_v").len(), 2);
    for to in server.addresses() {
        assert_eq!(probe(laptop, to, 22), Probe::Silent);
    }
}

/// The figure of README.md: where a router forwards nothing but the sequence's ports, a
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
            shuffle(&mut steps, &mut chance);
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
    let jammed = site
        .lab
        .server
        .run(&["nft", "list", "set", "inet", "oneknock", "jammed"]);
    assert!(jammed.ok().contains("ipv4"));
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
