//! What becomes of a packet on its way, and the thief who sees them all.

use super::{Happening, World};
use crate::model::Made;
use oneknock_shared::knock::Knock;
use oneknock_shared::packet::seal;
use oneknock_tests::chance::Chance;
use std::net::{IpAddr, Ipv4Addr};

/// A datagram.
pub enum Datagram {
    /// One that a holder of a key made: its number.
    Made(usize),
    /// Bytes that none of them made.
    Forged(Vec<u8>),
}

/// How good the line between clients and server is.
pub struct Line {
    /// Packets in a hundred.
    lost: u64,
    doubled: u64,
    /// Milliseconds on the way at most.
    delay: u64,
}

impl Line {
    pub fn good() -> Self {
        Self {
            lost: 0,
            doubled: 0,
            delay: 50,
        }
    }
}

pub fn thief_address(chance: &mut Chance) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, u8::try_from(chance.below(20)).unwrap()).into()
}

impl World {
    pub(super) fn change_line(&mut self) {
        let (lost, doubled, delay) = *self.chance.pick(&[
            (0, 0, 50),
            (0, 0, 50),
            (2, 2, 200),
            (30, 5, 3_000),
            (30, 20, 3_000),
            (10, 10, 60_000),
        ]);
        self.line = Line {
            lost,
            doubled,
            delay,
        };
        let next = self.chance.between(10_000, 600_000);
        self.after(next, Happening::LineChanges);
    }

    fn make(&mut self, device: usize, generation: usize, knock: Knock) -> usize {
        let key = self.devices[device].key.clone();
        let subkeys = &self.site.rings[&key][generation];
        let bytes = seal(subkeys, &knock, self.chance.bytes()).to_vec();
        let generation = subkeys.id();
        let number = self.made.len();
        self.caught.insert((knock.timestamp.0, number));
        self.made.push(Made {
            key,
            generation,
            knock,
            bytes,
        });
        number
    }

    /// Seals and sends; the network and the thief do what they do.
    pub(super) fn send(&mut self, device: usize, generation: usize, knock: Knock) {
        let made = self.make(device, generation, knock);
        let source = self.devices[device].address;
        let copies = if self.chance.percent(self.line.lost) {
            0
        } else if self.chance.percent(self.line.doubled) {
            self.chance.between(2, 3)
        } else {
            1
        };
        for _ in 0..copies {
            let delay = self.delay();
            self.after(delay, Happening::Arrive(Datagram::Made(made), source));
        }
        if self.chance.percent(30) {
            let delay = match self.chance.below(4) {
                0 => 0,
                1 => self.chance.below(100),
                2 => self.chance.below(20_000),
                _ => (self.skew() + self.chance.below(100)).saturating_sub(50),
            };
            let from = if self.chance.percent(70) {
                thief_address(&mut self.chance)
            } else {
                source
            };
            self.after(delay, Happening::Arrive(Datagram::Made(made), from));
        }
        if self.chance.percent(25) {
            let forged = self.forge(made);
            let delay = self.delay();
            self.after(delay, Happening::Arrive(Datagram::Forged(forged), source));
        }
    }

    /// There is no way at all between it and the server.
    pub(super) fn send_at_once(
        &mut self,
        device: usize,
        generation: usize,
        knock: Knock,
        source: IpAddr,
    ) {
        let made = self.make(device, generation, knock);
        self.arrive(&Datagram::Made(made), source);
    }

    fn delay(&mut self) -> u64 {
        self.chance.below(self.line.delay + 1)
    }

    /// A packet with something changed, or with a known selector and nothing else.
    pub(super) fn forge(&mut self, made: usize) -> Vec<u8> {
        let genuine = &self.made[made].bytes;
        let (mut bytes, length) = (genuine.clone(), genuine.len());
        match self.chance.below(6) {
            0 => bytes.truncate(self.chance.index(length)),
            1 => bytes.resize(length + 1 + self.chance.index(1400), 0),
            2 => self.chance.fill(&mut bytes[8..]),
            3 => self.chance.fill(&mut bytes),
            _ => {
                for _ in 0..self.chance.between(1, 3) {
                    let at = self.chance.index(length);
                    bytes[at] ^= 1 << self.chance.below(8);
                }
                if bytes == *genuine {
                    bytes[0] ^= 1;
                }
            }
        }
        bytes
    }

    /// Random bytes, mostly as many as a packet has.
    pub(super) fn random_datagram(&mut self) -> Vec<u8> {
        let of_packet = self.made.last().map_or(112, |made| made.bytes.len());
        let length = if self.chance.percent(20) {
            self.chance.index(2000)
        } else {
            of_packet
        };
        let mut bytes = vec![0; length];
        self.chance.fill(&mut bytes);
        bytes
    }

    /// The thief sends again what he has that the server's clock may let in.
    pub(super) fn trawl(&mut self) {
        let (skew, wall) = (self.skew(), self.now().wall.0);
        let window = (wall.saturating_sub(skew + 1), 0)..(wall + skew + 2, 0);
        let fit = self.caught.range(window);
        let mut fit: Vec<usize> = fit.map(|&(_, made)| made).collect();
        while fit.len() > 150 {
            fit.swap_remove(self.chance.index(fit.len()));
        }
        for made in fit {
            if !self.is_up {
                return;
            }
            let from = thief_address(&mut self.chance);
            self.arrive(&Datagram::Made(made), from);
        }
    }
}
