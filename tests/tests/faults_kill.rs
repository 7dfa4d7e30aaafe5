//! SIGKILL at random points of a stream of knocks, restarted each time: nothing is
//! accepted twice, what the log acknowledged was granted, and grants end on time.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_tests::chance::Chance;
use oneknock_tests::clock::WallClock;
use oneknock_tests::record::{Record, Stream, generous_key};
use oneknock_tests::{Site, binaries, figure, wait};
use std::time::{Duration, Instant};

const LIVES: u32 = 200;
/// Longer than a lease lasts, with clients' clocks ahead, in milliseconds.
const LONG: i64 = 8_000;

#[test]
fn two_hundred_kills_in_a_stream_of_knocks() {
    let site = Site::new(binaries!());
    let key = generous_key(&site);
    let mut clock = WallClock::new(site.lab.dir());
    let mut chance = Chance::new("kill");
    let mut record = Record::default();
    let stream = Stream::new(&site);
    let mut lives_with_some = 0;
    for _ in 0..LIVES {
        // Now and then it was away for long.
        if chance.percent(40) {
            clock.jump(LONG);
        }
        let start = Instant::now();
        let mut daemon = site.daemon_unready_by(&clock);
        if chance.percent(90) {
            daemon.expect("oneknockd: ready ");
        }
        let recent = record.packets.len().saturating_sub(60);
        stream.again(&record.packets[recent..]);
        let life = Duration::from_micros(chance.below(60_000));
        let (new, ()) = wait::meanwhile(
            |stop| stream.flow(&key, &clock, &mut chance, &record.packets, stop),
            || {
                std::thread::sleep(life);
                daemon.signal(Signal::SIGKILL);
                daemon.end();
            },
        );
        record.add(new);
        let more = record.check(&site, &daemon.lines(), &(start..Instant::now()));
        lives_with_some += u32::from(more > 0);
    }
    let killed = record.accepted();
    // All of it once more, to one that lives on.
    let start = Instant::now();
    let mut daemon = site.daemon_by(&clock);
    stream.again(&record.packets);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    let late = record.check(&site, &daemon.lines(), &(start..Instant::now()));
    let number = record.packets.len();
    let unlogged = record.unlogged;
    figure(format_args!(
        "kill: {number} packets in {LIVES} lives: {killed} accepted, {unlogged} of them without a line, in {lives_with_some} lives; {late} accepted in the end"
    ));
}
