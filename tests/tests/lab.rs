//! The lab itself: what the other tests rest on.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use oneknock_tests::capture::Capture;
use oneknock_tests::packets::{self, Extension, TCP, flags};
use oneknock_tests::ssh::{Sshd, UNGUARDED};
use oneknock_tests::wire::{Probe, probe, send};
use oneknock_tests::{Lab, binaries};
use std::net::IpAddr;
use std::path::Path;

#[test]
fn every_host_reaches_the_server_over_ipv4_and_ipv6() {
    let lab = Lab::new(binaries!());
    let _sshd = Sshd::start(&lab, &lab.server);
    for address in lab.server.addresses() {
        for host in [&lab.laptop, &lab.stranger] {
            assert_eq!(probe(host, address, 22), Probe::Open);
            assert_eq!(probe(host, address, 23), Probe::Refused);
        }
    }
}

#[test]
fn ssh_gets_in_by_the_servers_name_while_there_is_no_guard() {
    let lab = Lab::new(binaries!());
    let sshd = Sshd::start(&lab, &lab.server);
    let ssh = ["ssh", "-F", sshd.config(), "server.lab", "echo $((6*7))"];
    assert_eq!(lab.laptop.run(&ssh).ok(), "42\n");
}

#[test]
fn a_lab_removes_itself_after_a_panic() {
    let lab = Lab::new(binaries!());
    let sshd = Sshd::start(&lab, &lab.server);
    let name = lab.server.namespace().to_string();
    let dir = lab.dir().to_path_buf();
    assert!(Path::new("/run/netns").join(&name).exists());
    let panicked = std::thread::spawn(move || {
        let _both = (sshd, lab);
        std::panic::resume_unwind(Box::new("as a failed assertion would"));
    });
    panicked.join().unwrap_err();
    assert!(!Path::new("/run/netns").join(&name).exists());
    assert!(!Path::new("/etc/netns").join(&name).exists());
    assert!(!dir.exists());
}

#[test]
fn a_capture_shows_what_passed_and_nothing_else() {
    let lab = Lab::new(binaries!());
    let server: IpAddr = lab.server.v4.into();
    let mut capture = Capture::start(&lab.server, "udp dst port 4000");
    send(&lab.stranger, (server, 4000).into(), b"one");
    send(&lab.stranger, (server, 4001).into(), b"two");
    let packets = capture.packets(&lab.stranger, server);
    assert_eq!(packets.len(), 1, "{packets:?}");
    assert!(packets[0].contains("192.0.2.10.4000: UDP, length 3"));
}

#[test]
fn odd_packets_are_well_made() {
    let lab = Lab::new(binaries!());
    let _sshd = Sshd::start(&lab, &lab.server);
    let from = &lab.stranger;
    let mut capture = Capture::start(from, "tcp");
    let whole = packets::tcp(
        (from.v6.into(), 4000),
        (lab.server.v6.into(), UNGUARDED),
        flags::SYN,
        b"",
    );
    let chain = [
        Extension::HopByHop,
        Extension::Destination,
        Extension::Fragment(7, 0, false),
    ];
    let packet = packets::ipv6(from.v6, lab.server.v6, &chain, TCP, &whole);
    packets::send(from, lab.server.v6.into(), &[packet]);
    capture.expect("2001:db8:0:1::10.2222 > 2001:db8:0:3::9.4000: Flags [S.]");

    let ends = ((from.v4.into(), 4001), (lab.server.v4.into(), UNGUARDED));
    let whole = packets::tcp(ends.0, ends.1, flags::SYN, b"");
    let part = |offset, more, bytes: &[u8]| {
        packets::ipv4(from.v4, lab.server.v4, TCP, (9, offset, more), bytes)
    };
    let parts = [part(0, true, &whole[..8]), part(8, false, &whole[8..])];
    packets::send(from, lab.server.v4.into(), &parts);
    capture.expect("192.0.2.10.2222 > 203.0.113.9.4001: Flags [S.]");
}
