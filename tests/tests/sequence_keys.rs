//! Rolling sequences and the keys that they follow from: each has its own, as long as it may.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::invitation::Invitation;
use oneknock_tests::rolling::{self, early_in_a_minute, steps, two_keys};
use oneknock_tests::sequence::{self, both, is_open};
use oneknock_tests::wire::Key;
use oneknock_tests::{Site, binaries, wait};

/// A site whose sequence for ssh rolls.
fn site() -> Site {
    let site = Site::new(binaries!());
    rolling::configure(&site, "");
    site
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
            rolling::walk(&site, from, &steps(key, minutes));
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
            rolling::walk(&site, from, steps);
        }
    }
    for from in both(1000) {
        rolling::walk(&site, from, &a);
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
    site.set(&site.key_file("signs"), "require_signed_address", "true");
    site.set(&site.key_file("short"), "max_duration", "\"19s\"");
    let invited = |key: &str| -> Invitation {
        let line = site.ctl(&["key", "invite", key]).ok();
        line.parse().unwrap()
    };
    assert!(invited("stays").rolling);
    let said = site.ctl(&["check"]);
    for key in ["signs", "short"] {
        assert!(!invited(key).rolling);
        assert!(
            said.out
                .contains(&format!("key {key} has no port sequence")),
            "{said}"
        );
    }
    assert!(!said.out.contains("key stays"), "{said}");
    let _daemon = site.daemon();
    early_in_a_minute();
    for (number, key) in (1..).zip([&signs, &short]) {
        for from in both(number) {
            rolling::walk(&site, from, &steps(key, 0));
        }
    }
    for from in both(1000) {
        rolling::walk(&site, from, &steps(&stays, 0));
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
    rolling::walk(&site, begun, &steps(&gone, 0)[..3]);
    rolling::walk(&site, other, &steps(&stays, 0)[..3]);
    site.ctl(&["key", "remove", "gone", "--force"]).ok();
    rolling::walk(&site, begun, &steps(&gone, 0)[3..]);
    // How far the other one was is kept.
    rolling::walk(&site, other, &steps(&stays, 0)[3..]);
    wait::until_true("it opens", || is_open(&site, other));
    for (number, minutes) in (10..).zip([-1, 0, 1]) {
        for from in both(number) {
            rolling::walk(&site, from, &steps(&gone, minutes));
        }
    }
    for from in both(1000) {
        rolling::walk(&site, from, &steps(&stays, 0));
        wait::until_true("the control opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("seq_ssh").len(), 3);
}

#[test]
fn what_a_removed_keys_sequence_has_opened_is_closed() {
    let site = site();
    let [gone, stays] = two_keys(&site, ["gone", "stays"]);
    let mut daemon = site.daemon();
    early_in_a_minute();
    let open = |key: &Key, number| {
        for from in both(number) {
            rolling::walk(&site, from, &steps(key, 0));
            wait::until_true("it opens", || is_open(&site, from));
        }
    };
    open(&gone, 1);
    open(&stays, 2);
    site.ctl(&["reload", "--yes"]).ok();
    assert_eq!(site.guests("seq_ssh").len(), 4);
    site.ctl(&["key", "remove", "gone", "--force"]).ok();
    daemon.expect("revoked-sequence-grants grants=4");
    assert_eq!(site.guests("seq_ssh"), []);
    open(&stays, 3);
    site.ctl(&["key", "rotate", "stays", "--now"]).ok();
    daemon.expect("revoked-sequence-grants grants=2");
    assert_eq!(site.guests("seq_ssh"), []);
}

#[test]
fn what_a_key_has_opened_that_was_removed_while_no_daemon_ran_is_closed_at_its_start() {
    let site = site();
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    early_in_a_minute();
    for from in both(1) {
        rolling::walk(&site, from, &steps(&key, 0));
        wait::until_true("it opens", || is_open(&site, from));
    }
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    site.ctl(&["key", "remove", "laptop", "--force"]).ok();
    let _daemon = site.daemon();
    assert_eq!(site.guests("seq_ssh"), []);
    for from in both(2) {
        rolling::walk(&site, from, &steps(&key, 0));
    }
    wait::until_true("these are missteps", || site.guests("penalty_v").len() == 2);
    assert_eq!(site.guests("seq_ssh"), []);
}
