//! The daemon dies at any moment, or the power fails: what was not synced is gone or
//! torn, the boot is another, the kernel has forgotten its grants. Nothing that was
//! accepted is accepted again, what the log acknowledged was granted, grants end on time,
//! and nobody waits longer than the lease and the clocks ahead of it make them.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::knock::Timestamp;
use oneknock_tests::chance::Chance;
use oneknock_tests::clock::WallClock;
use oneknock_tests::power::{Machine, Unsynced};
use oneknock_tests::record::{Record, Stream, generous_key};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, until_read};
use oneknock_tests::{Running, Site, binaries, figure, wait};
use std::net::IpAddr;
use std::time::{Duration, Instant};

const LIVES: u32 = 200;
/// Longer than a lease lasts, with clients' clocks ahead, in milliseconds.
const LONG: i64 = 8_000;
const CUTS: u32 = 25;
/// `PROTOCOL.md`: how far ahead of a packet the lease is, in milliseconds.
const LEASE: u64 = 5_000;

#[test]
fn two_hundred_kills_in_a_stream_of_knocks() {
    let site = Site::new(binaries!());
    let key = generous_key(&site);
    let mut clock = WallClock::new(site.lab.dir());
    let mut chance = Chance::new("kill");
    let mut record = Record::default();
    let stream = Stream::new(&site);
    let mut lives_with_some = 0;
    for life in 0..LIVES {
        // Now and then it was away for long.
        if chance.percent(40) {
            clock.jump(LONG);
        }
        let start = Instant::now();
        let mut daemon = site.daemon_unready_by(&clock);
        if life == 0 || chance.percent(90) {
            daemon.expect("oneknockd: ready ");
        }
        let recent = record.packets.len().saturating_sub(60);
        stream.again(&record.packets[recent..]);
        let time = Duration::from_micros(chance.below(60_000));
        let (new, ()) = wait::meanwhile(
            |stop| stream.flow(&key, &clock, &mut chance, &record.packets, stop),
            || {
                std::thread::sleep(time);
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
    let (unlogged, unlisted) = (record.unlogged, record.unlisted);
    figure(format_args!(
        "kill: {number} packets in {LIVES} lives: {killed} accepted, {unlogged} of them without a line, in {lives_with_some} lives; {late} accepted in the end; {unlisted} missed by a list"
    ));
}

#[test]
fn of_two_daemons_that_start_at_once_one_runs_and_the_other_says_why_not() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    let server: IpAddr = site.lab.server.v4.into();
    for _ in 0..10 {
        let mut both = [site.daemon_unready(), site.daemon_unready()];
        let ready = |daemon: &Running| daemon.count(": ready ");
        wait::until_true("one is ready, and the other has ended", || {
            both.iter().map(ready).sum::<usize>() == 1 && both.iter_mut().any(|d| !d.is_alive())
        });
        both.sort_by_key(ready);
        let [mut other, mut daemon] = both;
        assert_eq!(other.end().code(), Some(1));
        assert_eq!(other.lines().len(), 1, "{:?}", other.lines());
        key.knock(&site.lab.laptop, server, &wire::open(Some("ssh"), 0));
        daemon.expect("granted address=198.51.100.7");
        assert!(site.admits("ssh", site.lab.laptop.v4.into()));
        daemon.signal(Signal::SIGKILL);
        daemon.end();
    }
}

fn cuts_in_a_stream_of_knocks(journal: bool) {
    let site = Site::new(binaries!());
    let key = generous_key(&site);
    let mut machine = Machine::new(&site, journal);
    let mut clock = WallClock::new(site.lab.dir());
    let mut chance = Chance::new("power");
    let mut record = Record::default();
    let stream = Stream::new(&site);
    for cut in 0..CUTS {
        machine.boot();
        // What is made after the lease is over is accepted; often there is no waiting.
        let is_over = cut == 0 || chance.percent(70);
        if cut > 0 && is_over {
            clock.jump(LONG);
        }
        // A machine may see several lives of the daemon.
        let lives = 1 + chance.below(3);
        for life in 1..=lives {
            let start = Instant::now();
            let mut daemon = machine.daemon(&clock);
            stream.again(&record.packets);
            let time = Duration::from_micros(chance.below(50_000));
            let end = [Signal::SIGTERM, Signal::SIGKILL][usize::from(chance.percent(50))];
            let in_midst = life == lives && chance.percent(70);
            let unsynced = [
                Unsynced::Lost,
                Unsynced::Torn,
                Unsynced::Torn,
                Unsynced::Kept,
            ];
            let unsynced = unsynced[usize::try_from(chance.below(4)).unwrap()];
            let (new, ()) = wait::meanwhile(
                |stop| stream.flow(&key, &clock, &mut chance, &record.packets, stop),
                || {
                    let accepts = || daemon.count(" granted ") > 0;
                    if is_over {
                        wait::until_true("a fresh knock is accepted", accepts);
                    }
                    std::thread::sleep(time);
                    if in_midst {
                        Machine::freeze(&daemon);
                    } else {
                        daemon.signal(end);
                        daemon.end();
                    }
                },
            );
            if life == lives {
                machine.cut(&mut daemon, unsynced, &mut chance);
            }
            record.add(new);
            record.check(&site, &daemon.lines(), &(start..Instant::now()));
        }
        record.lose_grants();
        machine.forget_grants();
    }
    let accepted = record.accepted();
    // All of it once more.
    machine.boot();
    let start = Instant::now();
    let mut daemon = machine.daemon(&clock);
    stream.again(&record.packets);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    record.check(&site, &daemon.lines(), &(start..Instant::now()));
    let (number, unlogged) = (record.packets.len(), record.unlogged);
    figure(format_args!(
        "power: {number} packets, {CUTS} cuts: {accepted} accepted, {unlogged} of them without a line"
    ));
}

#[test]
fn cuts_in_a_stream_of_knocks_on_a_file_system_with_a_journal() {
    cuts_in_a_stream_of_knocks(true);
}

#[test]
fn cuts_in_a_stream_of_knocks_on_a_file_system_without_a_journal() {
    cuts_in_a_stream_of_knocks(false);
}

#[test]
fn the_wait_after_a_cut_is_the_lease_and_how_far_ahead_clocks_were() {
    for ahead in [0, 4_000] {
        let site = Site::new(binaries!());
        let key = site.key("laptop", &["ssh"]);
        let mut machine = Machine::new(&site, true);
        let clock = WallClock::new(site.lab.dir());
        let (laptop, server): (_, IpAddr) = (&site.lab.laptop, site.lab.server.v4.into());
        let knock = |ahead| {
            let mut knock = wire::open(Some("ssh"), 1);
            knock.timestamp = Timestamp(knock.timestamp.0 + ahead);
            key.knock(laptop, server, &knock);
            knock.timestamp.0
        };
        machine.boot();
        let mut daemon = machine.daemon(&clock);
        let accepted = knock(ahead);
        daemon.expect("granted");
        Machine::freeze(&daemon);
        let cut = Instant::now();
        machine.cut(&mut daemon, Unsynced::Lost, &mut Chance::new("wait"));
        machine.forget_grants();
        machine.boot();
        let mut daemon = machine.daemon(&clock);
        let ready = Instant::now();
        while wire::now() <= accepted + LEASE && daemon.count("granted") == 0 {
            knock(0);
            until_read(&site.lab.server, PORT);
            std::thread::sleep(Duration::from_millis(20));
        }
        if daemon.count("granted") == 0 {
            knock(0);
        }
        daemon.expect("granted");
        figure(format_args!(
            "power: clocks {ahead} ms ahead: a fresh knock was accepted {} ms after the cut, {} ms after the daemon was ready",
            cut.elapsed().as_millis(),
            ready.elapsed().as_millis(),
        ));
    }
}
