//! What worked, for each network that this computer was in: which address of the server, which
//! kind of packet, how long a round trip takes. No secrets. Pure.
//!
//! A network is known by this computer's own address in it. What is remembered only orders what
//! is tried; where it is wrong, the rest follows, and it is forgotten.

use oneknock_shared::knock::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Networks are kept at most.
const MAX_NETWORKS: usize = 32;
/// For so long it counts, in ms: then the stronger kind of packet goes first again.
const MAX_AGE: u64 = 24 * 3600 * 1000;
/// What is as it was is written again after this long, in ms.
const REFRESH: u64 = 3600 * 1000;

/// What worked in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The server's address.
    pub address: IpAddr,
    /// Whether the packet without this computer's address opened.
    pub by_source: bool,
    /// The round trip, in ms.
    pub round_trip_ms: u64,
    /// When, in ms since the Unix epoch.
    pub at: u64,
}

/// What is remembered for one profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    networks: BTreeMap<String, Remembered>,
}

impl Memory {
    /// Reads a file's text; nothing where it is none.
    #[must_use]
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// A file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What worked in the network where this computer has that address, not too long ago.
    #[must_use]
    pub fn of(&self, own: IpAddr, now: Timestamp) -> Option<&Remembered> {
        let remembered = self.networks.get(&network(own))?;
        (now.0.abs_diff(remembered.at) < MAX_AGE).then_some(remembered)
    }

    /// Takes in what worked.
    pub fn remember(&mut self, own: IpAddr, what: Remembered) {
        let network = network(own);
        if let Some(before) = self.networks.get(&network) {
            let is_the_same = (before.address, before.by_source) == (what.address, what.by_source);
            // One that goes on being right is due for another look after its time.
            let is_fresh = what.at.abs_diff(before.at) < REFRESH;
            if is_the_same && (is_fresh || what.by_source) && what.at.abs_diff(before.at) < MAX_AGE
            {
                return;
            }
        }
        self.networks.insert(network, what);
        while self.networks.len() > MAX_NETWORKS {
            let oldest = self.networks.iter().min_by_key(|(_, r)| r.at);
            let Some(oldest) = oldest.map(|(network, _)| network.clone()) else {
                return;
            };
            self.networks.remove(&oldest);
        }
    }

    /// Forgets what worked in this network.
    pub fn forget(&mut self, own: IpAddr) {
        self.networks.remove(&network(own));
    }
}

/// The name of the network: an IPv6 host changes its lower half from day to day.
fn network(own: IpAddr) -> String {
    match own {
        IpAddr::V4(own) => own.to_string(),
        IpAddr::V6(own) => {
            let [a, b, c, d, ..] = own.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn worked(at: u64, by_source: bool) -> Remembered {
        Remembered {
            address: ip("192.0.2.10"),
            by_source,
            round_trip_ms: 12,
            at,
        }
    }

    #[test]
    fn it_is_known_by_the_network_and_read_as_it_is_written() {
        let mut memory = Memory::default();
        memory.remember(ip("2001:db8:0:2::7"), worked(NOW, true));
        let memory = Memory::read(&memory.to_text());
        let now = Timestamp(NOW);
        assert!(memory.of(ip("2001:db8:0:2::99"), now).is_some());
        assert!(memory.of(ip("2001:db8:0:3::7"), now).is_none());
        assert_eq!(Memory::read("{"), Memory::default());
    }

    #[test]
    fn it_is_forgotten_when_it_failed_and_after_a_day() {
        let own = ip("198.51.100.7");
        let mut memory = Memory::default();
        memory.remember(own, worked(NOW, true));
        assert!(memory.of(own, Timestamp(NOW + MAX_AGE)).is_none());
        // Being used does not make it younger: the stronger packet gets its turn.
        memory.remember(own, worked(NOW + 2 * REFRESH, true));
        assert!(memory.of(own, Timestamp(NOW + MAX_AGE)).is_none());
        memory.forget(own);
        assert!(memory.of(own, Timestamp(NOW)).is_none());
    }

    #[test]
    fn only_so_many_networks_are_kept_and_the_oldest_goes() {
        let mut memory = Memory::default();
        for n in 0..40_u8 {
            let own = IpAddr::from([10, 0, 0, n]);
            memory.remember(own, worked(NOW + u64::from(n), false));
        }
        assert_eq!(memory.networks.len(), MAX_NETWORKS);
        assert!(memory.of(ip("10.0.0.0"), Timestamp(NOW)).is_none());
        assert!(memory.of(ip("10.0.0.39"), Timestamp(NOW)).is_some());
    }
}
