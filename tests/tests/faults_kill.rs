//! SIGKILL at random points of a stream of knocks, restarted each time: nothing is
//! accepted twice, what the log acknowledged was granted, and grants end on time.
#![allow(clippy::unwrap_used)] // A test's panic is its verdict.

use nix::sys::signal::Signal;
use oneknock_shared::knock::Timestamp;
use oneknock_tests::chance::Chance;
use oneknock_tests::clock::WallClock;
use oneknock_tests::site::PORT;
use oneknock_tests::wire::{self, Key, until_read};
use oneknock_tests::{Site, binaries, figure};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LIVES: u32 = 200;
/// The kernel's timers, and rounding to seconds.
const SLACK: Duration = Duration::from_millis(1100);
const LEASE: i64 = 5_000;

/// A packet. Each admits an address of its own, so that log and kernel tell which it was.
struct Packet {
    bytes: [u8; 112],
    address: IpAddr,
    open_for: Duration,
    sent: Instant,
    /// When it was accepted, as nearly as can be told.
    accepted: Option<Range<Instant>>,
}

/// All packets so far.
#[derive(Default)]
struct Record {
    packets: Vec<Packet>,
    by_address: HashMap<IpAddr, usize>,
    granted_unlogged: usize,
}

/// An address that no other packet has.
fn address(number: usize) -> IpAddr {
    let number = u32::try_from(number).unwrap();
    if number.is_multiple_of(2) {
        Ipv4Addr::from_bits(0x0a00_0001 + number).into()
    } else {
        Ipv6Addr::from(0x2001_0db8_000f_u128 << 80 | u128::from(number)).into()
    }
}

fn make(key: &Key, number: usize, now: u64, chance: &mut Chance) -> Packet {
    // Most clients' clocks are right; some are a few seconds off.
    let off = if chance.percent(20) {
        chance.below(6_000)
    } else {
        3_000
    };
    let seconds = if chance.percent(40) { 2 } else { 600 };
    let mut knock = wire::open(Some("ssh"), seconds);
    knock.timestamp = Timestamp(now - 3_000 + off);
    knock.address = Some(address(number));
    Packet {
        bytes: key.seal(&knock),
        address: address(number),
        open_for: Duration::from_secs(seconds.into()),
        sent: Instant::now(),
        accepted: None,
    }
}

impl Record {
    fn add(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            self.by_address.insert(packet.address, self.packets.len());
            self.packets.push(packet);
        }
    }

    fn accepted(&self) -> usize {
        self.packets.iter().filter(|p| p.accepted.is_some()).count()
    }

    /// Takes note of what a daemon said in its life, and holds it against what the kernel
    /// has. Gives how many packets were accepted.
    fn check(&mut self, site: &Site, lines: &[String], life: &Range<Instant>) -> usize {
        let had = self.accepted();
        for line in lines.iter().filter(|l| l.contains(" granted ")) {
            let address = line.split("address=").nth(1).unwrap();
            let address = address.split(' ').next().unwrap().parse().unwrap();
            let packet = &mut self.packets[self.by_address[&address]];
            assert!(packet.accepted.is_none(), "accepted twice: {line}");
            packet.accepted = Some(packet.sent.max(life.start)..life.end);
        }
        let before = Instant::now();
        let guests = site.guests("ssh");
        let after = Instant::now();
        let guests: HashMap<_, _> = guests.iter().map(|g| (g.address, g.expires)).collect();
        for packet in &mut self.packets {
            let guest = guests.get(&packet.address);
            if guest.is_some() && packet.accepted.is_none() {
                // Killed between the grant and its line.
                packet.accepted = Some(packet.sent.max(life.start)..life.end);
                self.granted_unlogged += 1;
            }
            let Some(accepted) = &packet.accepted else {
                continue;
            };
            let (address, open_for) = (packet.address, packet.open_for);
            if let Some(&left) = guest {
                let latest = accepted.end + open_for + SLACK;
                let ends = before + Duration::from_secs(left);
                assert!(ends <= latest, "{address} has {left} s more: too long");
            } else {
                let earliest = accepted.start + open_for;
                let over = after + SLACK >= earliest;
                assert!(over, "{address} was granted for {open_for:?} and is gone");
            }
        }
        self.accepted() - had
    }
}

/// Sends packets as they are, from a socket on the laptop.
struct Stream<'s> {
    site: &'s Site,
    socket: UdpSocket,
}

impl<'s> Stream<'s> {
    fn new(site: &'s Site) -> Self {
        let socket = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = site.lab.laptop.enter(socket);
        Self { site, socket }
    }

    fn send(&self, packet: &Packet) {
        let to = (self.site.lab.server.v4, PORT);
        self.socket.send_to(&packet.bytes, to).unwrap();
    }

    /// Every packet again, not faster than they are read.
    fn again(&self, packets: &[Packet]) {
        for some in packets.chunks(100) {
            for packet in some {
                self.send(packet);
            }
            until_read(&self.site.lab.server, PORT);
        }
    }
}

#[test]
fn two_hundred_kills_in_a_stream_of_knocks() {
    let site = Site::new(binaries!());
    let key = site.key("laptop", &["ssh"]);
    for (name, value) in [("admit_others", "true"), ("grants", "1000000")] {
        site.set(&site.key_file("laptop"), name, value);
    }
    site.set(&site.key_file("laptop"), "knocks_per_minute", "10000000");
    // So that no packet of the test is refused for its age alone.
    site.set(&site.config(), "skew", "\"10m\"");
    let mut clock = WallClock::new(site.lab.dir());
    let mut chance = Chance::new("kill");
    let mut record = Record::default();
    let stream = Stream::new(&site);
    let mut lives_with_some = 0;
    for _ in 0..LIVES {
        // Now and then it was away for longer than a lease lasts.
        if chance.percent(40) {
            clock.jump(LEASE + 3_000);
        }
        let start = Instant::now();
        let mut daemon = site.daemon_unready_by(&clock);
        if chance.percent(90) {
            daemon.expect("oneknockd: ready ");
        }
        let recent = record.packets.len().saturating_sub(60);
        stream.again(&record.packets[recent..]);
        let stop = AtomicBool::new(false);
        let life = Duration::from_micros(chance.below(60_000));
        let new = std::thread::scope(|scope| {
            let first = record.packets.len();
            let (key, clock, stop, old) = (&key, &clock, &stop, &record.packets);
            let (chance, stream) = (&mut chance, &stream);
            let thread = scope.spawn(move || {
                let mut new = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let packet = make(key, first + new.len(), clock.now(), chance);
                    stream.send(&packet);
                    new.push(packet);
                    let n = chance.below(u64::try_from(old.len() + new.len()).unwrap());
                    let n = usize::try_from(n).unwrap();
                    stream.send(old.get(n).unwrap_or_else(|| &new[n - old.len()]));
                    std::thread::sleep(Duration::from_micros(chance.below(4_000)));
                }
                new
            });
            std::thread::sleep(life);
            daemon.signal(Signal::SIGKILL);
            daemon.end();
            stop.store(true, Ordering::Relaxed);
            thread.join().unwrap()
        });
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
    let unlogged = record.granted_unlogged;
    figure(format_args!(
        "kill: {number} packets in {LIVES} lives: {killed} accepted, {unlogged} of them without a line, in {lives_with_some} lives; {late} accepted in the end"
    ));
}
