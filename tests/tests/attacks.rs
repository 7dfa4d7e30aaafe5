//! Ways in, and ways to keep the owner out, that were found by trying.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::clock::{HOUR, WallClock};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Probe, send, until_read, until_silent};
use oneknock_tests::{Running, Site, binaries, table, wait};
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn server(site: &Site) -> IpAddr {
    site.lab.server.v4.into()
}

/// A site with a live grant of the laptop's.
fn granted() -> (Site, wire::Key, Running) {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    key.knock(
        &site.lab.laptop,
        server(&site),
        &wire::open(Some("ssh"), 300),
    );
    daemon.expect("granted address=");
    (site, key, daemon)
}

#[test]
fn a_start_by_a_clock_that_is_ahead_forgets_nothing_without_a_floor() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let site = Site::new(binaries!());
        let key = site.key("laptop", &["ssh"]);
        let mut clock = WallClock::new(site.lab.dir());
        let mut daemon = site.daemon_by(&clock);
        let packet = key.knock(&site.lab.laptop, server(&site), &wire::open(Some("ssh"), 1));
        daemon.expect("granted address=");
        daemon.signal(Signal::SIGTERM);
        daemon.end();
        clock.jump(HOUR);
        let mut daemon = site.daemon_by(&clock);
        daemon.signal(signal);
        daemon.end();
        clock.jump(-HOUR);
        let mut daemon = site.daemon_by(&clock);
        send(&site.lab.stranger, (server(&site), PORT).into(), &packet);
        daemon.expect("oneknockd: ignored source=203.0.113.9");
        assert_eq!(daemon.count("granted"), 0);
    }
}

#[test]
fn a_daemon_that_cannot_start_leaves_the_door_shut() {
    type Harm = fn(&Site) -> Option<std::net::UdpSocket>;
    let harms: [(&str, Harm); 3] = [
        ("the port is taken", |site| {
            let taken = || std::net::UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
            Some(site.lab.server.enter(taken))
        }),
        ("the state is no folder", |site| {
            fs::remove_dir_all(site.dir.join("state")).unwrap();
            fs::write(site.dir.join("state"), "").unwrap();
            None
        }),
        ("lock is not a plain file", |site| {
            let lock = site.dir.join("state/lock");
            let _ = fs::remove_file(&lock);
            std::os::unix::fs::symlink("/dev/null", lock).unwrap();
            None
        }),
    ];
    for (what, harm) in harms {
        let site = Site::new(binaries!());
        site.key("laptop", &["ssh"]);
        let _kept = harm(&site);
        let mut daemon = site.daemon_unready();
        assert_ne!(daemon.end().code(), Some(0), "{what}");
        for to in site.lab.server.addresses() {
            assert_eq!(site.probe(&site.lab.stranger, to), Probe::Silent, "{what}");
        }
    }
}

#[test]
fn a_question_about_the_clock_that_nobody_answers_holds_nothing_up() {
    let site = Site::new(binaries!());
    site.key("laptop", &["ssh"]);
    fs::remove_file(site.dir.join("state/mark")).unwrap();
    program(
        &site.lab.dir().join("bin/timedatectl"),
        "#!/bin/sh\nexec sleep 30\n",
    );
    let mut daemon = site.daemon();
    until_silent(&site.lab.stranger, server(&site), 22);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().code(), Some(0));
}

#[test]
fn a_grant_of_a_key_that_was_renamed_is_closed_and_stays_so() {
    let (site, _key, mut daemon) = granted();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    fs::rename(site.key_file("laptop"), site.key_file("phone")).unwrap();
    let mut daemon = site.daemon();
    assert_eq!(site.guests("ssh"), []);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    let _daemon = site.daemon();
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn what_was_revoked_does_not_come_back_with_a_restart_and_a_flush() {
    let (site, _key, mut daemon) = granted();
    site.ctl(&["revoke", "laptop"]).ok();
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    let _daemon = site.daemon();
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn no_address_is_admitted_that_nobody_could_revoke() {
    let (site, key, mut daemon) = granted();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    // Nor by an element that somebody else has put there.
    let own = "add element inet oneknock ssh4 { 192.0.2.200 timeout 1h }";
    site.lab.server.run(&["nft", own]).ok();
    fs::remove_file(site.dir.join("state/mark")).unwrap();
    site.ctl(&["debug", "reset-state"]).ok();
    let daemon = site.daemon();
    let listed = site
        .lab
        .server
        .run(&["nft", "list", "set", "inet", "oneknock", "ssh4"]);
    assert!(!listed.ok().contains("elements"));
    drop((key, daemon));
}

#[test]
fn a_reload_that_fails_leaves_the_guard_owned() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let taken = || std::net::UdpSocket::bind("0.0.0.0:45999").unwrap();
    let _taken = site.lab.server.enter(taken);
    let mut daemon = site.daemon();
    site.set(&site.config(), "listen", "[\"0.0.0.0:45999\"]");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.expect("not-reloaded");
    assert!(line.contains("45999"), "{line}");
    let delete = ["nft", "delete", "table", "inet", "oneknock"];
    assert_ne!(site.lab.server.run(&delete).code, Some(0));
    until_silent(&site.lab.stranger, server(&site), 22);
}

#[test]
fn sessions_that_an_owned_guard_let_in_survive_the_change_to_a_watched_one() {
    let site = Site::new(binaries!());
    site.lab.server.nft(
        "table inet site {
            chain in {
                type filter hook input priority filter
                ct state established accept
            }
        }",
    );
    site.laptop_key();
    let mut daemon = site.daemon();
    let mut session = site.session(&["oneknock", "ssh", "home"]);
    site.oneknock(&["close", "home"]).ok();
    wait::until_true("no guest is left", || site.guests("ssh").is_empty());
    site.set(&site.config(), "guard", "\"monitored\"");
    daemon.signal(Signal::SIGHUP);
    daemon.expect("oneknockd: reloaded ");
    let delete = ["nft", "delete", "table", "inet", "oneknock"];
    site.lab.server.run(&delete).ok();
    daemon.expect("guard-repaired");
    session.say("still there");
    session.expect("got still there");
}

#[test]
fn a_table_put_to_sleep_behind_nfts_back_is_no_guard() {
    let site = Site::new(binaries!());
    site.laptop_key();
    let mut daemon = site.daemon();
    site.set(&site.config(), "guard", "\"monitored\"");
    daemon.signal(Signal::SIGHUP);
    daemon.expect("oneknockd: reloaded ");
    // What nft does not say of a persistent table: flags 5, persistent and dormant.
    let sleep = site.lab.server.enter(|| table::set_flags(5));
    assert_eq!(sleep, 0, "the kernel's answer");
    daemon.expect("guard-repaired");
    until_silent(&site.lab.stranger, server(&site), 22);
}

#[test]
fn packets_of_an_outsider_fill_no_memory_of_a_watching_daemon() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let before = daemon.memory();
    // Each makes an entry of connection tracking.
    site.lab.stranger.enter(|| {
        for _ in 0..20_000 {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            let _ = socket.send_to(b"x", (server(&site), PORT));
        }
    });
    assert_eq!(until_read(&site.lab.server, PORT), 0);
    key.knock(&site.lab.laptop, server(&site), &wire::open(Some("ssh"), 1));
    daemon.expect("granted address=");
    wait::until_true("the grant's end", || site.guests("ssh").is_empty());
    let reloads = daemon.count("reloaded");
    daemon.signal(Signal::SIGHUP);
    wait::until_true("a look at connections", || {
        daemon.count("reloaded") > reloads
    });
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
}

#[test]
fn a_saved_ruleset_brings_no_ended_grant_back() {
    let (site, _key, mut daemon) = {
        let site = Site::new(binaries!());
        site.set(&site.config(), "guard", "\"monitored\"");
        let key = site.key("laptop", &["ssh"]);
        let mut daemon = site.daemon();
        key.knock(
            &site.lab.laptop,
            server(&site),
            &wire::open(Some("ssh"), 300),
        );
        daemon.expect("granted address=");
        (site, key, daemon)
    };
    let saved = site.lab.server.run(&["nft", "list", "ruleset"]).ok();
    site.ctl(&["revoke", "laptop"]).ok();
    assert_eq!(site.guests("ssh"), []);
    site.lab.server.nft(&format!("flush ruleset\n{saved}"));
    daemon.expect("guard-repaired");
    wait::until_true("what came back is shut", || site.guests("ssh").is_empty());
}

#[test]
fn a_connection_made_in_a_gap_is_ended_also_where_the_guard_is_owned_after_it() {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    site.laptop_key();
    let mut daemon = site.daemon();
    site.set(&site.config(), "guard", "\"exclusive\"");
    daemon.signal(Signal::SIGHUP);
    daemon.expect("guard=monitored");
    daemon.signal(Signal::SIGSTOP);
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    let to = (server(&site), 22).into();
    let connect = || std::net::TcpStream::connect_timeout(&to, wait::DEADLINE).unwrap();
    let _stream = site.lab.stranger.enter(connect);
    daemon.signal(Signal::SIGCONT);
    daemon.expect("gap-connections-ended connections=");
    until_silent(&site.lab.stranger, server(&site), 22);
    let table = site
        .lab
        .server
        .run(&["nft", "list", "table", "inet", "oneknock"])
        .ok();
    assert!(table.contains("flags owner"), "{table}");
}

#[test]
fn a_start_that_failed_loses_no_grant() {
    let (site, _key, mut daemon) = granted();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    let taken = || std::net::UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
    let taken = site.lab.server.enter(taken);
    let mut failing = site.daemon_unready();
    assert_eq!(failing.end().code(), Some(1));
    drop(taken);
    let _daemon = site.daemon();
    assert!(site.admits("ssh", site.lab.laptop.v4.into()));
}
