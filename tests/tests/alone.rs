//! What root ends while no daemon runs.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::sequence::{STEPS, configure, is_open, somebody, walk};
use oneknock_tests::wire;
use oneknock_tests::{Running, Site, binaries, wait};
use std::fs;
use std::net::IpAddr;

fn server(site: &Site) -> IpAddr {
    site.lab.server.v4.into()
}

fn kill(mut daemon: Running) {
    daemon.signal(Signal::SIGKILL);
    daemon.end();
}

#[test]
fn without_a_daemon_what_a_key_has_opened_is_closed_and_stays_so() {
    let calls: [&[&str]; 6] = [
        &["key", "rotate", "laptop", "--now"],
        &["key", "remove", "laptop", "--force"],
        &["key", "retire", "laptop", "--generation", "1", "--force"],
        &["revoke", "laptop"],
        &["revoke", "203.0.113.9"],
        &["revoke", "--all"],
    ];
    for (number, call) in calls.iter().enumerate() {
        let site = Site::new(binaries!());
        // Owned and watched by turns.
        let guard = ["\"exclusive\"", "\"monitored\""][number % 2];
        site.set(&site.config(), "guard", guard);
        let keys = ["laptop", "phone"].map(|name| site.key(name, &["ssh"]));
        let mut daemon = site.daemon();
        let [laptop, stranger] = [&site.lab.laptop, &site.lab.stranger];
        // The laptop's address is admitted by both keys, and named after the first.
        let knock = wire::open(Some("ssh"), 300);
        keys[1].knock(laptop, server(&site), &knock);
        daemon.expect("key=phone");
        keys[0].opens(&mut daemon, laptop, server(&site));
        keys[0].opens(&mut daemon, stranger, server(&site));
        kill(daemon);
        // The kernel lists them still.
        let listed = site.ctl(&["grants"]);
        for part in ["laptop ", "198.51.100.7", "203.0.113.9"] {
            assert!(listed.out.contains(part), "{listed}");
        }
        listed.fails(4);
        let done = site.ctl(call);
        assert!(done.err.contains("oneknockd is not running"), "{done}");
        assert!(done.err.contains("revoked grants: "), "{done}");
        done.ok();
        let guests = || {
            let guests = site.guests("ssh").into_iter();
            let mut names: Vec<String> = guests.map(|guest| guest.comment).collect();
            names.sort();
            names
        };
        let left: &[&str] = match call {
            ["revoke", "--all"] => &[],
            ["revoke", "203.0.113.9"] => &["laptop"],
            _ => &["phone"],
        };
        assert_eq!(guests(), left, "{call:?}");
        // A start does not open again what the state had.
        let _daemon = site.daemon();
        assert_eq!(guests(), left, "{call:?}");
    }
}

#[test]
fn without_a_daemon_and_without_a_state_the_kernels_word_counts() {
    let site = Site::new(binaries!());
    let keys = ["laptop", "phone"].map(|name| site.key(name, &["ssh"]));
    let mut daemon = site.daemon();
    let [laptop, stranger] = [&site.lab.laptop, &site.lab.stranger];
    keys[1].opens(&mut daemon, laptop, server(&site));
    keys[0].opens(&mut daemon, stranger, server(&site));
    kill(daemon);
    fs::remove_dir_all(site.state()).unwrap();
    let done = site.ctl(&["key", "rotate", "laptop", "--now"]);
    assert!(done.err.contains("revoked grants: 1"), "{done}");
    assert!(done.err.contains("the state cannot be read"), "{done}");
    done.ok();
    let guests = site.guests("ssh");
    assert_eq!(guests.len(), 1, "{guests:?}");
    assert_eq!(guests[0].comment, "phone");
}

#[test]
fn without_a_daemon_root_alone_revokes_also_what_the_sequence_opened() {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "");
    kill(site.daemon());
    let from = somebody(1, false);
    walk(&site, from, &STEPS);
    wait::until_true("it opens", || is_open(&site, from));
    let done = site.ctl(&["revoke", &from.to_string()]);
    assert!(done.err.contains("revoked grants: 1"), "{done}");
    done.ok();
    assert!(!is_open(&site, from));
    let err = site.ctl(&["revoke", "nobody"]).fails(2);
    assert!(err.contains("there is no key nobody"), "{err}");
    assert!(err.contains("key list"), "{err}");
    let dir = site.dir.to_str().unwrap();
    let bounded = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
    ];
    let call = ["oneknockctl", "--config", dir, "revoke", "--all"];
    let done = site.lab.server.run(&[&bounded[..], &call].concat());
    assert!(done.err.contains("only root can do that"), "{done}");
    done.fails(1);
}

#[test]
fn without_a_daemon_another_servers_guard_is_not_touched() {
    let site = Site::new(binaries!());
    configure(&site, &STEPS, "");
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    key.opens(&mut daemon, &site.lab.laptop, server(&site));
    kill(daemon);
    let walked = somebody(1, false);
    walk(&site, walked, &STEPS);
    wait::until_true("it opens", || is_open(&site, walked));
    // The same keys and services, and another server's name for itself.
    let other = site.dir.with_extension("other");
    let [from, to] = [&site.dir, &other].map(|dir| dir.to_str().unwrap());
    site.lab.server.run(&["cp", "-a", from, to]).ok();
    let text = fs::read_to_string(other.join("oneknockd.toml")).unwrap();
    let id = text.lines().find(|line| line.starts_with("server_id"));
    let text = text.replace(id.unwrap(), "server_id = \"AAAAAAAAAAAAAAAAAAAAAA==\"");
    fs::write(other.join("oneknockd.toml"), text.replace(from, to)).unwrap();
    for call in [
        &["revoke", "--all", "--disconnect"][..],
        &["revoke", "laptop"],
    ] {
        let ctl = [&["oneknockctl", "--config", to], call].concat();
        let done = site.lab.server.run(&ctl);
        assert!(done.err.contains("another configuration"), "{done}");
        done.fails(1);
        assert!(site.admits("ssh", site.lab.laptop.v4.into()));
        assert!(is_open(&site, walked));
    }
}
