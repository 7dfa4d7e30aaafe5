//! What other programs do to the guard: to an owned one nothing, and a watched one is
//! put right.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::host::Host;
use oneknock_tests::process::Running;
use oneknock_tests::ssh::Sshd;
use oneknock_tests::wire::{self, Probe, until_open, until_silent};
use oneknock_tests::{Site, binaries, wait};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// What another program may do. The daemon's own word for it stands beside it.
const HARMS: [(&str, &str); 12] = [
    ("flush ruleset", "the table is gone"),
    ("delete table inet oneknock", "the table is gone"),
    ("flush table inet oneknock", "the rules of chain"),
    (
        "flush chain inet oneknock guard",
        "the rules of chain guard",
    ),
    (
        "flush chain inet oneknock service-ssh",
        "the rules of chain service-ssh",
    ),
    (
        "flush chain inet oneknock guard; flush chain inet oneknock guard-input; \
         delete chain inet oneknock guard",
        "chain guard is gone",
    ),
    (
        "flush chain inet oneknock service-ssh; delete set inet oneknock ssh4; \
         delete set inet oneknock ssh6",
        "set ssh4 is gone",
    ),
    (
        "flush chain inet oneknock service-ssh; delete set inet oneknock ssh4; \
         add set inet oneknock ssh4 { type ipv6_addr; }",
        "the rules of chain service-ssh",
    ),
    (
        "insert rule inet oneknock guard accept",
        "the rules of chain guard",
    ),
    (
        "insert rule inet oneknock service-ssh tcp dport 22 accept",
        "the rules of chain service-ssh",
    ),
    (
        "add table inet oneknock { flags dormant; }",
        "replaced or added",
    ),
    (
        "flush chain inet oneknock guard; delete chain inet oneknock guard; \
         add chain inet oneknock guard { type filter hook prerouting priority 100; }",
        "the rules of chain guard",
    ),
];

fn watched() -> Site {
    let site = Site::new(binaries!());
    site.set(&site.config(), "guard", "\"monitored\"");
    site
}

/// A site where the laptop is admitted for some minutes by both families.
fn admitted(site: &Site) -> Running {
    site.laptop_key();
    let daemon = site.daemon();
    site.oneknock(&["open", "home", "--for", "5m"]).ok();
    wait::until_true("both addresses are guests", || {
        site.guests("ssh").len() == 2
    });
    daemon
}

/// The stranger is shut out, the laptop in, with no more time than before.
fn is_as_before(site: &Site) {
    for to in site.lab.server.addresses() {
        until_silent(&site.lab.stranger, to, 22);
        until_open(&site.lab.laptop, to, 22);
    }
    let guests = site.guests("ssh");
    assert_eq!(guests.len(), 2, "{guests:?}");
    let fits = |time: u64| (200..=300).contains(&time);
    assert!(
        guests
            .iter()
            .all(|g| fits(g.expires) && g.comment == "laptop"),
        "{guests:?}"
    );
}

#[test]
fn what_other_programs_do_to_an_owned_guard_fails_or_passes_it_by() {
    let site = Site::new(binaries!());
    let mut daemon = admitted(&site);
    let before = site
        .lab
        .server
        .run(&["nft", "list", "table", "inet", "oneknock"])
        .ok();
    assert!(before.contains("flags owner"), "{before}");
    for (harm, _) in HARMS {
        let done = site.lab.server.run(&["nft", harm]);
        // A flush takes what it can, and says nothing of what it cannot.
        assert!(done.code != Some(0) || harm == "flush ruleset", "{done}");
        for to in site.lab.server.addresses() {
            assert_eq!(site.probe(&site.lab.stranger, to), Probe::Silent, "{harm}");
        }
    }
    is_as_before(&site);
    assert_eq!(daemon.count("guard-repaired"), 0);
    assert!(daemon.is_alive());
}

#[test]
fn a_watched_guard_is_put_right_whatever_another_program_does_to_it() {
    let site = watched();
    let mut daemon = admitted(&site);
    for (harm, word) in HARMS {
        site.lab.server.run(&["nft", harm]).ok();
        let line = daemon.expect("guard-repaired");
        assert!(line.contains(word), "{harm}: {line}");
        println!("{harm}: {line}");
        is_as_before(&site);
    }
    assert_eq!(daemon.count("guard-repaired"), HARMS.len());
}

#[test]
fn a_reload_of_the_machines_own_rules_leaves_the_guard_up() {
    for mode in ["exclusive", "monitored"] {
        let site = Site::new(binaries!());
        site.set(&site.config(), "guard", &format!("\"{mode}\""));
        let mut daemon = admitted(&site);
        let rules = site.lab.server.home.join("nftables.conf");
        let text = "flush ruleset\ntable inet filter {\nchain input {\n\
                    type filter hook input priority filter\nct state established accept\n}\n}\n";
        fs::write(&rules, text).unwrap();
        for _ in 0..3 {
            site.lab
                .server
                .run(&["nft", "-f", rules.to_str().unwrap()])
                .ok();
            if mode == "monitored" {
                daemon.expect("guard-repaired");
            }
            is_as_before(&site);
        }
        let tables = site.lab.server.run(&["nft", "list", "tables"]).ok();
        assert!(tables.contains("inet filter"), "{tables}");
    }
}

#[test]
fn sighup_changes_an_owned_guard_and_it_stays_owned() {
    let site = Site::new(binaries!());
    let mut daemon = admitted(&site);
    for ports in ["[\"tcp/22\", \"tcp/2222\"]", "[\"tcp/22\"]"] {
        site.set_service("ports", ports);
        daemon.signal(Signal::SIGHUP);
        let line = daemon.expect("oneknockd: reloaded ");
        assert!(line.contains("guard=exclusive"), "{line}");
        site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
        is_as_before(&site);
        let shut = ports.contains("2222");
        let other = wire::probe(&site.lab.stranger, site.lab.server.v4.into(), 2222);
        assert_eq!(other == Probe::Silent, shut, "{ports}");
    }
}

#[test]
fn a_guard_changes_from_watched_to_owned_when_it_was_taken_down_between() {
    let site = watched();
    let mut daemon = admitted(&site);
    site.set(&site.config(), "guard", "\"exclusive\"");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.expect("oneknockd: reloaded ");
    assert!(line.contains("guard=monitored"), "{line}");
    // Whoever has configured it so is told that it is not.
    daemon.expect("exclusive-pending");
    is_as_before(&site);
    let is_said = || {
        let status = site.ctl(&["status"]).ok();
        let doctor = site.ctl(&["doctor"]).out;
        let what = "the guard is monitored, and exclusive as configured once it is made again";
        assert_eq!(doctor.contains(what), status.contains(what), "{doctor}");
        doctor.contains(what)
    };
    assert!(is_said());
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let mut daemon = site.daemon();
    daemon.expect("exclusive-pending");
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    site.ctl(&["disable", "--until-reboot"]).ok();
    let mut daemon = site.daemon();
    assert!(!is_said());
    is_as_before(&site);
    site.set(&site.config(), "guard", "\"monitored\"");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.expect("oneknockd: reloaded ");
    assert!(line.contains("guard=monitored"), "{line}");
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    daemon.expect("guard-repaired");
    is_as_before(&site);
}

#[test]
fn a_dead_daemons_guard_stays_up_and_its_next_run_owns_it_again() {
    let site = Site::new(binaries!());
    let mut daemon = admitted(&site);
    daemon.signal(Signal::SIGKILL);
    daemon.end();
    is_as_before(&site);
    let _daemon = site.daemon();
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    is_as_before(&site);
}

#[test]
fn changes_of_other_programs_to_their_own_tables_are_passed_by() {
    let site = watched();
    let mut daemon = admitted(&site);
    for i in 0..200 {
        let lines = [
            format!("add table ip other{i}"),
            format!("add chain ip other{i} c"),
            format!("delete table ip other{i}"),
        ];
        for line in lines {
            site.lab.server.run(&["nft", &line]).ok();
        }
    }
    assert_eq!(daemon.count("guard-repaired"), 0);
    // It goes on watching.
    site.lab.server.run(&["nft", "flush", "ruleset"]).ok();
    daemon.expect("guard-repaired");
    is_as_before(&site);
}

/// Lets another program have its way for a while that the daemon does not see, and the
/// stranger with it.
fn in_a_gap<T>(site: &Site, daemon: &Running, harm: &str, what: impl FnOnce() -> T) -> T {
    daemon.signal(Signal::SIGSTOP);
    site.lab.server.run(&["nft", harm]).ok();
    let done = what();
    daemon.signal(Signal::SIGCONT);
    done
}

fn connect(host: &Host, to: IpAddr, port: u16) -> TcpStream {
    let stream = host.enter(|| TcpStream::connect_timeout(&(to, port).into(), wait::DEADLINE));
    let mut stream = stream.unwrap();
    stream.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    stream
}

#[test]
fn a_connection_made_in_a_gap_is_ended_and_every_older_one_lives_on() {
    // The first takes connection tracking away with it, the second does not.
    for harm in ["flush ruleset", "delete table inet oneknock"] {
        let site = watched();
        site.lab.server.nft(
            "table inet site {
                chain in {
                    type filter hook input priority filter
                    ct state established accept
                }
            }",
        );
        let mut before_the_guard = site.session(&["ssh", "server.lab"]);
        site.laptop_key();
        let mut daemon = site.daemon();
        let mut after_its_grant = site.session(&["oneknock", "ssh", "home"]);
        site.oneknock(&["close", "home"]).ok();
        wait::until_true("no guest is left", || site.guests("ssh").is_empty());
        daemon.signal(Signal::SIGHUP);
        daemon.expect("oneknockd: reloaded ");
        let mut admitted = site.session(&["oneknock", "ssh", "home"]);
        for to in site.lab.server.addresses() {
            let mut stream = in_a_gap(&site, &daemon, harm, || connect(&site.lab.stranger, to, 22));
            daemon.expect("gap-connections-ended connections=");
            // A RST, not a silence.
            let end = stream.read_to_end(&mut Vec::new()).map_err(|e| e.kind());
            assert!(
                matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)),
                "{end:?}"
            );
            until_silent(&site.lab.stranger, to, 22);
            for session in [&mut before_the_guard, &mut after_its_grant, &mut admitted] {
                session.say("still there");
                session.expect("got still there");
            }
        }
    }
}

#[test]
fn a_forwarded_connection_made_in_a_gap_passes_no_more() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "web=tcp/8080"]);
    site.set(&site.config(), "guard", "\"monitored\"");
    let key = site.key("laptop", &["web"]);
    let behind = site.lab.behind();
    let _sshd = Sshd::start(&site.lab, &behind);
    site.lab.server.nft(
        "table inet site {
            chain pre {
                type nat hook prerouting priority dstnat;
                tcp dport 8080 dnat ip to 198.18.0.2:22
                tcp dport 8080 dnat ip6 to [2001:db8:0:9::2]:22
            }
        }",
    );
    let mut daemon = site.daemon();
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for to in site.lab.server.addresses() {
        key.knock(laptop, to, &wire::open(None, 0));
        daemon.expect("key=laptop service=web");
        until_open(laptop, to, 8080);
        let mut of_laptop = connect(laptop, to, 8080);
        let harm = "delete table inet oneknock";
        let mut of_stranger = in_a_gap(&site, &daemon, harm, || connect(stranger, to, 8080));
        daemon.expect("gap-connections-ended connections=");
        // sshd says more once it has heard the client's version.
        let hello = b"SSH-2.0-lab\r\n";
        of_laptop.write_all(hello).unwrap();
        of_laptop.read_exact(&mut [0; 100]).unwrap();
        of_stranger.write_all(hello).unwrap();
        of_stranger
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
        let mut rest = Vec::new();
        let end = of_stranger.read_to_end(&mut rest).map_err(|e| e.kind());
        assert_eq!(end, Err(ErrorKind::WouldBlock));
        // The end of the banner was on its way before.
        assert!(rest.len() < 100, "{}", rest.len());
    }
}

#[test]
fn an_exchange_of_datagrams_begun_in_a_gap_passes_no_more() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "echo=udp/7"]);
    site.set(&site.config(), "guard", "\"monitored\"");
    let key = site.key("laptop", &["echo"]);
    let server = &site.lab.server;
    let echo = server.enter(|| UdpSocket::bind("0.0.0.0:7").unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 100];
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            let _ = echo.send_to(&bytes[..length], from);
        }
    });
    // Without this nobody tracks connections while the guard is away.
    server.nft("table inet site {\nchain in {\ntype filter hook input priority filter\nct state new accept\n}\n}");
    let to = SocketAddr::new(server.v4.into(), 7);
    let socket = |host: &Host| {
        let socket = host.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(700)))
            .unwrap();
        socket
    };
    let (of_laptop, of_stranger) = (socket(&site.lab.laptop), socket(&site.lab.stranger));
    let answers = |socket: &UdpSocket| {
        socket.send_to(b"x", to).unwrap();
        socket.recv(&mut [0; 100]).is_ok()
    };
    let mut daemon = site.daemon();
    key.knock(&site.lab.laptop, to.ip(), &wire::open(None, 0));
    daemon.expect("key=laptop service=echo");
    assert!(answers(&of_laptop));
    assert!(!answers(&of_stranger));
    let harm = "delete table inet oneknock";
    assert!(in_a_gap(&site, &daemon, harm, || answers(&of_stranger)));
    daemon.expect("gap-connections-ended connections=");
    assert!(!answers(&of_stranger));
    assert!(answers(&of_laptop));
}
