//! A daemon that runs, and does not answer: no command takes it for none, and none says that
//! a key has ended, or that the guard is down.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::control::socket;
use oneknock_tests::{Site, binaries, wait};
use std::fs;

const RUNS: &str = "oneknockd runs, and does not answer";

/// Whether the laptop's key opens.
fn opens(site: &Site) -> bool {
    let open = ["oneknock", "open", "home"];
    site.lab.laptop.run(&open).code == Some(0)
}

fn guard_is_up(site: &Site) -> bool {
    let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
    tables.contains("inet oneknock")
}

#[test]
fn a_daemon_without_its_socket_is_not_taken_for_none() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let _daemon = site.daemon();
    fs::remove_file(socket(&site)).unwrap();
    let calls: [&[&str]; 5] = [
        &["key", "rotate", "laptop", "--now"],
        &["key", "retire", "laptop", "--generation", "1", "--force"],
        &["key", "remove", "laptop", "--force"],
        &["revoke", "--all"],
        &["disable"],
    ];
    for call in calls {
        let done = site.ctl(call);
        assert!(done.err.contains(RUNS), "{done}");
        assert!(!done.err.contains("no daemon"), "{done}");
        done.fails(1);
    }
    // As was said.
    assert!(opens(&site));
}

#[test]
fn a_daemon_is_found_where_the_main_file_is_invalid() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    site.laptop_key();
    let mut daemon = site.daemon();
    let text = fs::read_to_string(site.config()).unwrap();
    let kept = site.state().join("last-good.toml");
    fs::write(site.config(), &text[..text.len() / 2]).unwrap();
    fs::remove_file(&kept).unwrap();
    let done = site.ctl(&["disable", "--until-reboot"]);
    assert!(done.err.contains("stopped oneknockd"), "{done}");
    done.ok();
    assert_eq!(daemon.end().code(), Some(0));
    wait::until_true("the guard is down", || !guard_is_up(&site));
}

#[test]
fn a_guard_that_is_put_back_is_not_said_to_be_down() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    site.laptop_key();
    let _daemon = site.daemon();
    // Nothing is left by which it could be found: neither its socket nor its folder of keys.
    let keys = site.dir.join("keys");
    let old = site.lab.dir().join("old");
    fs::rename(&keys, &old).unwrap();
    let copy = ["cp", "-a", old.to_str().unwrap(), keys.to_str().unwrap()];
    site.lab.server.run(&copy).ok();
    fs::remove_file(socket(&site)).unwrap();
    fs::remove_file(socket(&site).with_extension("lock")).unwrap();
    for call in [&["disable", "--until-reboot"][..], &["disable"]] {
        let done = site.ctl(call);
        assert!(done.err.contains("the guard is installed again"), "{done}");
        done.fails(1);
        wait::until_true("the guard is up", || guard_is_up(&site));
    }
}
