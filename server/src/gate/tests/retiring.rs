//! Two generations of one key, and the end of the older one.

use super::*;
use crate::config::Generation as Secretful;

const HOUR: u64 = 3600;

/// The key laptop with two generations: the first ends in a week.
fn rotated() -> Site {
    Site::edited(|key| {
        key.generations[0].not_after = Some(Timestamp(T0 + 7 * 24 * HOUR * 1000));
        key.generations
            .push(Secretful::generate(2, Timestamp(T0)).unwrap());
    })
}

fn knock_with(site: &mut Site, generation: usize) -> Verdict {
    let secret = &site.settings.keys[0].generations[generation].secret;
    let subkeys = Subkeys::derive(secret, &site.settings.config.server_id);
    let knock = Knock {
        action: Action::Open { seconds: 0 },
        timestamp: Timestamp(site.wall),
        address: None,
        service: None,
    };
    let packet = seal(&subkeys, &knock, random().unwrap());
    let now = site.now();
    site.gate.handle(now, LAPTOP.into(), &packet)
}

fn says(site: &mut Site, generation: usize) -> String {
    let verdict = knock_with(site, generation);
    word(&verdict)
}

#[test]
fn both_work_until_the_new_one_is_used_and_then_the_old_one_for_its_grace() {
    let mut site = rotated();
    site.pass(6 * 24 * HOUR);
    assert!(says(&mut site, 0).starts_with("ssh"));
    site.pass(60);
    let Verdict::Accepted(first) = knock_with(&mut site, 1) else {
        panic!("refused");
    };
    assert_eq!(first.retired.len(), 1);
    assert_eq!(first.retired[0].number, 1);
    assert_eq!(first.retired[0].at.0, site.wall + 24 * HOUR * 1000 - 60_000);
    site.pass(60);
    let Verdict::Accepted(second) = knock_with(&mut site, 1) else {
        panic!("refused");
    };
    assert_eq!(second.retired, [], "only once");
    site.pass(24 * HOUR - 180);
    assert!(says(&mut site, 0).starts_with("ssh"));
    site.pass(61);
    assert_eq!(says(&mut site, 0), "expired");
    assert!(says(&mut site, 1).starts_with("ssh"));
}

#[test]
fn the_grace_is_as_configured_and_survives_a_reload_and_a_restart() {
    let mut settings = rotated().settings;
    settings.config.rotation_grace = Duration::from_secs(60);
    let mut site = Site::with(settings);
    says(&mut site, 1);
    let (settings, now, memory) = (site.settings.clone(), site.now(), site.gate.memory());
    site.gate.reconfigure(&settings, now);
    site.pass(61);
    assert_eq!(says(&mut site, 0), "expired");
    let mut restarted = Site::with(settings);
    restarted.gate.restore(&memory);
    restarted.pass(61);
    assert_eq!(says(&mut restarted, 0), "expired");
}

#[test]
fn the_old_one_ends_nothing_and_one_without_an_end_has_none() {
    let mut site = rotated();
    let Verdict::Accepted(old) = knock_with(&mut site, 0) else {
        panic!("refused");
    };
    assert_eq!(old.retired, []);
    let mut settings = site.settings.clone();
    settings.keys[0].generations[0].not_after = None;
    let mut site = Site::with(settings);
    says(&mut site, 1);
    site.pass(365 * 24 * HOUR);
    assert!(says(&mut site, 0).starts_with("ssh"));
}

#[test]
fn a_first_use_that_came_to_nothing_ends_nothing() {
    let mut site = rotated();
    let Verdict::Accepted(failed) = knock_with(&mut site, 1) else {
        panic!("refused");
    };
    site.gate.undo(&failed);
    assert!(site.gate.memory().retires.is_empty());
    site.pass(6 * 24 * HOUR);
    assert!(says(&mut site, 0).starts_with("ssh"));
}

#[test]
fn another_keys_generations_stay_as_they_are() {
    let mut settings = rotated().settings;
    settings.keys[1].generations[0].not_after = Some(Timestamp(T0 + 7 * 24 * HOUR * 1000));
    settings.config.rotation_grace = Duration::from_secs(60);
    let mut site = Site::with(settings);
    says(&mut site, 1);
    site.pass(3600);
    assert!(site.knock(1, |_| ()).starts_with("ssh"));
}
