//! A point in time as the command line writes it.

use oneknock_shared::knock::Timestamp;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

/// A time in UTC, or so long from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At that time.
    At(Timestamp),
    /// So many milliseconds from now.
    In(u64),
}

impl Moment {
    /// Which time that is. The year 9999 is the last that a key file can name.
    #[must_use]
    pub fn after(self, now: Timestamp) -> Timestamp {
        let last = 253_402_300_799_999;
        match self {
            Self::At(at) => at,
            Self::In(ms) => Timestamp(now.0.saturating_add(ms).min(last)),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wanted =
            "neither a time in UTC such as 2027-01-31T08:00:00Z nor one from now such as 2d";
        if let Ok(span) = humantime::parse_duration(text) {
            let ms = u64::try_from(span.as_millis());
            return ms.map(Self::In).map_err(|_| wanted);
        }
        let time = humantime::parse_rfc3339(text).ok();
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
        ms.map(|ms| Self::At(Timestamp(ms))).ok_or(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_or_a_span_from_now() {
        let now = Timestamp(1_800_000_000_000);
        let at = |text: &str| text.parse::<Moment>().map(|m| m.after(now).0);
        assert_eq!(at("2027-01-15T08:00:01Z"), Ok(1_800_000_001_000));
        assert_eq!(at("2d"), Ok(1_800_172_800_000));
        for bad in ["", "tomorrow", "2027-01-15", "-1d", "1969-12-31T23:59:59Z"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert_eq!(at("500000000years"), Ok(253_402_300_799_999));
    }
}
