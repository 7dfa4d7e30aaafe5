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
pub fn old(made: Option<Timestamp>, now: Timestamp) -> Option<String> {
    made.map(|made| format!("{} old", days(now.0.saturating_sub(made.0))))
}

/// What there is to say about a profile's key, and what to do.
#[must_use]
pub fn warning(profile: &Profile, now: Timestamp) -> Option<(String, String)> {
    let name = profile.name();
    let rotate = format!("oneknock rotate {name}");
    if profile.next.is_some() {
        let what = format!("a rotation of profile {name} is under way");
        return Some((what, format!("{rotate} completes it")));
    }
    if let Some(begun) = profile.begun {
        // As long as "oneknockctl key rotate" leaves the old one.
        let end = Timestamp(begun.0.saturating_add(7 * DAY).min(file::LAST));
        let what = format!(
            "a rotation of profile {name} was begun at {}, and what the server said to it did not arrive: its secret may end at {}",
            date(begun),
            date(end)
        );
        return Some((what, format!("before then, again: {rotate}")));
    }
    let end = profile.invitation.not_after?;
    if end < now {
        let what = format!("the key of profile {name} has ended, {}", date(end));
        let ask = format!(
            "ask for a new invitation: oneknockctl key rotate {}",
            profile.invitation.key
        );
        return Some((what, ask));
    }
    let left = end.0 - now.0;
    let what = format!(
        "the key of profile {name} ends in {}, {}",
        days(left),
        date(end)
    );
    let extend = format!(
        "at the server: oneknockctl key rotate {} --not-after TIME",
        profile.invitation.key
    );
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
        let age = |ms: u64| old(Some(Timestamp(NOW.0 - ms)), NOW).unwrap();
        assert_eq!(age(0), "less than a day old");
        assert_eq!(age(DAY), "1 day old");
        assert_eq!(age(100 * DAY + 1), "100 days old");
        assert_eq!(
            old(Some(Timestamp(NOW.0 + DAY)), NOW).unwrap(),
            "less than a day old"
        );
        assert_eq!(old(None, NOW), None);
    }

    #[test]
    fn a_coming_end_is_told_and_a_far_one_is_not() {
        assert_eq!(warning(&profile(None), NOW), None);
        assert_eq!(warning(&profile(Some(NOW.0 + 15 * DAY)), NOW), None);
        let (soon, _) = warning(&profile(Some(NOW.0 + 13 * DAY)), NOW).unwrap();
        assert!(soon.contains("ends in 13 days, 2027-01-28"), "{soon}");
        let (past, what) = warning(&profile(Some(NOW.0 - 1)), NOW).unwrap();
        assert!(past.contains("has ended"), "{past}");
        assert!(what.contains("key rotate"), "{what}");
    }

    #[test]
    fn a_rotation_whose_answer_got_lost_is_told_with_when_the_secret_may_end() {
        let mut profile = profile(None);
        profile.begun = Some(NOW);
        let (what, to_do) = warning(&profile, NOW).unwrap();
        for part in [
            "begun at 2027-01-15T08:00:00Z",
            "may end at 2027-01-22T08:00:00Z",
        ] {
            assert!(what.contains(part), "{what}");
        }
        assert!(to_do.contains("oneknock rotate"), "{to_do}");
    }

    #[test]
    fn a_rotation_under_way_is_told() {
        let mut profile = profile(None);
        profile.next = Some(profile.invitation.clone());
        let (what, to_do) = warning(&profile, NOW).unwrap();
        assert!(
            what.contains("under way") && to_do.contains("completes"),
            "{what}"
        );
    }
}
