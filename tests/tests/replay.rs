//! A packet is good once, for a while, in its order; and nothing else is ever good.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::selector::Slot;
use oneknock_tests::capture::{Capture, FROM_SERVER, NOT_HOUSEKEEPING};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Probe, send};
use oneknock_tests::{Site, binaries, wait};
use std::net::{IpAddr, SocketAddr};

#[test]
fn the_same_packet_again_is_refused_from_its_own_and_from_the_strangers_address() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for server in site.lab.server.addresses() {
        let packet = key.knock(laptop, server, &wire::open(Some("ssh"), 0));
        daemon.expect(&format!("granted address={}", laptop.address_like(server)));
        for host in [laptop, stranger] {
            let address = host.address_like(server);
            send(host, (server, PORT).into(), &packet);
            daemon.expect(&format!(
                "ignored source={address} key=laptop reason=replayed"
            ));
        }
        assert!(!site.admits("ssh", stranger.address_like(server)));
        assert_eq!(site.probe(stranger, server), Probe::Silent);
    }
    assert_eq!(daemon.count("granted"), 2);
}

#[test]
fn a_replay_does_not_open_again_what_was_closed() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, site.lab.server.v4.into());
    let packet = key.knock(laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=");
    key.knock(laptop, server, &wire::close(Some("ssh")));
    daemon.expect("closed address=");
    send(laptop, (server, PORT).into(), &packet);
    daemon.expect("reason=replayed");
    assert_eq!(site.guests("ssh"), []);
}

#[test]
fn a_stolen_packet_with_a_signed_address_admits_no_thief_and_still_its_owner() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, stranger) = (&site.lab.laptop, &site.lab.stranger);
    for server in site.lab.server.addresses() {
        let mut knock = wire::open(Some("ssh"), 0);
        knock.address = Some(laptop.address_like(server));
        let packet = key.seal(&knock);
        send(stranger, (server, PORT).into(), &packet);
        daemon.expect("key=laptop service=ssh reason=address-not-source");
        assert!(!site.admits("ssh", stranger.address_like(server)));
        send(laptop, (server, PORT).into(), &packet);
        daemon.expect(&format!("granted address={}", laptop.address_like(server)));
        assert_eq!(site.probe(stranger, server), Probe::Silent);
    }
}

#[test]
fn a_packet_is_not_good_again_after_a_restart() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let site = Site::new(binaries!());
        let key = site.key("laptop", &["ssh"]);
        let mut daemon = site.daemon();
        let server: IpAddr = site.lab.server.v4.into();
        let packet = key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 1));
        daemon.expect("granted address=198.51.100.7");
        daemon.signal(signal);
        daemon.end();
        let mut daemon = site.daemon();
        for host in [&site.lab.laptop, &site.lab.stranger] {
            send(host, (server, PORT).into(), &packet);
            daemon.expect("oneknockd: ignored source=");
        }
        assert_eq!(daemon.count("granted"), 0);
        assert!(!site.admits("ssh", site.lab.stranger.v4.into()));
    }
}

#[test]
fn an_open_that_was_held_back_until_after_its_keys_close_is_refused() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let other = site.key("other", &["ssh"]);
    let mut daemon = site.daemon();
    let laptop = &site.lab.laptop;
    for server in site.lab.server.addresses() {
        key.knock(laptop, server, &wire::open(Some("ssh"), 0));
        daemon.expect("granted address=");
        let close = wire::close(Some("ssh"));
        let mut held_back = wire::open(Some("ssh"), 0);
        held_back.timestamp = Timestamp(close.timestamp.0 - 1);
        key.knock(laptop, server, &close);
        daemon.expect("closed address=");
        let mut of_every_service = held_back;
        of_every_service.service = None;
        for knock in [&held_back, &of_every_service] {
            key.knock(laptop, server, knock);
            daemon.expect("reason=superseded-by-close");
        }
        assert_eq!(site.guests("ssh"), []);
        // Another key's open of the same moment has nothing to do with it.
        other.knock(laptop, server, &held_back);
        daemon.expect("granted address=");
        other.knock(laptop, server, &wire::close(None));
        daemon.expect("closed address=");
        // And a later one of its own opens again.
        key.knock(laptop, server, &wire::open(Some("ssh"), 0));
        daemon.expect("granted address=");
        key.knock(laptop, server, &wire::close(Some("ssh")));
        daemon.expect("closed address=");
    }
}

#[test]
fn a_packet_from_another_time_is_ignored_and_its_distance_logged() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, site.lab.server.v4.into());
    // Selectors are of whole minutes, and those within the skew are known: what is just
    // outside of it can be told from junk in the same minute only.
    let (behind, ahead) = (32_000, 34_000);
    let now = wait::until("a second in which both are of known minutes", || {
        let now = wire::now();
        let known = Slot::around(Timestamp(now), 30_000);
        let known = |at| known.contains(&Slot::of(Timestamp(at)).0);
        let all = [now - behind, now + 1_000 - behind, now + ahead];
        all.into_iter().all(known).then_some(now)
    });
    for (at, distance) in [(now - behind, "behind=3"), (now + ahead, "ahead=3")] {
        let mut knock = wire::open(Some("ssh"), 0);
        knock.timestamp = Timestamp(at);
        key.knock(laptop, server, &knock);
        let line = daemon.expect("key=laptop reason=clock-skew");
        assert!(line.contains(distance), "{line}");
    }
    key.knock(laptop, server, &wire::open(Some("ssh"), 0));
    daemon.expect("granted address=");
    assert_eq!(daemon.count("granted"), 1);
}

#[test]
fn garbage_of_every_length_meets_silence_and_leaves_the_daemon_up() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, stranger, server) = (&site.lab.laptop, &site.lab.stranger, &site.lab.server);
    let mut leaving = Capture::leaving(server, NOT_HOUSEKEEPING);
    let mut arriving = Capture::start(stranger, FROM_SERVER);
    // Noise throughout; the same noise behind a selector that is in force; a good packet
    // cut short or drawn out.
    let good = key.seal(&wire::open(Some("ssh"), 0));
    let noise = |length: usize, kind: usize| -> Vec<u8> {
        let byte = |i: usize| (i * 167 + length * 31 + i / 251).to_le_bytes()[0];
        let from_good = [0, 8, good.len()][kind];
        let at = |i: usize| if i < from_good { good[i] } else { byte(i) };
        (0..length).map(at).collect()
    };
    for (to, longest) in [(server.v4.into(), 65507), (server.v6.into(), 65527)] {
        let to: SocketAddr = (IpAddr::to_canonical(&to), PORT).into();
        stranger.enter(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = std::net::UdpSocket::bind(any).unwrap();
            for length in (0..=1500).chain([65506, longest]) {
                for kind in 0..3 {
                    if (length, kind) != (good.len(), 2) {
                        socket.send_to(&noise(length, kind), to).unwrap();
                    }
                }
                // Not so fast that the socket's buffer overflows and hides half of it.
                if length % 50 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        });
    }
    assert!(daemon.is_alive());
    for to in server.addresses() {
        key.knock(laptop, to, &wire::open(Some("ssh"), 0));
        daemon.expect(&format!("granted address={}", laptop.address_like(to)));
    }
    assert_eq!(daemon.count("granted"), 2);
    assert_eq!(site.guests("ssh").len(), 2);
    let packets = leaving.packets(server, laptop.v4.into());
    assert_eq!(packets, Vec::<String>::new());
    let packets = arriving.packets(server, stranger.v4.into());
    assert_eq!(packets, Vec::<String>::new());
}

#[test]
fn every_verdict_on_a_knock_is_silent() {
    let site = Site::with_services(binaries!(), &["ssh=tcp/22", "web=tcp/80"]);
    let key = site.key("laptop", &["ssh"]);
    let mut daemon = site.daemon();
    let (laptop, server) = (&site.lab.laptop, &site.lab.server);
    let mut leaving = Capture::leaving(server, NOT_HOUSEKEEPING);
    for to in server.addresses() {
        let packet = key.knock(laptop, to, &wire::open(Some("ssh"), 0));
        daemon.expect("granted address=");
        send(laptop, (to, PORT).into(), &packet);
        daemon.expect("reason=replayed");
        key.knock(laptop, to, &wire::open(Some("web"), 0));
        daemon.expect("reason=service-not-allowed");
        key.knock(laptop, to, &wire::close(None));
        daemon.expect("closed address=");
    }
    let packets = leaving.packets(server, laptop.v4.into());
    assert_eq!(packets, Vec::<String>::new());
}
