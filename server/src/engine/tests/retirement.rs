//! Two generations of one key, and the end of the older one.

use super::*;

const DAY: u64 = 24 * HOUR;

/// The key laptop with two generations: the first ends in a week.
fn rotated() -> Rules {
    let mut rules = rules();
    let key = &mut rules.keys[0];
    key.generations[0].not_after = Some(Timestamp(T0 + 7 * DAY * 1000));
    key.generations.push(generation(2));
    rules
}

fn knock_by(site: &mut Site, generation: usize) -> String {
    let packet = site.packet_by(0, generation, |_| ());
    site.send(&packet)
}

const NEWER_AND_RETIRES: &str = "ssh 192.0.2.7 laptop 30; laptop 1 retires";

#[test]
fn older_works_until_the_newer_is_used_and_then_for_a_grace() {
    let mut site = Site::with(rotated());
    site.pass(5 * DAY);
    assert!(knock_by(&mut site, 0).starts_with("ssh"));
    site.pass(60);
    let packet = site.packet_by(0, 1, |_| ());
    let (spend, now) = (site.spend(&packet), site.now());
    site.engine.commit(now, &[spend]);
    let event = site.engine.drain_events().next_back().unwrap();
    let want = Event::Retiring {
        key: Arc::clone(&site.rules.keys[0].name),
        generation: site.rules.keys[0].generations[0].subkeys.id(),
        number: 1,
        ends: Timestamp(site.wall + DAY * 1000),
        newer: 2,
    };
    assert_eq!(event, want);
    site.pass(60);
    assert_eq!(knock_by(&mut site, 1), "ssh 192.0.2.7 laptop 30", "once");
    site.pass(DAY - 60);
    assert!(knock_by(&mut site, 0).starts_with("ssh"));
    site.pass(1);
    assert_eq!(knock_by(&mut site, 0), "expired");
    assert!(knock_by(&mut site, 1).starts_with("ssh"));
}

#[test]
fn end_that_comes_before_the_grace_stays_as_it_is() {
    let mut site = Site::with(rotated());
    site.pass(6 * DAY);
    assert_eq!(knock_by(&mut site, 1), "ssh 192.0.2.7 laptop 30");
    assert!(site.engine.snapshot(site.now()).retirements.is_empty());
    // A later end in the key's file counts, and the next use brings that one forward.
    site.rules.keys[0].generations[0].not_after = Some(Timestamp(T0 + 9 * DAY * 1000));
    site.reload();
    assert_eq!(knock_by(&mut site, 1), NEWER_AND_RETIRES);
}

#[test]
fn grace_is_as_configured_and_survives_reload_and_restart() {
    let mut rules = rotated();
    rules.rotation_grace = Duration::from_secs(60);
    for way in [Site::reload, Site::restart] {
        let mut site = Site::with(rules.clone());
        knock_by(&mut site, 1);
        way(&mut site);
        site.pass(60);
        assert!(knock_by(&mut site, 0).starts_with("ssh"));
        site.pass(1);
        assert_eq!(knock_by(&mut site, 0), "expired");
    }
}

#[test]
fn older_one_ends_nothing_and_one_without_an_end_has_none() {
    let mut site = Site::with(rotated());
    assert_eq!(knock_by(&mut site, 0), "ssh 192.0.2.7 laptop 30");
    let mut rules = rotated();
    rules.keys[0].generations[0].not_after = None;
    let mut site = Site::with(rules);
    assert_eq!(knock_by(&mut site, 1), "ssh 192.0.2.7 laptop 30");
    site.pass(365 * DAY);
    assert!(knock_by(&mut site, 0).starts_with("ssh"));
}

#[test]
fn newer_packet_that_came_to_nothing_retires_nothing() {
    let mut site = Site::with(rotated());
    let failed = site.packet_by(0, 1, |_| ());
    let spend = site.spend(&failed);
    site.engine.reject(&[spend], Reason::StoreError);
    let refused = site.packet_by(0, 1, of("web"));
    assert_eq!(site.send(&refused), "store-error; service-not-allowed");
    assert!(site.engine.snapshot(site.now()).retirements.is_empty());
    site.pass(6 * DAY);
    assert!(knock_by(&mut site, 0).starts_with("ssh"));
}

#[test]
fn another_keys_generations_stay_as_they_are() {
    let mut rules = rotated();
    rules.keys[1].generations[0].not_after = Some(Timestamp(T0 + 7 * DAY * 1000));
    rules.rotation_grace = Duration::from_secs(60);
    let mut site = Site::with(rules);
    knock_by(&mut site, 1);
    site.pass(HOUR);
    assert!(site.knock(1, |_| ()).starts_with("ssh"));
}

#[test]
fn older_one_of_a_dropped_key_has_nothing_to_retire() {
    let mut site = Site::with(rotated());
    let packet = site.packet_by(0, 1, |_| ());
    let (spend, now) = (site.spend(&packet), site.now());
    site.engine.drop_key(now, &spend.key);
    assert_eq!(site.commit(&[spend]), ["expired"]);
    assert!(site.engine.snapshot(now).retirements.is_empty());
}
