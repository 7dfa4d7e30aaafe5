//! Knocks of which each admits an address of its own, so that log and kernel tell which
//! of them were accepted, and how often; sent once and again, whatever befalls the daemon.

use crate::chance::Chance;
use crate::clock::WallClock;
use crate::site::{PORT, Site};
use crate::wire::{self, Key, until_read};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::LEN;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The kernel's timers, and rounding to seconds.
const SLACK: Duration = Duration::from_millis(1100);
/// How far some clients' clocks are off, in either direction, in milliseconds.
const OFF: u64 = 3_000;

/// A packet.
#[derive(Debug)]
pub struct Packet {
    bytes: [u8; LEN],
    address: IpAddr,
    open_for: Duration,
    sent: Instant,
    /// When it was accepted, as nearly as can be told.
    accepted: Option<Range<Instant>>,
    /// Whether the machine was restarted since: then no grant is left.
    lost: bool,
}

/// All packets so far.
#[derive(Debug, Default)]
pub struct Record {
    /// The packets, in the order in which they were made.
    pub packets: Vec<Packet>,
    by_address: HashMap<IpAddr, usize>,
    /// How many were granted although no log line says so.
    pub unlogged: usize,
    /// How often a list of the guests lacked one that was there.
    pub unlisted: usize,
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

/// A packet of this number, made now. Most clients' clocks are right; some are a few
/// seconds off.
fn make(key: &Key, number: usize, clock: &WallClock, chance: &mut Chance) -> Packet {
    let off = if chance.percent(20) {
        chance.below(2 * OFF)
    } else {
        OFF
    };
    let seconds = if chance.percent(80) { 2 } else { 600 };
    let mut knock = wire::open(Some("ssh"), seconds);
    knock.timestamp = Timestamp(clock.now() - OFF + off);
    knock.address = Some(address(number));
    Packet {
        bytes: key.seal(&knock),
        address: address(number),
        open_for: Duration::from_secs(seconds.into()),
        sent: Instant::now(),
        accepted: None,
        lost: false,
    }
}

impl Record {
    /// Adds packets.
    pub fn add(&mut self, packets: Vec<Packet>) {
        for packet in packets {
            self.by_address.insert(packet.address, self.packets.len());
            self.packets.push(packet);
        }
    }

    /// How many were accepted.
    pub fn accepted(&self) -> usize {
        self.packets.iter().filter(|p| p.accepted.is_some()).count()
    }

    /// Takes note of what a daemon said in its life, and holds it against what the kernel
    /// has. Gives how many packets were accepted.
    pub fn check(&mut self, site: &Site, lines: &[String], life: &Range<Instant>) -> usize {
        let had = self.accepted();
        for line in lines.iter().filter(|l| l.contains(" granted ")) {
            let address = line.split("address=").nth(1).unwrap();
            let address = address.split(' ').next().unwrap().parse().unwrap();
            let packet = &mut self.packets[self.by_address[&address]];
            assert!(packet.accepted.is_none(), "accepted twice: {line}");
            packet.accepted = Some(packet.sent.max(life.start)..life.end);
        }
        let before = Instant::now();
        let list = site.guests("ssh");
        let guests: HashMap<_, _> = list.iter().map(|g| (g.address, g.expires)).collect();
        let after = Instant::now();
        for packet in &mut self.packets {
            let guest = guests.get(&packet.address);
            if guest.is_some() && packet.accepted.is_none() {
                // Killed between the grant and its line.
                packet.accepted = Some(packet.sent.max(life.start)..life.end);
                self.unlogged += 1;
            }
            let Some(accepted) = &packet.accepted else {
                continue;
            };
            let (address, open_for) = (packet.address, packet.open_for);
            if let Some(&left) = guest {
                let latest = accepted.end + open_for + SLACK;
                let ends = before + Duration::from_secs(left);
                assert!(ends <= latest, "{address} has {left} s more: too long");
            } else if !packet.lost {
                let earliest = accepted.start + open_for;
                if after + SLACK >= earliest {
                    continue;
                }
                // A list that is made while the kernel's table grows lacks some that are
                // there. Asked for by itself each is found.
                let left = guests.len();
                assert!(
                    site.has_guest("ssh", address),
                    "{address} was granted for {open_for:?} and is gone; {left} are left"
                );
                self.unlisted += 1;
            }
        }
        self.accepted() - had
    }

    /// The machine was switched off: the kernel has lost every grant.
    pub fn lose_grants(&mut self) {
        for packet in &mut self.packets {
            packet.lost = packet.accepted.is_some();
        }
    }
}

/// Sends packets as they are, from a socket on the laptop.
#[derive(Debug)]
pub struct Stream<'s> {
    site: &'s Site,
    socket: UdpSocket,
}

impl<'s> Stream<'s> {
    /// Opens the socket.
    pub fn new(site: &'s Site) -> Self {
        let socket = || UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = site.lab.laptop.enter(socket);
        Self { site, socket }
    }

    /// Sends a packet.
    pub fn send(&self, packet: &Packet) {
        let to = (self.site.lab.server.v4, PORT);
        self.socket.send_to(&packet.bytes, to).unwrap();
    }

    /// Every packet again, not faster than they are read.
    pub fn again(&self, packets: &[Packet]) {
        for some in packets.chunks(100) {
            for packet in some {
                self.send(packet);
            }
            until_read(&self.site.lab.server, PORT);
        }
    }

    /// Sends new packets, and among them old ones again, a few milliseconds apart, until
    /// `stop` is set. Gives the new ones.
    pub fn flow(
        &self,
        key: &Key,
        clock: &WallClock,
        chance: &mut Chance,
        old: &[Packet],
        stop: &AtomicBool,
    ) -> Vec<Packet> {
        let mut new = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let packet = make(key, old.len() + new.len(), clock, chance);
            self.send(&packet);
            new.push(packet);
            let any = chance.below(u64::try_from(old.len() + new.len()).unwrap());
            let any = usize::try_from(any).unwrap();
            self.send(old.get(any).unwrap_or_else(|| &new[any - old.len()]));
            std::thread::sleep(Duration::from_micros(chance.below(4_000)));
        }
        new
    }
}

/// A key whose holder may admit any address, at any rate, on a site where packets are
/// good for so long that none is refused for its age alone.
pub fn generous_key(site: &Site) -> Key {
    let key = site.key("laptop", &["ssh"]);
    let file = site.key_file("laptop");
    site.set(&file, "allow_other_addresses", "true");
    site.set(&file, "max_grants", "1000000");
    site.set(&file, "knocks_per_minute", "10000000");
    site.set(&site.config(), "skew", "\"10m\"");
    key
}
