//! Numbers, flags, durations and times.

use super::Section;
use oneknock_shared::knock::Timestamp;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

impl Section<'_, '_> {
    /// A whole number in a range, or `default` where the key is not there.
    pub fn number_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> Option<u32> {
        let Some(value) = self.optional(key) else {
            return Some(default);
        };
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|n| u32::from_str_radix(n.as_str(), n.radix()).ok())
            .filter(|n| range.contains(n));
        if number.is_none() {
            let (first, last) = range.into_inner();
            self.note(
                key,
                format!("must be a whole number from {first} to {last}"),
            );
        }
        number
    }

    /// A whole number in a range that must be there.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
        example: &str,
    ) -> Option<u32> {
        self.required(key, example)?;
        self.number_or(key, range, 0)
    }

    /// `true` or `false`; false where the key is not there.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        let Some(value) = self.optional(key) else {
            return Some(false);
        };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.note(key, "must be true or false");
        }
        flag
    }

    /// A duration such as `"30s"` or `"8h"` in a range; `default` where it is not there.
    pub fn duration_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Option<Duration> {
        let duration: Whole = self.text_or(key, Whole(default))?;
        if range.contains(&duration.0) {
            return Some(duration.0);
        }
        let (first, last) = range.into_inner();
        let text = humantime::format_duration;
        self.note(
            key,
            format!("must be from {} to {}", text(first), text(last)),
        );
        None
    }

    /// A point in time, UTC, where the key is there: `2026-01-31T12:00:00Z`, unquoted.
    #[expect(clippy::option_option, reason = "absent and wrong are two things here")]
    pub fn time(&mut self, key: &'static str) -> Option<Option<Timestamp>> {
        let Some(value) = self.optional(key) else {
            return Some(None);
        };
        let time = value
            .get_ref()
            .as_datetime()
            .and_then(|time| humantime::parse_rfc3339(&time.to_string()).ok())
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok());
        if time.is_none() {
            self.note(
                key,
                "must be a time in UTC such as 2026-01-31T12:00:00Z, without quotes",
            );
        }
        time.map(|ms| Some(Timestamp(ms)))
    }
}

/// A duration of whole seconds, as people write it.
struct Whole(Duration);

impl FromStr for Whole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|_| {
            format!("{text:?} is not a duration; write for example \"30s\" or \"8h\"")
        })?;
        if duration.subsec_nanos() == 0 {
            Ok(Self(duration))
        } else {
            Err(format!("{text:?} is not a whole number of seconds"))
        }
    }
}
