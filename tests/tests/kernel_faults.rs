//! Writes to the kernel that fail: what the daemon says is open is open then, and nothing else.
//!
//! strace makes single calls of the daemon's fail, as a kernel without memory does.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::site::PORT;
use oneknock_tests::wire;
use oneknock_tests::{Running, Site, binaries, wait};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Has those of the daemon's writes to its sockets fail that `when` selects, from now on:
/// strace's own words, all of them where it is empty. Answers to who asks are such writes too.
fn fail(site: &Site, daemon: &Running, when: &str) -> Running {
    let pid = daemon.pid().to_string();
    let inject = format!("inject=sendto:error=ENOBUFS{when}");
    let strace = [
        "strace",
        "-f",
        "-p",
        &pid,
        "-e",
        "trace=sendto",
        "-e",
        &inject,
    ];
    let mut strace = Running::start("strace", site.lab.server.command(&strace));
    strace.expect("attached");
    strace
}

/// From now on none fails.
fn succeed(mut strace: Running) {
    strace.signal(Signal::SIGINT);
    strace.end();
}

fn grants(site: &Site) -> u64 {
    site.ctl(&["status", "--json"]).json()["grants"]
        .as_u64()
        .unwrap()
}

#[test]
fn a_write_that_fails_is_said_and_made_when_it_can_be() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, IpAddr::from(site.lab.server.v4));
    let admitted = || site.admits("ssh", laptop.v4.into());
    let faults = fail(&site, &daemon, "");
    key.knock(laptop, server, &wire::open(Some("ssh"), 600));
    daemon.expect("kernel-not-synced");
    // It is tried again and again, and said once.
    wait::until_true("it is tried again", || faults.count("INJECTED") >= 8);
    assert_eq!(daemon.count("kernel-not-synced"), 1);
    assert!(!admitted());
    succeed(faults);
    wait::until_true("who was granted is admitted", admitted);
    assert_eq!(grants(&site), 1);
    let faults = fail(&site, &daemon, "");
    // Its answer is such a write too.
    site.ctl(&["revoke", "--all"]).fails(1);
    assert!(admitted());
    succeed(faults);
    wait::until_true("who has no grant is not admitted", || !admitted());
    assert_eq!(grants(&site), 0);
    // What failed for a while has changed nothing in what is told of the grant: one row.
    let log = site.ctl(&["log"]).ok();
    let rows: Vec<&str> = log.lines().filter(|row| row.contains("laptop")).collect();
    assert!(rows.len() == 1 && rows[0].contains("revoked"), "{log}");
}

#[test]
fn of_many_that_are_revoked_none_stays_open_whichever_write_fails() {
    const MANY: usize = 600;
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let file = site.key_file("laptop");
    site.set(&file, "allow_other_addresses", "true");
    site.set(&file, "max_grants", "10000");
    site.set(&file, "knocks_per_minute", "10000");
    let daemon = site.daemon();
    for failing in 1..=4 {
        let before = daemon.count("granted ");
        for number in 0..MANY {
            let [a, b] = u16::try_from(number).unwrap().to_be_bytes();
            let mut knock = wire::open(Some("ssh"), 600);
            knock.address = Some(Ipv4Addr::new(203, 0, a, b).into());
            let to = (site.lab.server.v4, PORT).into();
            wire::send(&site.lab.laptop, to, &key.seal(&knock));
        }
        wait::until_true("all are granted", || {
            daemon.count("granted ") == before + MANY
        });
        assert_eq!(site.guests("ssh").len(), MANY);
        let faults = fail(&site, &daemon, &format!(":when={failing}"));
        let done = site.ctl(&["revoke", "--all"]);
        let open = site.guests("ssh").len();
        // Another write of the daemon's may have come between, and made good what failed.
        assert!(done.code == Some(1) || open == 0, "{open} open: {done}");
        assert_eq!(grants(&site), 0);
        succeed(faults);
        wait::until_true("nobody is admitted", || site.guests("ssh").is_empty());
    }
}

/// A service of datagrams that sends each one back.
fn echo(site: &Site) -> SocketAddr {
    let server = &site.lab.server;
    let echo = server.enter(|| UdpSocket::bind("0.0.0.0:7").unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            let _ = echo.send_to(&bytes[..length], from);
        }
    });
    SocketAddr::new(server.v4.into(), 7)
}

#[test]
fn whichever_write_of_a_reload_fails_the_guard_is_the_one_that_is_said() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "echo=udp/7"]);
    let key = site.key("laptop", &["echo"]);
    let daemon = site.daemon();
    // A connection that is blocked: the guard has to have it again after each install.
    let to = echo(&site);
    let socket = site
        .lab
        .laptop
        .enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    key.knock(&site.lab.laptop, to.ip(), &wire::open(None, 600));
    wait::until_true("it is granted", || daemon.count("granted ") > 0);
    socket.send_to(b"x", to).unwrap();
    socket.recv(&mut [0; 100]).unwrap();
    site.ctl(&["revoke", "laptop", "--disconnect"]).ok();
    let blocked = || {
        let list = ["nft", "list", "set", "inet", "oneknock", "blocked_v4"];
        site.lab.server.run(&list).ok().contains("elements")
    };
    assert!(blocked());

    let with_ssh = fs::read_to_string(site.config()).unwrap();
    let at = with_ssh.find("[[service]]\nname = \"ssh\"").unwrap();
    let length = with_ssh[at + 1..].find("[[service]]").unwrap() + 1;
    let without_ssh = [&with_ssh[..at], &with_ssh[at + length..]].concat();
    let is_guarded = || {
        let table = ["nft", "list", "table", "inet", "oneknock"];
        site.lab.server.run(&table).ok().contains("set ssh4 {")
    };
    // Whether it was reloaded, as the log has it.
    let reload = |text: &str, faults: Option<&Running>| {
        let count = || ["oneknockd: reloaded ", "not-reloaded"].map(|line| daemon.count(line));
        let before = count();
        fs::write(site.config(), text).unwrap();
        daemon.signal(Signal::SIGHUP);
        // A signal reaches the loop by a write of one byte, which may be the one that fails.
        let is_lost = |line: &&String| line.contains("INJECTED") && line.contains("\"\\1\", 1");
        let mut sent = 1;
        wait::until_true("it was reloaded or not", || {
            let lines = faults.map(Running::lines).unwrap_or_default();
            if lines.iter().filter(is_lost).count() == sent {
                sent += 1;
                daemon.signal(Signal::SIGHUP);
            }
            count() != before
        });
        count()[0] > before[0]
    };
    let mut refused = 0;
    for failing in 1..=20 {
        let faults = fail(&site, &daemon, &format!(":when={failing}"));
        let is_reloaded = reload(&without_ssh, Some(&faults));
        succeed(faults);
        refused += usize::from(!is_reloaded);
        let what = format!("write {failing} has failed, reloaded: {is_reloaded}");
        wait::until_true(&what, || is_guarded() != is_reloaded);
        wait::until_true(&format!("blocked: {what}"), blocked);
        assert!(reload(&with_ssh, None), "{what}");
        assert!(is_guarded(), "{what}");
    }
    assert!(refused > 0, "no write of a reload's has failed");
}
