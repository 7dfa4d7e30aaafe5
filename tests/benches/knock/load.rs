//! Many knocks, and much junk.

use crate::courier::on_network_core;
use crate::site::{Measured, other};
use oneknock_tests::packets::Sender;
use oneknock_tests::wait::meanwhile;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Sends packets round and round at a rate, in steps of a millisecond; 0 is as fast as it
/// goes. Gives how many were sent.
pub fn send_at(sender: &Sender, packets: &[Vec<u8>], rate: usize, stop: &AtomicBool) -> usize {
    let (begun, mut sent) = (Instant::now(), 0);
    for packet in packets.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if rate > 0 {
            let due =
                Duration::from_secs_f64(f64::from(u32::try_from(sent).unwrap()) / rate as f64);
            // In portions: a timer for each packet would cost more than the packet.
            while begun.elapsed() < due && !stop.load(Ordering::Relaxed) {
                sleep(Duration::from_micros(200));
            }
        }
        sent += usize::from(sender.send(packet).is_ok());
    }
    sent
}

/// What became of many knocks from as many addresses.
pub struct Throughput {
    pub offered: usize,
    /// How many a second were sent.
    pub rate: f64,
    pub granted: usize,
    pub in_set: usize,
    pub recorded: usize,
    pub used: Duration,
}

/// Sends `rate` knocks a second for so many seconds, each once.
pub fn knocks(measured: &Measured, first: usize, rate: usize, seconds: usize) -> Throughput {
    let keys = measured.subkeys();
    let packets = (0..rate * seconds).map(|n| measured.knock(&keys, other(first + n), 3600));
    let packets: Vec<Vec<u8>> = packets.collect();
    let mut set = crate::probe::Set::of(&measured.site.lab.server, "ssh", other(0));
    let counts = |measured: &Measured| {
        let status = measured.status();
        let granted = status["counters"]["accepted"].as_u64().unwrap();
        let recorded = recorded(measured);
        (usize::try_from(granted).unwrap(), recorded)
    };
    let (before, in_set) = (counts(measured), set.count());
    let (used, _, took) = measured.processor(|| {
        let took = measured.near.enter(|| {
            let (sender, begun) = (measured.sender(), Instant::now());
            for (number, packet) in packets.iter().enumerate() {
                let due = Duration::from_secs_f64(number as f64 / rate as f64);
                while begun.elapsed() < due {
                    sleep(Duration::from_micros(200));
                }
                sender.send(packet).unwrap();
            }
            begun.elapsed()
        });
        oneknock_tests::wire::until_read(&measured.site.lab.server, oneknock_tests::site::PORT);
        took
    });
    let after = counts(measured);
    Throughput {
        offered: packets.len(),
        rate: packets.len() as f64 / took.as_secs_f64(),
        granted: after.0 - before.0,
        in_set: set.count() - in_set,
        recorded: after.1 - before.1,
        used,
    }
}

/// What became of knocks that came for long.
pub struct Long {
    pub sent: usize,
    /// How many a second.
    pub rate: f64,
    pub granted: usize,
    /// The socket had no room for so many.
    pub dropped: u64,
    pub used: Duration,
}

/// Sends `rate` knocks a second for so long, each from another address and sealed when it
/// is sent, as time passes for what is remembered too.
pub fn for_long(measured: &Measured, rate: usize, seconds: usize) -> Long {
    let keys = measured.subkeys();
    let accepted = || measured.status()["counters"]["accepted"].as_u64().unwrap();
    let before = accepted();
    let (used, _, (took, dropped)) = measured.processor(|| {
        let took = measured.near.enter(|| {
            let (sender, begun) = (measured.sender(), Instant::now());
            for number in 0..rate * seconds {
                let due = Duration::from_secs_f64(number as f64 / rate as f64);
                while begun.elapsed() < due {
                    sleep(Duration::from_micros(200));
                }
                sender
                    .send(&measured.knock(&keys, other(number), 5))
                    .unwrap();
            }
            begun.elapsed()
        });
        let port = oneknock_tests::site::PORT;
        let dropped = oneknock_tests::wire::until_read(&measured.site.lab.server, port);
        (took, dropped)
    });
    let sent = rate * seconds;
    Long {
        sent,
        rate: sent as f64 / took.as_secs_f64(),
        granted: usize::try_from(accepted() - before).unwrap(),
        dropped,
        used,
    }
}

/// The grants that the journal has.
fn recorded(measured: &Measured) -> usize {
    let since = oneknock_shared::knock::Timestamp(0);
    let now = oneknockd::clock::Clock::start().now();
    let history = oneknockd::store::history(&measured.site.state(), None, since, now);
    history.unwrap().len()
}

/// Runs `what` while `from` sends packets to the server, which may be `from` itself; gives
/// how many a second were sent, and what `what` gave.
pub fn during<T>(
    measured: &Measured,
    from: &oneknock_tests::Host,
    packets: &[Vec<u8>],
    rate: usize,
    what: impl FnOnce() -> T,
) -> (f64, T) {
    let flood = |stop: &AtomicBool| {
        from.enter(|| {
            on_network_core();
            let begun = Instant::now();
            let sent = send_at(&measured.sender(), packets, rate, stop);
            sent as f64 / begun.elapsed().as_secs_f64()
        })
    };
    meanwhile(flood, || {
        sleep(Duration::from_millis(300));
        what()
    })
}
