//! The selector: eight bytes that change every minute and tell the server, at the cost
//! of one table probe, whether a packet is worth any cryptography at all.

use crate::knock::Timestamp;
use crate::secret::Subkeys;
use ring::hmac;
use std::ops::RangeInclusive;

/// The minute that a selector belongs to: whole seconds since the Unix epoch / 60,
/// rounded down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u64);

impl Slot {
    /// The slot in which `timestamp` lies.
    #[must_use]
    pub fn of(timestamp: Timestamp) -> Self {
        Self(timestamp.0 / 60_000)
    }

    /// The slots of `now - skew` to `now + skew`, both in milliseconds; saturates.
    #[must_use]
    pub fn around(now: Timestamp, skew_ms: u64) -> RangeInclusive<u64> {
        let first = Self::of(Timestamp(now.0.saturating_sub(skew_ms))).0;
        let last = Self::of(Timestamp(now.0.saturating_add(skew_ms))).0;
        first..=last
    }
}

/// The first 8 bytes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(pub [u8; 8]);

impl Selector {
    /// First 8 bytes of `HMAC-SHA256(selector key, u64 slot)`, the slot big-endian
    /// (RFC 2104).
    #[must_use]
    pub fn new(keys: &Subkeys, slot: Slot) -> Self {
        let tag = hmac::sign(&keys.selector, &slot.0.to_be_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&tag.as_ref()[..8]);
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_a_minute() {
        assert_eq!(Slot::of(Timestamp(0)), Slot(0));
        assert_eq!(Slot::of(Timestamp(59_999)), Slot(0));
        assert_eq!(Slot::of(Timestamp(60_000)), Slot(1));
    }

    #[test]
    fn the_window_saturates_at_both_ends_of_time() {
        assert_eq!(Slot::around(Timestamp(5), 30_000), 0..=0);
        let end = u64::MAX / 60_000;
        assert_eq!(Slot::around(Timestamp(u64::MAX), 60_000), end - 1..=end);
    }
}
