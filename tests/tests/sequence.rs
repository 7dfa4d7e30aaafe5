//! The port sequence in the kernel: who gets on, who does not, and that no process is
//! needed for it.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::capture::Capture;
use oneknock_tests::packets::{self, flags};
use oneknock_tests::sequence::{
    self, STEPS, both, configure, first_packet, is_open, until_judged, walk,
};
use oneknock_tests::wire::{self, Probe, banner, until_open, until_silent};
use oneknock_tests::{Site, binaries, wait};
use std::net::IpAddr;

/// A server whose guard is up, with the sequence.
fn site() -> (Site, oneknock_tests::process::Running) {
    let site = Site::new(binaries!());
    configure(
        &site,
        &STEPS,
        "ignored_ports = [\"tcp/443\", \"udp/5000-5010\"]",
    );
    let daemon = site.daemon();
    (site, daemon)
}

#[test]
fn the_right_order_opens_for_its_own_address_and_time_with_the_daemon_killed() {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "step_time = \"5s\"\nduration = \"5s\"");
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for to in site.lab.server.addresses() {
        let from = laptop.address_like(to);
        assert_eq!(site.probe(laptop, to), Probe::Silent);
        walk(&site, from, &STEPS);
        until_open(laptop, to, 22);
        assert_eq!(banner(laptop, to, 22), "SSH-2.0-");
        assert_eq!(site.probe(stranger, to), Probe::Silent);
        until_silent(laptop, to, 22);
        assert!(!is_open(&site, from));
    }
}

#[test]
fn a_stopped_daemon_is_not_needed_and_one_that_starts_again_keeps_how_far_somebody_is() {
    let (site, mut daemon) = site();
    let [v4, v6] = both(1);
    walk(&site, v4, &STEPS[..1]);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    walk(&site, v4, &STEPS[1..2]);
    walk(&site, v6, &STEPS);
    wait::until_true("it opens", || is_open(&site, v6));
    let _daemon = site.daemon();
    assert!(is_open(&site, v6));
    walk(&site, v4, &STEPS[2..]);
    wait::until_true("it opens", || is_open(&site, v4));
}

#[test]
fn another_order_a_step_left_out_or_a_wrong_port_in_between_does_not_open() {
    let (site, _daemon) = site();
    let [a, b, c, d] = STEPS;
    let wrong: &[&[&str]] = &[
        &[b, a, c, d],
        &[d, c, b, a],
        &[a, c, b, d],
        &[a, b, d, c],
        &[b, c, d],
        &[a, b, d],
        &[a, c, d],
        &[d],
        &["tcp/8000", a, b, c, d],
        &[a, "tcp/7001", b, c, d],
        &[a, b, "udp/300", c, d],
        &[a, b, c, "tcp/9000", d],
        &[a, b, c, "udp/7000", d],
        // Once more from the beginning, at once.
        &[a, b, d, a, b, c, d],
        &["udp/8001", a, b, c, d, a, b, c, d],
    ];
    for (number, steps) in (1..).zip(wrong) {
        for from in both(number) {
            walk(&site, from, steps);
        }
    }
    until_judged(&site, 1000);
    for (number, steps) in (1..).zip(wrong) {
        for from in both(number) {
            assert!(!is_open(&site, from), "{from}: {steps:?}");
        }
    }
}

#[test]
fn a_sequence_that_two_addresses_share_opens_for_neither() {
    let (site, _daemon) = site();
    for split in 1..STEPS.len() {
        let number = u16::try_from(split).unwrap();
        for (first, second) in both(number).into_iter().zip(both(100 + number)) {
            walk(&site, first, &STEPS[..split]);
            walk(&site, second, &STEPS[split..]);
        }
        // In turns.
        for (first, second) in both(200 + number).into_iter().zip(both(300 + number)) {
            for (at, step) in STEPS.iter().enumerate() {
                walk(&site, if at % 2 == 0 { first } else { second }, &[step]);
            }
        }
    }
    until_judged(&site, 1000);
    for number in (1..4).flat_map(|n| [n, 100 + n, 200 + n, 300 + n]) {
        for from in both(number) {
            assert!(!is_open(&site, from), "{from}");
        }
    }
}

#[test]
fn a_step_that_comes_again_does_no_harm_and_opens_nothing() {
    let (site, _daemon) = site();
    let [a, b, c, d] = STEPS;
    for from in both(1) {
        walk(&site, from, &[a, a, b, a, b, b, c, a, b, c]);
        walk(&site, from, &[d, d, c, b, a, d, a, b, c, d]);
        wait::until_true("it opens", || is_open(&site, from));
    }
    // What is only said again is no progress.
    for from in both(2) {
        walk(&site, from, &[a, a, a, a, b, b, a, b, c, a, b, c]);
    }
    // A whole walk before the first has run out does not harm one who is in.
    for from in both(1) {
        walk(&site, from, &STEPS);
    }
    until_judged(&site, 1000);
    for (in_, out) in both(1).into_iter().zip(both(2)) {
        assert!(is_open(&site, in_));
        assert!(!is_open(&site, out));
        walk(&site, out, &[d]);
        wait::until_true("it opens", || is_open(&site, out));
    }
}

#[test]
fn a_step_that_comes_too_late_is_a_misstep_and_its_penalty_ends() {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "step_time = \"5s\"\nduration = \"5s\"");
    let _daemon = site.daemon();
    for from in both(1) {
        walk(&site, from, &STEPS[..3]);
    }
    let gone = |set: &str| {
        let members = site.guests(set);
        members.is_empty()
    };
    wait::until_true("the third step ends", || gone("step3_v"));
    for from in both(1) {
        walk(&site, from, &STEPS[3..]);
        // Too late, and now it is one more misstep.
        walk(&site, from, &STEPS);
    }
    wait::until_true("the missteps are noted", || {
        site.guests("penalty_v").len() == 2
    });
    for from in both(1) {
        assert!(!is_open(&site, from));
    }
    wait::until_true("the penalty ends", || gone("penalty_v"));
    for from in both(1) {
        walk(&site, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
}

#[test]
fn a_misstep_never_touches_what_a_packet_has_opened() {
    let (site, mut daemon) = site();
    let key = site.laptop_key();
    daemon.signal(Signal::SIGHUP);
    daemon.expect("reloaded");
    for to in site.lab.server.addresses() {
        let from = site.lab.laptop.address_like(to);
        walk(&site, from, &["tcp/1", "udp/2", STEPS[2]]);
        key.knock(&site.lab.laptop, to, &wire::open(None, 600));
        daemon.expect("granted address=");
        walk(&site, from, &["tcp/3", STEPS[3], STEPS[0]]);
        until_open(&site.lab.laptop, to, 22);
        assert!(site.admits("ssh", from));
        assert!(!is_open(&site, from));
    }
    assert_eq!(site.guests("penalty_v").len(), 2);
}

#[test]
fn guarded_public_and_knock_ports_are_no_misstep() {
    let (site, _daemon) = site();
    let [a, b, c, d] = STEPS;
    let knock = format!("udp/{}", oneknock_tests::site::PORT);
    for from in both(1) {
        walk(
            &site,
            from,
            &["tcp/22", "tcp/443", a, "udp/5005", &knock, b, "tcp/22"],
        );
        walk(&site, from, &[c, "tcp/443", d, "tcp/443"]);
        wait::until_true("it opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("penalty_v"), []);
}

#[test]
fn no_packet_but_the_first_of_a_connection_to_an_own_address_is_a_step() {
    let (site, _daemon) = site();
    let tcp = ["tcp/7000", "tcp/8000", "tcp/300", "tcp/9000"];
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    configure(&site, &["tcp/7000", "tcp/8000", "tcp/300", "tcp/9000"], "");
    site.ctl(&["reload", "--yes"]).ok();
    let kinds = [
        0,
        flags::ACK,
        flags::FIN,
        flags::RST,
        flags::SYN | flags::ACK,
        flags::SYN | flags::FIN,
        flags::SYN | flags::RST,
        flags::FIN | flags::PSH | 0x20,
        flags::FIN | flags::ACK,
    ];
    for (number, kind) in (1..).zip(kinds) {
        for from in both(number) {
            let to = server.address_like(from);
            let all = tcp
                .iter()
                .map(|step| sequence::packet(from, to, step, kind));
            packets::send(laptop, to, &all.collect::<Vec<_>>());
        }
    }
    // With a header between, and to everybody on the link.
    let IpAddr::V6(from) = sequence::somebody(100, true) else {
        unreachable!()
    };
    let to = server.v6;
    for step in tcp {
        let whole = first_packet(&site, from.into(), step);
        let segment = &whole[40..];
        for extension in [
            packets::Extension::Destination,
            packets::Extension::HopByHop,
        ] {
            let packet = packets::ipv6(from, to, &[extension], packets::TCP, segment);
            packets::send(laptop, to.into(), &[packet]);
        }
    }
    let neighbour = site.lab.neighbour();
    for step in tcp {
        for (from, to) in [
            (neighbour.v4.into(), "192.0.2.255"),
            (neighbour.v6.into(), "ff02::1"),
        ] {
            let to: IpAddr = to.parse().unwrap();
            let packet = sequence::packet(from, to, step, flags::SYN);
            neighbour.enter(|| {
                let sender = packets::Sender::to(to);
                // Not every system sends such a packet; then nobody is let in either.
                let _ = sender.send(&packet);
            });
        }
    }
    for from in both(1000) {
        walk(&site, from, &tcp);
        wait::until_true("the control opens", || is_open(&site, from));
    }
    let all = site.guests("seq_ssh").len();
    assert_eq!(all, 2, "{:?}", site.guests("seq_ssh"));
}

#[test]
fn the_steps_stay_silent_and_other_ports_answer_as_before() {
    let (site, _daemon) = site();
    let stranger = &site.lab.stranger;
    let mut answers = Capture::start(stranger, "icmp or icmp6");
    for to in site.lab.server.addresses() {
        for port in [7000, 300] {
            assert_eq!(wire::probe(stranger, to, port), Probe::Silent);
        }
        assert_eq!(wire::probe(stranger, to, 7001), Probe::Refused);
        for port in [8000, 9000, 8001] {
            wire::send(stranger, (to, port).into(), b"x");
        }
        answers.expect("udp port 8001");
    }
    for step in ["udp port 8000", "udp port 9000"] {
        assert_eq!(answers.count(step), 0);
    }
}

#[test]
fn replies_to_the_servers_own_connections_are_no_misstep() {
    let (site, _daemon) = site();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let _sshd = oneknock_tests::ssh::Sshd::start(&site.lab, laptop);
    for to in laptop.addresses() {
        assert_eq!(banner(server, to, 22), "SSH-2.0-");
        // Nobody listens there: what comes back is an answer all the same.
        assert_eq!(wire::probe(server, to, 4444), Probe::Refused);
        wire::send(server, (to, 4445).into(), b"x");
        walk(&site, to, &STEPS);
        wait::until_true("it opens", || is_open(&site, to));
    }
    assert_eq!(site.guests("penalty_v"), []);
}

#[test]
fn a_reload_keeps_steps_penalties_and_grants_and_another_sequence_begins_anew() {
    let (site, _daemon) = site();
    let [a, b, c, d] = STEPS;
    for ((open, begun), bad) in both(1).into_iter().zip(both(2)).zip(both(3)) {
        walk(&site, open, &STEPS);
        walk(&site, begun, &[a, b]);
        walk(&site, bad, &["tcp/5"]);
        wait::until_true("it opens", || is_open(&site, open));
        site.ctl(&["reload", "--yes"]).ok();
        assert!(is_open(&site, open));
        walk(&site, begun, &[c, d]);
        walk(&site, bad, &STEPS);
        wait::until_true("it opens", || is_open(&site, begun));
        assert!(!is_open(&site, bad));
    }
    let others = both(4);
    for from in others {
        walk(&site, from, &[a, b, c]);
    }
    let other = ["tcp/7100", "udp/8100", "tcp/310", d];
    configure(&site, &other, "");
    site.ctl(&["reload", "--yes"]).ok();
    for from in others {
        walk(&site, from, &[d]);
    }
    for from in both(5) {
        walk(&site, from, &other);
        wait::until_true("it opens", || is_open(&site, from));
    }
    for from in others {
        assert!(!is_open(&site, from));
    }
}

#[test]
fn grants_names_what_the_sequence_opened_as_such_and_revoke_ends_it() {
    let (site, mut daemon) = site();
    for from in both(1).into_iter().chain(both(2)) {
        walk(&site, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
    let table = site.ctl(&["grants"]).ok();
    for from in both(1) {
        let line = table.lines().find(|line| line.contains(&from.to_string()));
        assert!(line.unwrap().starts_with("(port sequence) "), "{table}");
    }
    let json = site.ctl(&["grants", "--json"]).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["grants"].as_array().unwrap().len(), 0);
    let listed = json["sequence"].as_array().unwrap();
    assert_eq!(listed.len(), 4);
    for one in listed {
        assert_eq!(one["service"], "ssh");
        assert!(
            (1..=20).contains(&one["seconds"].as_u64().unwrap()),
            "{one}"
        );
    }
    let [first, second] = both(1);
    site.ctl(&["revoke", &first.to_string()]).ok();
    assert!(!is_open(&site, first));
    assert!(is_open(&site, second));
    site.ctl(&["revoke", "--all"]).ok();
    assert_eq!(site.guests("seq_ssh"), []);
    // Nobody else knows it then.
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let from = sequence::somebody(3, false);
    walk(&site, from, &STEPS);
    wait::until_true("it opens", || is_open(&site, from));
    let done = site.ctl(&["grants"]);
    assert!(done.out.contains("(port sequence)"), "{done}");
    assert!(done.out.contains(&from.to_string()), "{done}");
    assert!(done.fails(4).contains("oneknockd is not running"));
}

#[test]
fn each_further_misstep_and_each_packet_to_a_step_renews_the_penalty() {
    let (site, _daemon) = site();
    let left = || {
        let members = site.guests("penalty_v");
        members.into_iter().map(|g| g.expires).collect::<Vec<_>>()
    };
    for from in both(1) {
        walk(&site, from, &["tcp/7"]);
    }
    // Twice the grant's time, which is longer than a step's.
    wait::until_true("both have it", || left().len() == 2);
    assert!(left().iter().all(|seconds| (35..=40).contains(seconds)));
    for again in ["tcp/8", STEPS[0], STEPS[3]] {
        wait::until_true("some of it is over", || left().iter().all(|s| *s < 39));
        for from in both(1) {
            walk(&site, from, &[again]);
        }
        wait::until_true("it is renewed", || left().iter().all(|s| *s >= 39));
    }
    for from in both(1) {
        walk(&site, from, &STEPS);
    }
    until_judged(&site, 1000);
    for from in both(1) {
        assert!(!is_open(&site, from));
    }
}
