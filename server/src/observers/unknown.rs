//! The last packets with an unknown selector: of no key here, or of a key here whose client
//! has a clock that is wrong by more than the skew. Who has the keys and the time can find out
//! which from the selector.

use crate::control::answers::UnknownPacket;
use oneknock_shared::packet::Packet;
use std::collections::VecDeque;
use std::net::IpAddr;

/// So many are remembered: anybody can send such packets without end.
pub const MOST: usize = 64;

/// The memory.
#[derive(Debug, Default)]
pub struct UnknownSelectors {
    /// The latest last.
    packets: VecDeque<Seen>,
}

#[derive(Debug)]
struct Seen {
    at_ms: u64,
    address: IpAddr,
    selector: [u8; 8],
    times: u64,
}

impl UnknownSelectors {
    /// Takes note of a datagram; one that is not as long as a packet is none.
    pub fn note(&mut self, at_ms: u64, address: IpAddr, datagram: &[u8]) {
        let Some(packet) = Packet::read(datagram) else {
            return;
        };
        let selector = packet.selector().0;
        let is_same = |seen: &Seen| (seen.selector, seen.address) == (selector, address);
        let known = self.packets.iter().position(is_same);
        let known = known.and_then(|at| self.packets.remove(at));
        if self.packets.len() == MOST {
            self.packets.pop_front();
        }
        self.packets.push_back(Seen {
            at_ms,
            address,
            selector,
            times: known.map_or(0, |seen| seen.times).saturating_add(1),
        });
    }

    /// Those from this address, or all; the latest first.
    #[must_use]
    pub fn of(&self, address: Option<IpAddr>) -> Vec<UnknownPacket> {
        let asked = |seen: &&Seen| address.is_none_or(|address| seen.address == address);
        let packets = self.packets.iter().rev().filter(asked);
        let packets = packets.map(|seen| UnknownPacket {
            at_ms: seen.at_ms,
            address: seen.address,
            selector: format!("{:016x}", u64::from_be_bytes(seen.selector)),
            times: seen.times,
        });
        packets.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_are_remembered_and_the_like_counted() {
        let mut memory = UnknownSelectors::default();
        for byte in 0..200 {
            memory.note(byte.into(), [192, 0, 2, 7].into(), &[byte; 112]);
        }
        memory.note(300, [192, 0, 2, 9].into(), &[199; 112]);
        memory.note(301, [192, 0, 2, 9].into(), &[199; 112]);
        memory.note(302, [192, 0, 2, 9].into(), &[199; 111]);
        let all = memory.of(None);
        assert_eq!(all.len(), MOST);
        assert_eq!((all[0].at_ms, all[0].times), (301, 2));
        assert_eq!(all[0].selector, "c7c7c7c7c7c7c7c7");
        assert_eq!(memory.of(Some([192, 0, 2, 9].into())).len(), 1);
    }
}
