//! The sequence of a guard that other programs can change.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::sequence::{STEPS, both, configure, is_open, walk};
use oneknock_tests::wire::until_open;
use oneknock_tests::{Site, binaries, wait};

#[test]
fn a_session_that_the_sequence_let_in_outlives_a_gap_of_a_watched_guard() {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "step_time = \"5s\"\nduration = \"5s\"");
    site.set(&site.config(), "guard", "\"monitored\"");
    let key = site.key("phone", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    // The journal knows who had a grant of a packet since boot, and these sessions have none.
    key.opens(&mut daemon, &site.lab.stranger, server.v4.into());
    let [v4, v6] = laptop.addresses();
    walk(&site, v4, &STEPS);
    until_open(laptop, server.v4.into(), 22);
    let mut over = site.session(&["ssh", "-4", "server.lab"]);
    wait::until_true("the grant is over", || !is_open(&site, v4));
    walk(&site, v6, &STEPS);
    until_open(laptop, server.v6.into(), 22);
    let mut admitted = site.session(&["ssh", "-6", "server.lab"]);
    // What the daemon has seen of both.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    server.nft("flush ruleset");
    daemon.expect("guard-repaired");
    // The worker answers it when it has looked at the connections of the gap.
    site.ctl(&["reload"]).ok();
    assert_eq!(daemon.count("gap-connections-ended"), 0);
    for session in [&mut over, &mut admitted] {
        session.say("still there");
        session.expect("got still there");
    }
}

#[test]
fn what_other_programs_do_to_the_sequence_of_a_watched_guard_is_put_right() {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "");
    site.set(&site.config(), "guard", "\"monitored\"");
    let mut daemon = site.daemon();
    let harms = [
        "flush chain inet oneknock sequence",
        "flush chain inet oneknock sequence-penalize",
        "flush chain inet oneknock sequence-step-2",
        "add rule inet oneknock sequence accept",
        "flush table inet oneknock",
        "delete table inet oneknock",
        // What cannot be made right is made anew.
        "delete table inet oneknock; add table inet oneknock; add chain inet oneknock sequence",
        "delete table inet oneknock; add table inet oneknock; \
         add set inet oneknock penalty_v4 { type inet_service; }",
    ];
    for (number, harm) in (1..).zip(harms) {
        site.lab.server.run(&["nft", harm]).ok();
        daemon.expect("guard-repaired");
        for (good, bad) in both(number).into_iter().zip(both(100 + number)) {
            walk(&site, bad, &[STEPS[0], "tcp/7"]);
            walk(&site, bad, &STEPS[1..]);
            walk(&site, good, &STEPS);
            wait::until_true(harm, || is_open(&site, good));
            assert!(!is_open(&site, bad), "{harm}");
        }
    }
}
