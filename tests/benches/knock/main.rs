//! The benchmark: the daemon and the client as they are built for use, in the lab, beside
//! what others offer. It prints what it measured; the reader judges.
//!
//! `tests/bench` runs it and keeps what it prints.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]
#![allow(missing_docs)]

mod client;
mod junk;
mod latency;
mod load;
mod probe;
mod site;
mod stats;

use junk::Kind;
use oneknock_tests::binaries;
use site::Measured;
use stats::{Samples, time};

fn say(what: &str, samples: &Samples) {
    println!(
        "| {what} | {} | {} | {} | {} | {} of {} |",
        time(samples.median()),
        time(samples.percentile(95)),
        time(samples.percentile(99)),
        time(samples.percentile(100)),
        samples.failed,
        samples.len()
    );
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    if is_wanted("latency") {
        let mut measured = Measured::new(binaries!(), 1);
        measured.start();
        say("to set", &latency::to_set(&measured, 2_000, 0));
        say("to SYN-ACK", &latency::to_answer(&measured, 200));
    }
    if is_wanted("throughput") {
        let mut measured = Measured::new(binaries!(), 1);
        measured.start();
        let mut first = 0;
        for rate in [1_000, 5_000, 10_000, 20_000, 30_000, 40_000] {
            let done = load::knocks(&measured, first, rate, 3);
            first += done.offered;
            println!("{rate}/s: {done:?}");
        }
    }
    if is_wanted("load") {
        let mut measured = Measured::new(binaries!(), 1);
        measured.start();
        let keys = measured.subkeys();
        let packets: Vec<_> = (0..60_000)
            .map(|n| measured.knock(&keys, site::other(5_000_000 + n), 600))
            .collect();
        let from = &measured.site.lab.stranger;
        let (rate, samples) = load::during(&measured, from, &packets, 1_000, || {
            latency::to_set(&measured, 1_000, 0)
        });
        say(
            &format!("to set, beside {rate:.0} others a second"),
            &samples,
        );
    }
    if is_wanted("flood") {
        for (kind, inside) in [(Kind::Forged, true)] {
            let mut measured = Measured::new(binaries!(), 1);
            measured.start();
            let packets = junk::packets(&measured, kind, 100_000);
            let lab = &measured.site.lab;
            let from = if inside { &lab.server } else { &lab.stranger };
            for rate in [0, 0, 0] {
                let (rate, ((used, passed, ()), samples)) =
                    load::during(&measured, from, &packets, rate, || {
                        let still = || std::thread::sleep(std::time::Duration::from_secs(2));
                        (measured.processor(still), latency::to_answer(&measured, 40))
                    });
                let share = 100.0 * used.as_secs_f64() / passed.as_secs_f64();
                say(
                    &format!("{kind:?} {inside} at {rate:.0}/s, daemon uses {share:.1} %"),
                    &samples,
                );
            }
        }
    }
    if is_wanted("client") {
        let oneknock = binaries!().oneknock;
        let mut measured = Measured::new(binaries!(), 1);
        client::door(&measured);
        say(
            "oneknock open: to the packet",
            &client::to_packet(&measured, oneknock, 200),
        );
        measured
            .site
            .set(&measured.site.config(), "skew", "\"30s\"");
        measured.start();
        let (ours, bare) = client::ssh(&measured, oneknock, 20);
        say("oneknock ssh home true", &ours);
        say("ssh true", &bare);
        let address = measured.server().to_string();
        let bytes = 1 << 30;
        for _ in 0..3 {
            println!(
                "nc {:?}",
                client::relay(&measured, "/usr/bin/nc", &[&address, "4445"], 4445, bytes)
            );
            println!(
                "proxy {:?}",
                client::relay(
                    &measured,
                    oneknock,
                    &["proxy", "home", &address, "4444"],
                    4444,
                    bytes
                )
            );
        }
    }
    if is_wanted("keys") {
        for count in [1, 100, 10_000] {
            let mut measured = Measured::new(binaries!(), count);
            let ready = measured.start();
            println!(
                "{count} keys: ready after {ready:?}, memory {} KiB",
                measured.daemon.as_ref().unwrap().memory()
            );
            let (used, _, samples) = measured.processor(|| latency::to_set(&measured, 1_000, 0));
            say(
                &format!("to set, {count} keys, {:?} a knock", used / 1000),
                &samples,
            );
        }
    }
}
