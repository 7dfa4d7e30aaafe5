//! How old a profile's key is, and how long it lasts. Pure.

use crate::profile::Profile;
use crate::profile::file;
use oneknock_shared::knock::Timestamp;
use std::time::{Duration, UNIX_EPOCH};

const DAY: u64 = 24 * 3600 * 1000;
/// So long before a key's end its holder is told, in ms.
const SOON: u64 = 14 * DAY;

/// A date in UTC, to the second. Invitations and profiles hold none after the year 9999.
#[must_use]
pub fn date(at: Timestamp) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(at.0);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn days(ms: u64) -> String {
    match ms / DAY {
        0 => "less than a day".into(),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}

/// How old it is; `None` where nobody has said when it was made.
#[must_use]
pub fn age(made: Option<Timestamp>, now: Timestamp) -> Option<String> {
    made.map(|made| days(now.0.saturating_sub(made.0)))
}

/// What there is to say about a profile's key, and what to do.
#[must_use]
pub fn warnings(profile: &Profile, now: Timestamp) -> Vec<(String, String)> {
    rotation(profile, now)
        .into_iter()
        .chain(expiry(profile, now))
        .collect()
}

fn rotation(profile: &Profile, now: Timestamp) -> Option<(String, String)> {
    let name = profile.name();
    let rotate = format!("oneknock rotate {name}");
    if profile.next.is_some() {
        let what = format!("{name}: a key rotation is in progress");
        return Some((what, format!("complete it: {rotate}")));
    }
    let begun = profile.begun?;
    // As long as "oneknockctl key rotate" leaves the old one. What works after that was not
    // ended.
    let end = Timestamp(begun.0.saturating_add(7 * DAY).min(file::LAST));
    let what = format!(
        "{name}: a key rotation was begun at {}, and the server's answer did not arrive: the current key may expire at {}",
        date(begun),
        date(end)
    );
    (now < end).then(|| (what, format!("run it again before then: {rotate}")))
}

fn expiry(profile: &Profile, now: Timestamp) -> Option<(String, String)> {
    let (name, key) = (profile.name(), &profile.invitation.key);
    let end = profile.invitation.not_after?;
    if end < now {
        let what = format!("{name}: the key expired at {}", date(end));
        let ask = format!("on the server, for a new invitation: oneknockctl key rotate {key}");
        return Some((what, ask));
    }
    let left = end.0 - now.0;
    let what = format!(
        "{name}: the key expires in {}, at {}",
        days(left),
        date(end)
    );
    let extend = format!("on the server: oneknockctl key rotate {key} --not-after TIME");
    (left < SOON).then_some((what, extend))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn profile(not_after: Option<u64>) -> Profile {
        let rows = include_str!("../../../shared/tests/data/invitations.json");
        let mut texts = rows.split('"');
        let line = texts.find(|text| text.starts_with("oneknock1:")).unwrap();
        let mut invitation: oneknock_shared::invitation::Invitation = line.parse().unwrap();
        invitation.not_after = not_after.map(Timestamp);
        Profile {
            invitation,
            next: None,
            begun: None,
            falls_back: false,
        }
    }

    #[test]
    fn an_age_is_in_days_and_unknown_where_nobody_said() {
        let aged = |ms: u64| age(Some(Timestamp(NOW.0 - ms)), NOW).unwrap();
        assert_eq!(aged(0), "less than a day");
        assert_eq!(aged(DAY), "1 day");
        assert_eq!(aged(100 * DAY + 1), "100 days");
        assert_eq!(
            age(Some(Timestamp(NOW.0 + DAY)), NOW).unwrap(),
            "less than a day"
        );
        assert_eq!(age(None, NOW), None);
    }

    #[test]
    fn a_coming_end_is_told_and_a_far_one_is_not() {
        assert_eq!(warnings(&profile(None), NOW), []);
        assert_eq!(warnings(&profile(Some(NOW.0 + 15 * DAY)), NOW), []);
        let (soon, _) = warnings(&profile(Some(NOW.0 + 13 * DAY)), NOW).remove(0);
        assert!(soon.contains("expires in 13 days, at 2027-01-28"), "{soon}");
        let (past, what) = warnings(&profile(Some(NOW.0 - 1)), NOW).remove(0);
        assert!(past.contains("expired at"), "{past}");
        assert!(what.contains("key rotate"), "{what}");
    }

    #[test]
    fn a_rotation_whose_answer_got_lost_is_told_with_when_the_secret_may_end() {
        let mut profile = profile(None);
        profile.begun = Some(NOW);
        let (what, to_do) = warnings(&profile, NOW).remove(0);
        for part in [
            "begun at 2027-01-15T08:00:00Z",
            "may expire at 2027-01-22T08:00:00Z",
        ] {
            assert!(what.contains(part), "{what}");
        }
        assert!(to_do.contains("oneknock rotate"), "{to_do}");
        // What expires is said besides, and what lies behind is not.
        profile.invitation.not_after = Some(Timestamp(NOW.0 + DAY));
        assert_eq!(warnings(&profile, NOW).len(), 2);
        let later = Timestamp(NOW.0 + 8 * DAY);
        profile.invitation.not_after = None;
        assert_eq!(warnings(&profile, later), []);
    }

    #[test]
    fn a_rotation_under_way_is_told() {
        let mut profile = profile(None);
        profile.next = Some(profile.invitation.clone());
        let (what, to_do) = warnings(&profile, NOW).remove(0);
        assert!(
            what.contains("in progress") && to_do.contains("complete it"),
            "{what}"
        );
    }
}
