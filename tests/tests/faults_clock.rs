//! The server's wall clock jumps: nothing is accepted twice, nobody is locked out, and
//! grants end when they should.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::knock::Timestamp;
use oneknock_tests::clock::{DAY, HOUR, SECOND, WallClock};
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Key, send, until_read, until_silent};
use oneknock_tests::{Running, Site, binaries, wait};
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

type Packet = [u8; 112];

const YEAR: i64 = 365 * DAY;

/// A daemon by a clock of the test's own.
struct Fixture {
    clock: WallClock,
    daemon: Running,
    key: Key,
    site: Site,
}

impl Fixture {
    fn new() -> Self {
        let site = Site::new(binaries!());
        let key = site.key("laptop", &["ssh"]);
        let clock = WallClock::new(site.lab.dir());
        let daemon = site.daemon_by(&clock);
        Self {
            clock,
            daemon,
            key,
            site,
        }
    }

    fn server(&self) -> IpAddr {
        self.site.lab.server.v4.into()
    }

    /// Knocks with a timestamp that is fresh by the server's clock.
    fn knock(&self, seconds: u16) -> Packet {
        let mut knock = wire::open(Some("ssh"), seconds);
        knock.timestamp = Timestamp(self.clock.now());
        self.key.knock(&self.site.lab.laptop, self.server(), &knock)
    }

    fn accepted(&mut self, seconds: u16) -> Packet {
        let packet = self.knock(seconds);
        self.daemon.expect("granted address=198.51.100.7");
        packet
    }

    /// Sends packets again, from their own address and from the stranger's, and sees to
    /// it that nothing came of it.
    fn refused_again(&self, packets: &[Packet]) {
        let granted = self.daemon.count("granted");
        for packet in packets {
            for host in [&self.site.lab.laptop, &self.site.lab.stranger] {
                send(host, (self.server(), PORT).into(), packet);
            }
        }
        assert_eq!(until_read(&self.site.lab.server, PORT), 0);
        // What was read has been judged when the next reload is done.
        let reloads = self.daemon.count("reloaded");
        self.daemon.signal(Signal::SIGHUP);
        wait::until_true("a reload", || self.daemon.count("reloaded") > reloads);
        assert_eq!(self.daemon.count("granted"), granted);
        assert!(!self.site.admits("ssh", self.site.lab.stranger.v4.into()));
    }

    /// Lets the key end then.
    fn ends_at(&self, millis: u64) {
        let end = UNIX_EPOCH + Duration::from_millis(millis);
        let end = humantime::format_rfc3339_seconds(end);
        let file = self.site.key_file("laptop");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}not_after = {end}\n")).unwrap();
    }

    fn restart(&mut self, signal: Signal) {
        self.daemon.signal(signal);
        self.daemon.end();
        self.daemon = self.site.daemon_by(&self.clock);
    }
}

#[test]
fn back_by_an_hour_and_by_a_day() {
    for by in [-HOUR, -DAY] {
        let mut it = Fixture::new();
        let first = it.accepted(0);
        it.clock.jump(by);
        it.refused_again(&[first]);
        // A client whose clock is as wrong gets in, once.
        let wrong = it.accepted(0);
        it.refused_again(&[first, wrong]);
        it.clock.jump(-by);
        let right = it.accepted(0);
        it.refused_again(&[first, wrong, right]);
        // What was good by the wrong clock is not good a second time by it.
        it.clock.jump(by);
        it.refused_again(&[first, wrong, right]);
        it.restart(Signal::SIGTERM);
        it.refused_again(&[first, wrong, right]);
        it.clock.jump(-by);
        let again = it.accepted(0);
        it.refused_again(&[first, wrong, right, again]);
    }
}

#[test]
fn forward_by_a_year_and_back_again() {
    let mut it = Fixture::new();
    // A key that ends within the year is as good as before when the clock is right.
    it.ends_at(it.clock.now() + u64::try_from(60 * DAY).unwrap());
    it.restart(Signal::SIGTERM);
    let first = it.accepted(0);
    it.clock.jump(YEAR);
    it.refused_again(&[first]);
    it.clock.jump(-YEAR);
    let right = it.accepted(0);
    it.refused_again(&[first, right]);
    // The same with a daemon that starts by the wrong clock, and one that is killed there.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        it.clock.jump(YEAR);
        it.restart(signal);
        it.refused_again(&[first, right]);
        it.clock.jump(-YEAR);
        it.accepted(0);
        it.refused_again(&[first, right]);
        it.clock.jump(YEAR);
        it.refused_again(&[first, right]);
        it.restart(signal);
        it.clock.jump(-YEAR);
        it.accepted(0);
        it.refused_again(&[first, right]);
    }
}

#[test]
fn a_knock_accepted_by_a_clock_a_year_ahead_locks_nobody_out() {
    let mut it = Fixture::new();
    let first = it.accepted(0);
    it.clock.jump(YEAR);
    let ahead = it.accepted(0);
    it.refused_again(&[first, ahead]);
    it.clock.jump(-YEAR);
    let right = it.accepted(0);
    it.refused_again(&[first, ahead, right]);
    // Nor after a clean stop, when what was accepted is known and not only its end.
    it.restart(Signal::SIGTERM);
    let again = it.accepted(0);
    it.refused_again(&[first, ahead, right, again]);
    it.clock.jump(YEAR);
    it.refused_again(&[first, ahead, right, again]);
}

#[test]
fn a_start_in_1970() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut it = Fixture::new();
        let first = it.accepted(0);
        it.clock
            .jump(-i64::try_from(it.clock.now()).unwrap() + 2 * SECOND);
        it.restart(signal);
        it.refused_again(&[first]);
        // Fresh by that clock, older than what was accepted, and never seen.
        let old = it.accepted(0);
        it.clock.set(0);
        let right = it.accepted(0);
        it.refused_again(&[first, old, right]);
    }
}

#[test]
fn a_start_in_1970_without_a_state_accepts_nothing_again() {
    let mut it = Fixture::new();
    let first = it.accepted(0);
    it.daemon.signal(Signal::SIGKILL);
    it.daemon.end();
    fs::remove_dir_all(it.site.state()).unwrap();
    fs::create_dir(it.site.state()).unwrap();
    it.clock
        .jump(-i64::try_from(it.clock.now()).unwrap() + 2 * SECOND);
    it.daemon = it.site.daemon_by(&it.clock);
    it.refused_again(&[first]);
    // Only now does the daemon see by which clock those packets were made.
    it.clock.set(0);
    it.refused_again(&[first]);
}

#[test]
fn grants_end_on_time_whatever_the_clock_says() {
    let mut it = Fixture::new();
    let [short, long] = [it.site.lab.laptop.v6.into(), it.site.lab.laptop.v4.into()];
    let left = |it: &Fixture, address: IpAddr| {
        let mut guests = it.site.guests("ssh").into_iter();
        guests.find(|g| g.address == address).map(|g| g.expires)
    };
    it.accepted(300);
    for by in [-HOUR, -DAY, YEAR] {
        let mut knock = wire::open(Some("ssh"), 2);
        knock.timestamp = Timestamp(it.clock.now());
        let server = it.site.lab.server.v6.into();
        it.key.knock(&it.site.lab.laptop, server, &knock);
        it.daemon.expect(&format!("granted address={short}"));
        let before = left(&it, long).unwrap();
        it.clock.jump(by);
        // The daemon has looked at its clocks since.
        it.refused_again(&[]);
        assert!(left(&it, short).is_none_or(|left| left < 2));
        wait::until_true("the short grant's end", || left(&it, short).is_none());
        it.clock.set(0);
        it.refused_again(&[]);
        let after = left(&it, long).unwrap();
        assert!(after <= before && after > 200, "{before} s, then {after} s");
    }
    until_silent(&it.site.lab.laptop, it.site.lab.server.v6.into(), 22);
}
