//! A key's whole life: rotated under use, retired, removed.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_shared::knock::Timestamp;
use oneknock_tests::clock::{DAY, HOUR, SECOND, WallClock};
use oneknock_tests::wire::{self, Key, until_silent};
use oneknock_tests::{Running, Site, binaries, wait};
use serde_json::{Value, json};
use std::net::IpAddr;

fn v4(site: &Site) -> IpAddr {
    site.lab.server.v4.into()
}

fn key_of(line: String) -> Key {
    let invitation = line.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
    Key { line, invitation }
}

/// `oneknockctl key rotate` with more words; gives the new generation.
fn rotate(site: &Site, more: &[&str]) -> Key {
    key_of(
        site.ctl(&[&["key", "rotate", "laptop"], more].concat())
            .ok(),
    )
}

/// State and number of each generation.
fn states(site: &Site) -> Vec<(u64, String)> {
    let shown = site.ctl(&["key", "show", "laptop", "--json"]).json();
    let generations = shown["generations"].as_array().unwrap().iter();
    let state = |g: &Value| {
        let state = g["state"].as_str().unwrap();
        (g["number"].as_u64().unwrap(), state.to_owned())
    };
    generations.map(state).collect()
}

/// Knocks, and waits until the daemon has granted it.
fn opens(site: &Site, daemon: &mut Running, key: &Key) {
    key.knock(&site.lab.laptop, v4(site), &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=198.51.100.7 key=laptop");
}

#[test]
fn a_key_is_made_with_every_limit_and_shown_with_its_use() {
    let site = Site::new(binaries!());
    let options = [
        "--not-after",
        "90d",
        "--max-duration",
        "1h",
        "--require-signed-address",
        "--allow-other-addresses",
    ];
    let add = [&["key", "add", "laptop"][..], &options].concat();
    let key = key_of(site.ctl(&add).ok());
    let soon = ["key", "add", "later", "--not-before", "2d"];
    site.ctl(&soon).ok();
    assert_eq!(key.invitation.address.as_str(), "signed");
    let mut daemon = site.daemon();
    let listed = site.ctl(&["key", "list", "--json"]).json();
    let [laptop, later] = &listed["keys"].as_array().unwrap()[..] else {
        panic!("{listed}");
    };
    assert_eq!(laptop["max_duration"], 3600);
    assert_eq!(
        (
            &laptop["require_signed_address"],
            &laptop["allow_other_addresses"]
        ),
        (&json!(true), &json!(true))
    );
    let generation = &laptop["generations"][0];
    assert_eq!(generation["state"], "active");
    assert!(generation["until"].is_string() && generation["made"].is_string());
    assert_eq!(generation["used"], Value::Null);
    assert_eq!(later["generations"][0]["state"], "not-yet-valid");
    let mut knock = wire::open(Some("ssh"), 7200);
    knock.address = Some(site.lab.laptop.v4.into());
    key.knock(&site.lab.laptop, v4(&site), &knock);
    daemon.expect("granted address=198.51.100.7 key=laptop service=ssh seconds=3600");
    let check = |site: &Site| {
        let shown = site.ctl(&["key", "show", "laptop", "--json"]).json();
        assert_eq!(shown["generations"][0]["used_from"], "198.51.100.7");
        assert!(shown["generations"][0]["used"].is_string());
    };
    check(&site);
    let table = site.ctl(&["key", "list"]).ok();
    for part in ["198.51.100.7", "never", "not valid before", "active until"] {
        assert!(table.contains(part), "{table}");
    }
    // Also while no daemon runs.
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.end();
    check(&site);
    let past = ["key", "add", "past", "--not-after", "2020-01-01T00:00:00Z"];
    let err = site.ctl(&past).fails(2);
    assert!(err.contains("--not-after must be later"), "{err}");
}

#[test]
fn both_generations_open_through_the_overlap_and_the_old_one_is_refused_after() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    let mut clock = WallClock::new(site.lab.dir());
    let mut daemon = site.daemon_by(&clock);
    opens(&site, &mut daemon, &old);
    let done = site.ctl(&["key", "rotate", "laptop"]);
    assert!(done.err.contains("the daemon has reloaded it"), "{done}");
    let new = key_of(done.ok());
    assert_eq!(
        (new.invitation.generation, new.line.lines().count()),
        (2, 1)
    );
    assert_eq!(
        states(&site),
        [(1, "retiring".into()), (2, "active".into())]
    );
    let knock = |key: &Key, clock: &WallClock| {
        let mut knock = wire::open(Some("ssh"), 0);
        knock.timestamp = Timestamp(clock.now());
        key.knock(&site.lab.laptop, v4(&site), &knock);
    };
    for day in 1..7 {
        clock.set(day * DAY);
        knock(&old, &clock);
        daemon.expect("granted address=198.51.100.7 key=laptop");
    }
    clock.set(7 * DAY + SECOND * 60);
    knock(&old, &clock);
    daemon.expect("key=laptop service=ssh reason=expired");
    knock(&new, &clock);
    daemon.expect("granted address=198.51.100.7 key=laptop");
}

#[test]
fn the_overlap_is_as_long_as_was_said() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    let done = site.ctl(&["key", "rotate", "laptop", "--overlap", "2h"]);
    let shown = site.ctl(&["key", "show", "laptop", "--json"]).json();
    let date = |generation: usize, name: &str| {
        let text = shown["generations"][generation][name].as_str().unwrap();
        humantime::parse_rfc3339(text).unwrap()
    };
    let overlap = date(0, "until").duration_since(date(1, "made")).unwrap();
    assert_eq!(overlap.as_secs(), 2 * 3600);
    let until = shown["generations"][0]["until"].as_str().unwrap();
    let said = format!("generation 1 works until {until} at most");
    assert!(done.err.contains(&said), "{done}");
    for bad in ["0s", "367d", "7"] {
        let err = site.ctl(&["key", "rotate", "laptop", "--overlap", bad]);
        err.fails(2);
    }
}

#[test]
fn the_first_use_of_the_new_one_ends_the_old_one_after_its_grace() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "rotation_grace", "\"2h\"");
    let old = site.key("laptop", &["ssh"]);
    let mut clock = WallClock::new(site.lab.dir());
    let mut daemon = site.daemon_by(&clock);
    opens(&site, &mut daemon, &old);
    let new = rotate(&site, &[]);
    opens(&site, &mut daemon, &new);
    let line = daemon.expect("retiring key=laptop generation=1 until=");
    assert!(line.ends_with("newer=2"), "{line}");
    let shown = site.ctl(&["key", "show", "laptop"]).ok();
    let until = line
        .split_whitespace()
        .find_map(|w| w.strip_prefix("until="));
    let want = format!("generation 1: retiring until {}", until.unwrap());
    assert!(shown.contains(&want), "{shown}");
    opens(&site, &mut daemon, &old);
    // Nothing of it is in the key's file, and a daemon that starts anew knows it.
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.end();
    clock.set(3 * HOUR);
    let mut daemon = site.daemon_by(&clock);
    let mut knock = wire::open(Some("ssh"), 0);
    knock.timestamp = Timestamp(clock.now());
    old.knock(&site.lab.laptop, v4(&site), &knock);
    daemon.expect("key=laptop service=ssh reason=expired");
    new.knock(&site.lab.laptop, v4(&site), &knock);
    daemon.expect("granted address=198.51.100.7 key=laptop");
}

#[test]
fn a_second_rotation_drops_what_nobody_used() {
    let site = Site::new(binaries!());
    let first = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    opens(&site, &mut daemon, &first);
    let lost = rotate(&site, &[]);
    let third = rotate(&site, &[]);
    assert_eq!(
        states(&site),
        [(1, "retiring".into()), (3, "active".into())]
    );
    let before = daemon.count("granted");
    lost.knock(&site.lab.laptop, v4(&site), &wire::open(Some("ssh"), 0));
    opens(&site, &mut daemon, &first);
    assert_eq!(daemon.count("granted"), before + 1);
    opens(&site, &mut daemon, &third);
}

#[test]
fn a_third_generation_beside_two_in_use_is_refused() {
    let site = Site::new(binaries!());
    let first = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let second = rotate(&site, &[]);
    opens(&site, &mut daemon, &second);
    let knock = wire::open(Some("ssh"), 600);
    first.knock(&site.lab.stranger, v4(&site), &knock);
    daemon.expect("granted address=203.0.113.9 key=laptop");
    let err = site.ctl(&["key", "rotate", "laptop"]).fails(5);
    for part in ["two generations that are in use", "--force", "key retire"] {
        assert!(err.contains(part), "{err}");
    }
    let both = [(1, "retiring".into()), (2, "active".into())];
    assert_eq!(states(&site), both);
    let third = rotate(&site, &["--force"]);
    assert_eq!(
        states(&site),
        [(2, "retiring".into()), (3, "active".into())]
    );
    // What the dropped one has opened is closed, and it opens nothing.
    assert!(!site.admits("ssh", site.lab.stranger.v4.into()));
    let before = daemon.count("granted");
    first.knock(&site.lab.stranger, v4(&site), &knock);
    opens(&site, &mut daemon, &second);
    opens(&site, &mut daemon, &third);
    assert_eq!(daemon.count("granted"), before + 2);
}

#[test]
fn a_rotation_that_is_retired_unused_leaves_the_key_as_it_was() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    opens(&site, &mut daemon, &old);
    rotate(&site, &[]);
    let done = site.ctl(&["key", "retire", "laptop", "--generation", "2"]);
    assert!(
        done.err.contains("generation 1 goes on as before"),
        "{done}"
    );
    done.ok();
    assert_eq!(states(&site), [(1, "active".into()), (2, "expired".into())]);
    // What is in force is what is given out.
    let again = key_of(site.ctl(&["key", "invite", "laptop"]).ok());
    assert_eq!(again.invitation.generation, 1);
    let all = ["key", "retire", "laptop", "--generation", "1", "--force"];
    site.ctl(&all).ok();
    let err = site.ctl(&["key", "invite", "laptop"]).fails(2);
    assert!(
        err.contains("has ended") && err.contains("hint: make a new secret"),
        "{err}"
    );
}

#[test]
fn to_retire_a_newest_that_was_used_says_that_the_one_before_ends_too() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    opens(&site, &mut daemon, &old);
    let new = rotate(&site, &[]);
    opens(&site, &mut daemon, &new);
    let done = site.ctl(&["key", "retire", "laptop", "--generation", "2"]);
    let said = "at most, and no newer one is left";
    assert!(done.err.contains(said), "{done}");
    assert!(!done.err.contains("goes on"), "{done}");
    done.ok();
    assert_eq!(states(&site), [(1, "active".into()), (2, "expired".into())]);
}

#[test]
fn a_leaked_key_is_worthless_at_once_and_what_it_opened_is_closed() {
    let site = Site::new(binaries!());
    let leaked = site.key("laptop", &["ssh"]);
    let other = site.key("phone", &["ssh"]);
    let mut daemon = site.daemon();
    opens(&site, &mut daemon, &leaked);
    let knock = wire::open(Some("ssh"), 600);
    leaked.knock(&site.lab.stranger, v4(&site), &knock);
    daemon.expect("granted address=203.0.113.9");
    other.knock(&site.lab.laptop, v4(&site), &knock);
    daemon.expect("granted address=198.51.100.7 key=phone");
    let done = site.ctl(&["key", "rotate", "laptop", "--now"]);
    let said = "until it has imported that invitation, the client does not get in";
    assert!(done.err.contains(said), "{done}");
    let new = key_of(done.ok());
    let guests = site.guests("ssh");
    assert_eq!(guests.len(), 1, "{guests:?}");
    assert_eq!(guests[0].comment, "phone");
    until_silent(&site.lab.stranger, v4(&site), 22);
    leaked.knock(&site.lab.stranger, v4(&site), &knock);
    opens(&site, &mut daemon, &new);
    assert!(!site.admits("ssh", site.lab.stranger.v4.into()));
    assert_eq!(states(&site), [(2, "active".into())]);
}

#[test]
fn to_retire_closes_what_that_generation_opened_and_locks_nobody_out() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let retire = ["key", "retire", "laptop"];
    old.knock(&site.lab.stranger, v4(&site), &wire::open(Some("ssh"), 600));
    daemon.expect("granted address=203.0.113.9");
    let new = rotate(&site, &[]);
    let err = site.ctl(&retire).fails(5);
    assert!(err.contains("in use") && err.contains("--force"), "{err}");
    opens(&site, &mut daemon, &new);
    let err = site.ctl(&[&retire[..], &["--generation", "3"]].concat());
    assert!(err.fails(2).contains("no generation 3"));
    site.ctl(&[&retire[..], &["--generation", "1"]].concat())
        .ok();
    let guests = site.guests("ssh");
    assert_eq!(guests.len(), 1, "{guests:?}");
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
    assert_eq!(states(&site), [(1, "expired".into()), (2, "active".into())]);
    old.knock(&site.lab.stranger, v4(&site), &wire::open(Some("ssh"), 600));
    daemon.expect("key=laptop service=ssh reason=expired");
    // Again is no mistake.
    let again = site.ctl(&retire);
    assert!(again.err.contains("nothing to do"), "{again}");
    again.ok();
    let err = site.ctl(&[&retire[..], &["--generation", "2"]].concat());
    assert!(err.fails(5).contains("in use"));
    let force = ["--generation", "2", "--force"];
    site.ctl(&[&retire[..], &force].concat()).ok();
    assert_eq!(site.guests("ssh"), []);
    // A key that has ended says what it wants.
    let err = site.ctl(&["key", "rotate", "laptop"]).fails(2);
    assert!(err.contains("--not-after"), "{err}");
    let new = rotate(&site, &["--not-after", "never"]);
    opens(&site, &mut daemon, &new);
}

#[test]
fn a_key_rotated_without_a_daemon_is_as_it_should_be_at_the_next_start() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    old.knock(&site.lab.laptop, v4(&site), &wire::open(Some("ssh"), 600));
    daemon.expect("granted address=198.51.100.7");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.end();
    let new = rotate(&site, &[]);
    let retire = ["key", "retire", "laptop", "--generation", "1", "--force"];
    site.ctl(&retire).ok();
    let mut daemon = site.daemon();
    assert_eq!(site.guests("ssh"), []);
    opens(&site, &mut daemon, &new);
}

#[test]
fn no_knock_fails_while_a_key_is_rotated_under_use() {
    let site = Site::new(binaries!());
    let old = site.key("laptop", &["ssh"]);
    site.set(&site.key_file("laptop"), "knocks_per_minute", "100000");
    let mut daemon = site.daemon();
    opens(&site, &mut daemon, &old);
    let (knocks, new) = wait::meanwhile(
        |end| {
            let mut knocks = 0;
            while !end.load(std::sync::atomic::Ordering::Relaxed) {
                old.knock(&site.lab.laptop, v4(&site), &wire::open(Some("ssh"), 0));
                knocks += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            knocks
        },
        || {
            let mut new = rotate(&site, &[]);
            for _ in 0..5 {
                new = rotate(&site, &[]);
            }
            new.knock(&site.lab.laptop, v4(&site), &wire::open(Some("ssh"), 0));
            site.ctl(&["key", "show", "laptop"]).ok();
            new
        },
    );
    let accepted = || site.ctl(&["status", "--json"]).json()["counters"]["accepted"].as_u64();
    let want = knocks + 2;
    wait::until_true("every knock is accepted", || accepted() == Some(want));
    assert_eq!(daemon.count("retiring key=laptop generation=1"), 1);
    opens(&site, &mut daemon, &new);
}
