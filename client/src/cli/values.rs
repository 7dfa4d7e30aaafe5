//! Values of options, as people write them.

use std::time::Duration;

/// Whole seconds that fit the packet's field; 0 there means what the server's policy
/// says, and is not for asking.
pub(super) fn seconds(text: &str) -> Result<u16, String> {
    let time = humantime::parse_duration(text).ok();
    let seconds = time.filter(|time| time.subsec_nanos() == 0);
    let seconds = seconds.and_then(|time| u16::try_from(time.as_secs()).ok());
    seconds
        .filter(|&seconds| seconds > 0)
        .ok_or_else(|| "write it as 30s or 2h, whole seconds from 1s to 65535s".into())
}

/// Within what firewalls take for one sequence.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_secs(60);
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| range.contains(time))
        .ok_or_else(|| "write it as 100ms or 1s, from 1ms to 1m".into())
}

/// Often enough for the shortest grants, and not so often that a key's rate is used up.
pub(super) fn every(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(2)..=Duration::from_secs(3600);
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| range.contains(time))
        .ok_or_else(|| "write it as 10s or 5m, from 2s to 1h".into())
}

/// From nothing at all to what a person waits for.
pub(super) fn settle(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| *time <= Duration::from_secs(60))
        .ok_or_else(|| "write it as 350ms or 2s, from 0s to 1m".into())
}

/// Long enough for one attempt, short enough for a person to wait.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| range.contains(time))
        .ok_or_else(|| "write it as 10s or 1m, from 100ms to 1h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_stay_open_is_whole_seconds_in_the_fields_range() {
        for (text, want) in [("1s", 1), ("30s", 30), ("2h", 7200), ("65535s", 65535)] {
            assert_eq!(seconds(text), Ok(want));
        }
        for text in ["", "0s", "30", "-1s", "1500ms", "65536s", "1d", "x"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }
}
