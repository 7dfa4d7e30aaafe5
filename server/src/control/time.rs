//! Times as they are said over the control socket.

use std::time::Duration;

/// Seconds, rounded up.
#[must_use]
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Milliseconds since 1970-01-01 UTC, said as RFC 3339 has it.
pub(super) mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::{Duration, UNIX_EPOCH};

    /// The last one that can be written: the end of the year 9999.
    const LAST: u64 = 253_402_300_799_999;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub fn serialize<S: Serializer>(ms: &u64, to: S) -> Result<S::Ok, S::Error> {
        let time = UNIX_EPOCH + Duration::from_millis((*ms).min(LAST));
        to.collect_str(&humantime::format_rfc3339_millis(time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        let time = humantime::parse_rfc3339(&text).map_err(D::Error::custom)?;
        let since = time.duration_since(UNIX_EPOCH).map_err(D::Error::custom)?;
        u64::try_from(since.as_millis()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct At(#[serde(with = "super::rfc3339")] u64);

    #[test]
    fn times_are_said_and_read_to_the_millisecond() {
        let said = |ms| serde_json::to_string(&At(ms)).unwrap();
        assert_eq!(said(1_800_000_000_007), "\"2027-01-15T08:00:00.007Z\"");
        assert_eq!(said(u64::MAX), "\"9999-12-31T23:59:59.999Z\"");
        let read = |text: &str| serde_json::from_str::<At>(text).map_err(drop);
        let said = said(1_800_000_000_007);
        assert_eq!(read(&said).unwrap(), At(1_800_000_000_007));
        assert!(read("\"soon\"").is_err() && read("7").is_err());
    }
}
