//! Finds out which key and minute an unknown selector belongs to: its client's clock is off.
//! Every minute around is tried, for which the daemon has no time. Pure.

use crate::config::Settings;
use crate::control::answers::{Rejected, UnknownPacket};
use crate::control::watch::{Happened, WatchEvent};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::Subkeys;
use oneknock_shared::selector::{Selector, Slot};
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// Minutes that are tried in all, of all keys together: a second or two.
const BUDGET: u64 = 4_000_000;
/// No clock is looked for that is wrong by more minutes than this: 31 days.
const FARTHEST: u64 = 31 * 24 * 60;

/// Those of a key of these settings, as refusals whose reason is the clock; and how many
/// were of none.
#[must_use]
pub fn find(settings: &Settings, unknown: &[UnknownPacket]) -> (Vec<Rejected>, usize) {
    let mut wanted: HashMap<Selector, Vec<&UnknownPacket>> = HashMap::new();
    for packet in unknown {
        if let Ok(selector) = u64::from_str_radix(&packet.selector, 16) {
            let selector = Selector(selector.to_be_bytes());
            wanted.entry(selector).or_default().push(packet);
        }
    }
    let times = unknown.iter().map(|packet| packet.at_ms);
    let (Some(first), Some(last)) = (times.clone().min(), times.max()) else {
        return (Vec::new(), 0);
    };
    let generations: usize = settings.keys.iter().map(|key| key.generations.len()).sum();
    let slots = slots_to_try(Timestamp(first), Timestamp(last), generations);
    let mut found = Vec::new();
    for key in &settings.keys {
        for generation in &key.generations {
            let subkeys = Subkeys::derive(&generation.secret, &settings.config.server_id);
            for slot in slots.clone() {
                let packets = wanted.remove(&Selector::new(&subkeys, Slot(slot)));
                for packet in packets.into_iter().flatten() {
                    let address = Some(packet.address);
                    found.push(Rejected {
                        last: WatchEvent {
                            reason: Some("clock-skew".into()),
                            ahead_seconds: Some(ahead(slot, packet.at_ms)),
                            ..WatchEvent::new(packet.at_ms, Happened::Ignored, &key.name, address)
                        },
                        times: packet.times,
                    });
                }
            }
        }
    }
    let left = wanted.values().map(Vec::len).sum();
    (found, left)
}

/// The minutes that are tried of each generation, for packets that came from `first` to `last`:
/// those around. However long ago the first of them came, so many are tried and no more, up to
/// those around the last.
fn slots_to_try(first: Timestamp, last: Timestamp, generations: usize) -> RangeInclusive<u64> {
    let each = BUDGET / u64::try_from(generations).unwrap_or(u64::MAX).max(1);
    let around = (each / 2).min(FARTHEST);
    let last = Slot::of(last).0.saturating_add(around);
    let first = Slot::of(first).0.saturating_sub(around);
    first.max(last.saturating_sub(each))..=last
}

/// In whole minutes: the packet was made at some moment of its minute.
fn ahead(slot: u64, at_ms: u64) -> i64 {
    let made = slot.saturating_mul(60).saturating_add(30);
    let ahead = i64::try_from(made).unwrap_or(i64::MAX) - i64::try_from(at_ms / 1000).unwrap_or(0);
    (ahead + ahead.signum() * 30) / 60 * 60
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Generation, Key, Policy};
    use oneknock_shared::secret::{Secret, ServerId};

    const NOW: u64 = 1_800_000_010_000;

    fn settings() -> Settings {
        let id = ServerId::generate().unwrap();
        let (name, host) = ("home".parse().unwrap(), "home.test".parse().unwrap());
        let generation = Generation {
            number: 1,
            secret: Secret::generate().unwrap(),
            not_before: None,
            not_after: None,
            overlap_until: None,
            made: None,
        };
        let key = Key {
            name: "laptop".parse().unwrap(),
            policy: Policy::new(vec!["ssh".parse().unwrap()]),
            generations: vec![generation],
        };
        Settings {
            config: Config::new(name, host, 45123, id),
            keys: vec![key],
        }
    }

    fn unknown(settings: &Settings, ahead_seconds: i64) -> UnknownPacket {
        let secret = &settings.keys[0].generations[0].secret;
        let keys = Subkeys::derive(secret, &settings.config.server_id);
        let made = NOW.saturating_add_signed(ahead_seconds * 1000);
        let selector = Selector::new(&keys, Slot::of(Timestamp(made)));
        UnknownPacket {
            at_ms: NOW,
            address: [192, 0, 2, 7].into(),
            selector: format!("{:016x}", u64::from_be_bytes(selector.0)),
            times: 2,
        }
    }

    #[test]
    fn a_clock_that_is_hours_or_weeks_off_is_found_to_the_minute() {
        let settings = settings();
        for ahead in [-14_520, 3600, 90, 30 * 86_400, -30 * 86_400] {
            let (found, left) = find(&settings, &[unknown(&settings, ahead)]);
            assert_eq!((found.len(), left), (1, 0), "{ahead}");
            assert_eq!(found[0].last.key, "laptop");
            let told = found[0].last.ahead_seconds.unwrap();
            assert!(told.abs_diff(ahead) <= 60, "{ahead}: {told}");
        }
    }

    #[test]
    fn what_is_of_no_key_is_counted() {
        let settings = settings();
        let mut stranger = unknown(&settings, 0);
        stranger.selector = "0123456789abcdef".into();
        let mut garbled = stranger.clone();
        garbled.selector = "not hexadecimal".into();
        let (found, left) = find(&settings, &[stranger, garbled]);
        assert_eq!((found.len(), left), (0, 1));
        assert_eq!(find(&settings, &[]).1, 0);
    }

    #[test]
    fn packet_of_a_year_ago_makes_the_search_no_longer() {
        const MINUTE: u64 = 60_000;
        let (now, year) = (Timestamp(NOW), Timestamp(NOW - 365 * 24 * 60 * MINUTE));
        for generations in [1, 50, 10_000, 10_000_000] {
            let of_each = BUDGET / u64::try_from(generations).unwrap();
            let slots = slots_to_try(year, now, generations);
            let tried = slots.end() - slots.start();
            assert!(tried <= of_each, "{generations}: {tried}");
            // The latest packet's own minute is among them, whatever the others take.
            assert!(slots.contains(&Slot::of(now).0), "{generations}: {slots:?}");
        }
        let near = slots_to_try(now, now, 1);
        assert_eq!(near.end() - near.start(), 2 * FARTHEST);
    }
}
