//! A step that comes again, as TCP sends a SYN again, does no harm; nor does a walk that is
//! begun anew.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::capture::Capture;
use oneknock_tests::process::Running;
use oneknock_tests::sequence::{STEPS, both, configure, is_open, until_judged, walk};
use oneknock_tests::{Site, binaries, wait};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

/// A site whose steps take the shortest time that there is, which is shorter than the seven
/// seconds after which TCP sends a SYN for the fourth time.
fn site() -> (Site, Running) {
    site_with("5s")
}

fn site_with(step_time: &str) -> (Site, Running) {
    let site = Site::new(binaries!());
    let more = format!("step_time = \"{step_time}\"\nduration = \"{step_time}\"");
    configure(&site, &STEPS, &more);
    let daemon = site.daemon();
    (site, daemon)
}

fn until_ended(site: &Site, step: usize) {
    let set = format!("step{step}_v");
    wait::until_true("the step has ended", || site.guests(&set).is_empty());
}

#[test]
fn a_copy_of_a_step_that_has_ended_is_no_misstep_also_after_success() {
    let (site, _daemon) = site();
    for from in both(1) {
        walk(&site, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
    for from in both(2) {
        walk(&site, from, &STEPS[..3]);
    }
    until_ended(&site, 4);
    until_ended(&site, 3);
    let [_, b, c, d] = STEPS;
    for from in both(1) {
        assert!(!is_open(&site, from));
        walk(&site, from, &[b, c, d, d]);
    }
    for from in both(2) {
        walk(&site, from, &[c, b]);
    }
    until_judged(&site, 1000);
    assert_eq!(site.guests("penalty_v"), []);
    for from in both(1).into_iter().chain(both(2)) {
        // It is no step either.
        assert!(!is_open(&site, from));
        walk(&site, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
}

#[test]
fn syns_that_tcp_itself_sends_again_for_seconds_do_no_harm() {
    let steps = ["tcp/7000", "tcp/8000", "tcp/300", "tcp/9000"];
    let site = Site::new(binaries!());
    configure(&site, &steps, "step_time = \"5s\"\nduration = \"5s\"");
    let _daemon = site.daemon();
    let mut capture = Capture::start(&site.lab.server, "tcp");
    let to: IpAddr = site.lab.server.v4.into();
    let from = site.lab.laptop.v4.into();
    std::thread::scope(|scope| {
        for step in steps {
            let port: u16 = step[4..].parse().unwrap();
            // Nobody answers; TCP goes on asking, and gives up before its copy after 11 or 15 s.
            let patience = Duration::from_secs(9);
            let connect = move || TcpStream::connect_timeout(&(to, port).into(), patience);
            let laptop = &site.lab.laptop;
            scope.spawn(move || laptop.enter(connect).unwrap_err());
            capture.expect(&format!(".{port}: Flags [S]"));
        }
        wait::until_true("it opens", || is_open(&site, from));
    });
    for step in steps {
        let port = &step[4..];
        // The fourth, where there are not more, comes after seven seconds.
        assert!(capture.count(&format!(".{port}: Flags [S]")) >= 4);
    }
    assert_eq!(site.guests("penalty_v"), []);
    // All of a walk, coming again in order, is a walk: it may be open for that long still.
    wait::until_true("it is over", || !is_open(&site, from));
    walk(&site, from, &steps);
    wait::until_true("it opens", || is_open(&site, from));
}

#[test]
fn a_step_that_was_never_done_is_a_misstep_beside_copies_of_others() {
    let (site, _daemon) = site();
    for from in both(1) {
        walk(&site, from, &STEPS[..2]);
    }
    until_ended(&site, 2);
    for from in both(1) {
        walk(&site, from, &STEPS[2..3]);
    }
    wait::until_true("they are missteps", || {
        site.guests("penalty_v").len() == both(1).len()
    });
}

#[test]
fn a_first_step_that_comes_again_in_the_middle_of_a_slow_walk_does_no_harm() {
    let (site, _daemon) = site_with("12s");
    let [a, b, c, d] = STEPS;
    let passes = |set: &str| {
        wait::until_true("some time passes", || {
            let all = site.guests(set);
            all.iter().all(|guest| guest.expires <= 6)
        });
    };
    for from in both(1) {
        walk(&site, from, &[a]);
    }
    passes("step1_v");
    for from in both(1) {
        walk(&site, from, &[b]);
    }
    until_ended(&site, 1);
    for from in both(1) {
        walk(&site, from, &[a, b, a, c, a, b]);
        walk(&site, from, &[d]);
        wait::until_true("it opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("penalty_v"), []);
}

#[test]
fn whoever_begins_anew_when_his_first_step_has_ended_is_not_penalised() {
    let (site, _daemon) = site_with("12s");
    for from in both(1) {
        walk(&site, from, &STEPS[..1]);
    }
    wait::until_true("some time passes", || {
        let all = site.guests("step1_v");
        all.iter().all(|guest| guest.expires <= 6)
    });
    for from in both(1) {
        walk(&site, from, &STEPS[1..2]);
    }
    until_ended(&site, 1);
    assert_eq!(site.guests("step2_v").len(), 2);
    for from in both(1) {
        walk(&site, from, &STEPS);
        wait::until_true("it opens", || is_open(&site, from));
    }
    assert_eq!(site.guests("penalty_v"), []);
}
