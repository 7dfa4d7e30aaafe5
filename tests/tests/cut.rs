//! Ending the connections that a key's grants have let in.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::sequence;
use oneknock_tests::ssh::Sshd;
use oneknock_tests::wire::{self, until_open, until_silent};
use oneknock_tests::{Done, Host, Running, Site, binaries, wait};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

fn lives(session: &mut Running) {
    session.say("still there");
    session.expect("got still there");
}

/// The laptop in a session whose grant is over, and the stranger in one of its own key.
fn two_sessions(site: &Site) -> (Running, Running, Running) {
    let keys = [site.key("laptop", &["ssh"]), site.key("phone", &["ssh"])];
    let daemon = site.daemon();
    let server = site.lab.server.v4.into();
    let session = |host: &Host, key: &wire::Key| {
        key.knock(host, server, &wire::open(Some("ssh"), 600));
        until_open(host, server, 22);
        let echo = "echo in; while read line; do echo got $line; done";
        let ssh = ["ssh", "-4", "-F", site.sshd.config(), "server.lab", echo];
        let mut session = Running::start("session", host.command(&ssh));
        session.expect("in");
        session
    };
    let of_laptop = session(&site.lab.laptop, &keys[0]);
    site.ctl(&["revoke", "laptop"]).ok();
    (daemon, of_laptop, session(&site.lab.stranger, &keys[1]))
}

/// The command succeeds and says that it has ended connections; what is left of closed
/// ones counts too.
fn cuts(done: Done) {
    let said = done.err.clone();
    done.ok();
    let number = said
        .lines()
        .find_map(|l| l.strip_prefix("ended connections: "));
    assert!(number.is_some_and(|number| number != "0"), "{said}");
}

#[test]
fn cut_ends_the_sessions_that_a_key_let_in_and_no_other() {
    let ways: [&[&str]; 5] = [
        &["revoke", "laptop", "--disconnect"],
        &["revoke", "198.51.100.7", "--disconnect"],
        &["key", "remove", "laptop", "--force", "--disconnect"],
        &["key", "rotate", "laptop", "--now", "--disconnect"],
        &[
            "key",
            "retire",
            "laptop",
            "--generation",
            "1",
            "--force",
            "--disconnect",
        ],
    ];
    for (number, way) in ways.iter().enumerate() {
        let site = Site::new(binaries!());
        // Owned and watched by turns.
        let guard = ["\"exclusive\"", "\"monitored\""][number % 2];
        site.set(&site.config(), "guard", guard);
        let (mut daemon, mut of_laptop, mut of_stranger) = two_sessions(&site);
        lives(&mut of_laptop);
        cuts(site.ctl(way));
        daemon.expect("connections=");
        assert_ne!(of_laptop.end().code(), Some(0), "{way:?}");
        lives(&mut of_stranger);
    }
}

#[test]
fn cut_ends_sessions_over_ipv6_too() {
    for guard in ["\"exclusive\"", "\"monitored\""] {
        let site = Site::new(binaries!());
        site.set(&site.config(), "guard", guard);
        let keys = [site.key("laptop", &["ssh"]), site.key("phone", &["ssh"])];
        let _daemon = site.daemon();
        let server = site.lab.server.v6.into();
        let session = |host: &Host, key: &wire::Key| {
            key.knock(host, server, &wire::open(Some("ssh"), 600));
            until_open(host, server, 22);
            let echo = "echo in; while read line; do echo got $line; done";
            let ssh = ["ssh", "-6", "-F", site.sshd.config(), "server.lab", echo];
            let mut session = Running::start("session", host.command(&ssh));
            session.expect("in");
            session
        };
        let mut of_laptop = session(&site.lab.laptop, &keys[0]);
        let mut of_stranger = session(&site.lab.stranger, &keys[1]);
        cuts(site.ctl(&["key", "remove", "laptop", "--force", "--disconnect"]));
        assert_ne!(of_laptop.end().code(), Some(0));
        lives(&mut of_stranger);
    }
}

#[test]
fn cut_reaches_what_a_generation_let_in_that_is_gone_from_the_keys_file() {
    for is_alone in [false, true] {
        let site = Site::new(binaries!());
        let (mut daemon, mut of_laptop, mut of_stranger) = two_sessions(&site);
        site.ctl(&["key", "rotate", "laptop", "--now"]).ok();
        lives(&mut of_laptop);
        if is_alone {
            daemon.signal(Signal::SIGKILL);
            daemon.end();
        }
        cuts(site.ctl(&[
            "key",
            "retire",
            "laptop",
            "--generation",
            "1",
            "--disconnect",
        ]));
        assert_ne!(of_laptop.end().code(), Some(0));
        lives(&mut of_stranger);
    }
}

#[test]
fn cut_of_all_and_of_nobody() {
    let site = Site::new(binaries!());
    let (_daemon, mut of_laptop, mut of_stranger) = two_sessions(&site);
    // Older than any grant: nobody let it in.
    let none = site.ctl(&["revoke", "192.0.2.77", "--disconnect"]);
    assert!(none.err.contains("ended connections: 0"), "{none}");
    none.ok();
    site.ctl(&["key", "remove", "laptop", "--force"]).ok();
    lives(&mut of_laptop);
    // What the key let in is known although the key is gone.
    cuts(site.ctl(&["revoke", "laptop", "--disconnect"]));
    assert_ne!(of_laptop.end().code(), Some(0));
    lives(&mut of_stranger);
    cuts(site.ctl(&["revoke", "--all", "--disconnect"]));
    assert_ne!(of_stranger.end().code(), Some(0));
    until_silent(&site.lab.stranger, site.lab.server.v4.into(), 22);
}

#[test]
fn cut_ends_sessions_without_a_daemon_too() {
    let ways: [&[&str]; 3] = [
        &["revoke", "laptop", "--disconnect"],
        &["key", "remove", "laptop", "--force", "--disconnect"],
        &["key", "rotate", "laptop", "--now", "--disconnect"],
    ];
    for way in ways {
        let site = Site::new(binaries!());
        let (mut daemon, mut of_laptop, mut of_stranger) = two_sessions(&site);
        daemon.signal(Signal::SIGKILL);
        daemon.end();
        cuts(site.ctl(way));
        assert_ne!(of_laptop.end().code(), Some(0), "{way:?}");
        lives(&mut of_stranger);
    }
}

#[test]
fn cut_ends_a_forwarded_session() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "web=tcp/8080"]);
    let key = site.key("laptop", &["web"]);
    let other = site.key("phone", &["web"]);
    let behind = site.lab.behind();
    let sshd = Sshd::start(&site.lab, &behind);
    site.lab.server.nft(
        "table inet site {
            chain pre {
                type nat hook prerouting priority dstnat;
                tcp dport 8080 dnat ip to 198.18.0.2:22
            }
        }",
    );
    let _daemon = site.daemon();
    let server: IpAddr = site.lab.server.v4.into();
    let echo = "echo in; while read line; do echo got $line; done";
    let address = server.to_string();
    let mut ssh = vec!["ssh", "-F", sshd.config(), "-p", "8080"];
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ServerAliveInterval=1",
        "ServerAliveCountMax=2",
    ] {
        ssh.extend(["-o", option]);
    }
    ssh.extend([&address, echo]);
    let session = |host: &Host, key: &wire::Key| {
        key.knock(host, server, &wire::open(None, 600));
        until_open(host, server, 8080);
        let mut session = Running::start("forwarded", host.command(&ssh));
        session.expect("in");
        session
    };
    let mut of_laptop = session(&site.lab.laptop, &key);
    let mut of_stranger = session(&site.lab.stranger, &other);
    lives(&mut of_laptop);
    site.ctl(&["revoke", "laptop", "--disconnect"]).ok();
    lives(&mut of_stranger);
    // Who is admitted again comes in again, and what was cut stays so.
    lives(&mut session(&site.lab.laptop, &key));
    assert_ne!(of_laptop.end().code(), Some(0));
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
fn cut_ends_an_exchange_of_datagrams_until_the_next_grant_also_after_a_restart() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "echo=udp/7"]);
    let key = site.key("laptop", &["echo"]);
    let to = echo(&site);
    let laptop = &site.lab.laptop;
    let socket = laptop.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let patience = Some(Duration::from_millis(700));
    socket.set_read_timeout(patience).unwrap();
    // From one port, as some send for ever.
    let answers = || {
        socket.send_to(b"x", to).unwrap();
        socket.recv(&mut [0; 100]).is_ok()
    };
    let mut daemon = site.daemon();
    for is_killed in [false, true, false] {
        key.knock(laptop, to.ip(), &wire::open(None, 60));
        daemon.expect("key=laptop service=echo");
        wait::until_true("it is answered", answers);
        site.ctl(&["revoke", "laptop"]).ok();
        assert!(answers());
        site.ctl(&["revoke", "laptop", "--disconnect"]).ok();
        assert!(!answers());
        if is_killed {
            daemon.signal(Signal::SIGKILL);
            daemon.end();
            daemon = site.daemon();
            assert!(!answers());
        }
    }
}

#[test]
fn cut_ends_the_sessions_that_the_port_sequence_let_in() {
    let site = Site::new(binaries!());
    sequence::configure(
        &site,
        &sequence::STEPS,
        "step_time = \"5s\"\nduration = \"12s\"",
    );
    let _daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let walked = |to: IpAddr, family: &str| {
        let from = laptop.address_like(to);
        sequence::walk(&site, from, &sequence::STEPS);
        until_open(laptop, to, 22);
        site.session(&["ssh", family, "server.lab"])
    };
    // One whose grant is over.
    let mut over = walked(server.v4.into(), "-4");
    until_silent(laptop, server.v4.into(), 22);
    let mut admitted = walked(server.v6.into(), "-6");
    cuts(site.ctl(&["revoke", &laptop.v4.to_string(), "--disconnect"]));
    assert_ne!(over.end().code(), Some(0));
    lives(&mut admitted);
    cuts(site.ctl(&["revoke", "--all", "--disconnect"]));
    assert_ne!(admitted.end().code(), Some(0));
}

#[test]
fn cut_ends_walked_sessions_without_a_daemon_too() {
    let site = Site::new(binaries!());
    sequence::configure(
        &site,
        &sequence::STEPS,
        "step_time = \"5s\"\nduration = \"1m\"",
    );
    let mut daemon = site.daemon();
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let walked = |to: IpAddr, family: &str| {
        let from = laptop.address_like(to);
        sequence::walk(&site, from, &sequence::STEPS);
        until_open(laptop, to, 22);
        site.session(&["ssh", family, "server.lab"])
    };
    let mut first = walked(server.v4.into(), "-4");
    cuts(site.ctl(&["revoke", "--all", "--disconnect"]));
    assert_ne!(first.end().code(), Some(0));
    let mut second = walked(server.v6.into(), "-6");
    cuts(site.ctl(&["revoke", &laptop.v6.to_string(), "--disconnect"]));
    assert_ne!(second.end().code(), Some(0));
}
