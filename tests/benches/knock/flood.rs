//! Junk as fast as it can be sent, and a genuine knock in the middle of it.

use crate::junk::{self, Kind};
use crate::parts::{each_peer, started};
use crate::report::{Axis, Picture, Report};
use crate::site::Measured;
use crate::stats::time;
use crate::{latency, load};
use nix::sys::signal::Signal;
use oneknock_tests::packets::{self, UDP, flags};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::until_read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// As long as the daemon is watched while nobody knocks.
const WATCHED: Duration = Duration::from_secs(2);
const TRIALS: usize = 100;

pub fn flood(report: &mut Report, folder: &Path) {
    let head = [
        "flood",
        "packets a second",
        "daemon's share of a core",
        "knock to SYN-ACK, median",
        "p95",
        "opened",
    ];
    report.section("A knock in a flood", &head);
    let mut curves = Vec::new();
    for (kind, name) in [
        (Kind::Junk, "random packets"),
        (Kind::Forged, "captured selector, wrong HMAC"),
    ] {
        let measured = started(1);
        let packets = junk::packets(&measured, kind, 100_000);
        let from = &measured.site.lab.stranger;
        let mut points = Vec::new();
        for wanted in [1_000, 10_000, 50_000, 100_000, 200_000, 0] {
            let (rate, ((used, passed, ()), samples)) =
                load::during(&measured, from, &packets, wanted, || {
                    let alone = measured.processor(|| sleep(WATCHED));
                    (alone, latency::to_answer(&measured, TRIALS, latency::PAUSE))
                });
            let share = 100.0 * used.as_secs_f64() / passed.as_secs_f64();
            let opened = samples.len() - samples.failed;
            report.row(&[
                name.to_owned(),
                format!(
                    "{rate:.0}{}",
                    if wanted == 0 { ", all that goes" } else { "" }
                ),
                format!("{share:.2} %"),
                time(samples.median()),
                time(samples.percentile(95)),
                format!("{opened} of {}", samples.len()),
            ]);
            points.extend(samples.median().map(|median| (rate, median.as_secs_f64())));
        }
        curves.push((name.to_owned(), points));
    }
    each_peer(report, |report, measured, peer| {
        let packets = other_junk(measured, peer.protocol, peer.first);
        let from = &measured.site.lab.stranger;
        for wanted in [1_000, 10_000, 100_000] {
            let (rate, samples) = load::during(measured, from, &packets, wanted, || {
                peer.to_answer(measured, 5)
            });
            let opened = samples.len() - samples.failed;
            report.row(&[
                format!("{}: junk to its port", peer.name),
                format!("{rate:.0}"),
                "-".to_owned(),
                time(samples.median()),
                "-".to_owned(),
                format!("{opened} of {} within 4 s", samples.len()),
            ]);
        }
    });
    let picture = Picture {
        title: "A knock to SYN-ACK, in a flood",
        x: Axis {
            name: "packets of the flood a second",
            from: 1e3,
            to: 1e6,
            is_log: true,
            marks: vec![
                (1e3, "1,000"),
                (1e4, "10,000"),
                (1e5, "100,000"),
                (1e6, "1,000,000"),
            ],
        },
        y: Axis {
            name: "median",
            from: 1e-4,
            to: 1e-2,
            is_log: true,
            marks: vec![(1e-4, "100 µs"), (1e-3, "1 ms"), (1e-2, "10 ms")],
        },
        curves,
    };
    picture.write(&folder.join("bench-flood.svg"));
    drained(report);
}

/// What a forgery costs the daemon when there are always more: what waits in the socket
/// while it is stopped is read in one go.
fn drained(report: &mut Report) {
    const WAITING: usize = 4_000;
    let head = [
        "forgeries that waited",
        "processor for each",
        "so many a second, of the daemon's own time",
    ];
    report.section("What the daemon can read", &head);
    let measured = started(1);
    let packets = junk::packets(&measured, Kind::Forged, WAITING);
    let daemon = measured.daemon.as_ref().unwrap();
    let server = &measured.site.lab.server;
    for _ in 0..3 {
        daemon.signal(Signal::SIGSTOP);
        measured.near.enter(|| {
            let sender = measured.sender();
            for packet in &packets {
                sender.send(packet).unwrap();
            }
        });
        let (used, _, dropped) = measured.processor(|| {
            daemon.signal(Signal::SIGCONT);
            until_read(server, PORT)
        });
        let each = used / u32::try_from(WAITING).unwrap();
        report.row(&[
            format!("{WAITING}, {dropped} lost so far"),
            format!("{} ns", each.as_nanos()),
            format!("{:.0}", 1.0 / each.as_secs_f64()),
        ]);
    }
}

/// Packets for a peer's port, from addresses that nobody has: as long as its own.
fn other_junk(measured: &Measured, protocol: u8, port: u16) -> Vec<Vec<u8>> {
    let to: IpAddr = measured.server().into();
    let one = |number: u64| {
        let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [a, b, c, d, source @ .., _, _] = bits.to_be_bytes();
        let from = IpAddr::from(Ipv4Addr::new(a % 90 + 30, b, c, d));
        let source = u16::from_be_bytes(source) | 1024;
        if protocol == UDP {
            let text = format!("{bits:016x}").repeat(14);
            let datagram = packets::udp((from, source), (to, port), text.as_bytes());
            packets::whole(from, to, UDP, &datagram)
        } else {
            packets::segment((from, source), (to, port), flags::SYN)
        }
    };
    (0..50_000).map(one).collect()
}
