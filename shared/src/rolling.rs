//! The rolling sequence: ports that follow from a generation's secret and the minute, so
//! that a recorded sequence is worthless soon after.

use crate::port::{Ports, Transport};
use crate::secret::Subkeys;
use crate::selector::Slot;
use ring::hmac;

/// How many steps it has.
pub const STEPS: usize = 6;
/// The TCP ports that its steps are drawn from.
pub const PORTS: std::ops::RangeInclusive<u16> = 10_000..=19_999;
/// How long each lasts, in seconds: the selector's minute.
pub const PERIOD_SECONDS: u32 = 60;

/// Numbers from here on are left out, so that every port is as likely as every other.
const LIMIT: u16 = 60_000;

/// The steps of a generation in a minute.
///
/// Block n is `HMAC-SHA256(sequence key, u64 slot || u32 n)` (RFC 2104), all numbers
/// big-endian, n from 0. The blocks are read one after the other as 16 u16 each; a number
/// from 60000 on is passed over, any other is port 10000 + number mod 10000, unless that
/// is at most 1 from a step before it. The first six are the steps; where they rise or
/// fall all the way, the first two change places.
#[must_use]
pub fn steps(keys: &Subkeys, slot: Slot) -> Vec<Ports> {
    let blocks = (0_u32..).flat_map(|block| {
        let input = [&slot.0.to_be_bytes()[..], &block.to_be_bytes()].concat();
        let tag = hmac::sign(&keys.sequence, &input);
        let pairs = tag.as_ref().chunks_exact(2);
        let numbers = pairs.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
        numbers.collect::<Vec<u16>>()
    });
    let mut steps: Vec<u16> = Vec::with_capacity(STEPS);
    for number in blocks.filter(|number| *number < LIMIT) {
        let port = PORTS.start() + number % 10_000;
        if !steps.iter().any(|step| step.abs_diff(port) <= 1) {
            steps.push(port);
        }
        if steps.len() == STEPS {
            break;
        }
    }
    if steps.is_sorted() || steps.iter().rev().is_sorted() {
        steps.swap(0, 1);
    }
    let single = |port| Ports::single(Transport::Tcp, port);
    steps.into_iter().filter_map(single).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Secret, ServerId};

    #[test]
    fn the_steps_are_those_of_the_vectors() {
        let rows: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("../tests/data/rolling.json")).unwrap();
        assert!(rows.len() >= 4);
        for row in rows {
            let secret: Secret = row["secret"].as_str().unwrap().parse().unwrap();
            let server: ServerId = row["server_id"].as_str().unwrap().parse().unwrap();
            let keys = Subkeys::derive(&secret, &server);
            let slot = Slot(row["slot"].as_u64().unwrap());
            let found: Vec<String> = steps(&keys, slot).iter().map(Ports::to_string).collect();
            let want: Vec<&str> = row["steps"]
                .as_array()
                .unwrap()
                .iter()
                .map(|step| step.as_str().unwrap())
                .collect();
            assert_eq!(found, want, "{}", row["name"]);
        }
    }

    #[test]
    fn in_every_minute_they_are_six_and_no_scan_has_them_right() {
        let keys = Subkeys::derive(&Secret::generate().unwrap(), &ServerId::generate().unwrap());
        for slot in 0..2_000 {
            let steps: Vec<u16> = steps(&keys, Slot(slot)).iter().map(Ports::first).collect();
            assert_eq!(steps.len(), STEPS);
            assert!(steps.iter().all(|port| PORTS.contains(port)));
            assert!(!steps.is_sorted() && !steps.iter().rev().is_sorted());
            for (at, step) in steps.iter().enumerate() {
                assert!(steps[..at].iter().all(|other| other.abs_diff(*step) > 1));
            }
        }
    }
}
