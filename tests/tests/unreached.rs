//! A daemon that runs, and is not where the configuration says by now: no command takes it
//! for none, and none says that a key has ended, or that the guard is down.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::{Site, binaries, wait};
use std::fs;

const RUNS: &str = "a daemon runs, and does not answer";

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
fn a_daemon_with_another_state_or_socket_is_not_taken_for_none() {
    for name in ["state", "control"] {
        let site = Site::new(binaries!());
        site.laptop_key();
        if name == "state" {
            // The socket is in the state by default.
            let text = fs::read_to_string(site.config()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with("control ="));
            fs::write(site.config(), lines.collect::<Vec<_>>().join("\n")).unwrap();
        }
        let _daemon = site.daemon();
        let other = site.lab.dir().join("other");
        let (from, to) = (site.state(), other.to_str().unwrap());
        let copy = ["cp", "-a", from.to_str().unwrap(), to];
        site.lab.server.run(&copy).ok();
        let _ = fs::remove_file(other.join("control"));
        let elsewhere = match name {
            "control" => other.join("control"),
            _ => other,
        };
        site.set(&site.config(), name, &format!("{elsewhere:?}"));
        let calls: [&[&str]; 5] = [
            &["key", "rotate", "laptop", "--now"],
            &["key", "retire", "laptop", "--generation", "1", "--force"],
            &["key", "remove", "laptop", "--force"],
            &["revoke", "--all"],
            &["disable"],
        ];
        for call in calls {
            let done = site.ctl(call);
            assert!(done.err.contains(RUNS), "{name}: {done}");
            assert!(!done.err.contains("no daemon"), "{name}: {done}");
            done.fails(1);
        }
        // As was said.
        assert!(opens(&site), "{name}");
    }
}

#[test]
fn a_guard_that_a_daemon_watches_is_not_said_to_be_down_where_the_main_file_is_in_pieces() {
    let site = Site::new(binaries!());
    let socket = site.lab.dir().join("socket");
    fs::create_dir(&socket).unwrap();
    let socket = socket.join("control");
    site.set(&site.config(), "control", &format!("{socket:?}"));
    site.set(&site.config(), "guard", "\"watched\"");
    site.laptop_key();
    let mut daemon = site.daemon();
    let text = fs::read_to_string(site.config()).unwrap();
    // Its own line is in pieces, and what was in force is not to be found: neither is the
    // daemon, and it is not taken for none.
    let broken = text.replace("control = \"", "control = = \"");
    assert_ne!(text, broken);
    fs::write(site.config(), broken).unwrap();
    fs::remove_file(site.state().join("in-force.toml")).unwrap();
    for call in ["teardown", "disable"] {
        let done = site.ctl(&[call]);
        assert!(done.err.contains(RUNS), "{done}");
        done.fails(1);
        assert!(guard_is_up(&site));
    }
    // Another's is: it is found, and it is the daemon that takes the guard down.
    fs::write(site.config(), format!("{text}\nskew = = 3\n")).unwrap();
    let done = site.ctl(&["teardown"]);
    assert!(done.err.contains("the daemon has ended"), "{done}");
    done.ok();
    assert_eq!(daemon.end().code(), Some(0));
    wait::until_true("the guard is down", || !guard_is_up(&site));
}

#[test]
fn a_guard_that_is_put_back_is_not_said_to_be_down() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"watched\"");
    site.laptop_key();
    let _daemon = site.daemon();
    // Nothing is left by which it could be found: neither its socket nor its folder of keys.
    let keys = site.dir.join("keys");
    let old = site.lab.dir().join("old");
    fs::rename(&keys, &old).unwrap();
    let copy = ["cp", "-a", old.to_str().unwrap(), keys.to_str().unwrap()];
    site.lab.server.run(&copy).ok();
    fs::remove_file(site.state().join("control")).unwrap();
    for call in ["teardown", "disable"] {
        let done = site.ctl(&[call]);
        assert!(done.err.contains("the guard is up again"), "{done}");
        done.fails(1);
        wait::until_true("the guard is up", || guard_is_up(&site));
    }
}
