//! Grants last only while their key has a right to them: by one rule, for a daemon that runs,
//! a reload and a start.

use super::*;

/// What ends a grant: by a tick, a reload or a restart.
const WAYS: [fn(&mut Site) -> Vec<String>; 3] = [Site::tick, Site::reload, Site::restart];

#[test]
fn ended_generations_grants_end_by_tick_reload_and_restart() {
    for way in WAYS {
        let mut site = Site::edited(|key| {
            key.generations[0].not_after = Some(Timestamp(T0 + 60_000));
            key.generations.push(generation(2));
        });
        let packet = site.packet_by(0, 1, ask(600));
        site.send_from(STRANGER, &packet);
        site.knock(0, ask(600));
        site.pass(60);
        assert!(way(&mut site).iter().all(|event| event.ends_with("on")));
        assert_eq!(site.grants().len(), 2);
        site.wall += 1;
        let ended = "ssh of laptop ended: KeyChanged";
        assert!(way(&mut site).iter().any(|event| event == ended));
        assert_eq!(site.grants(), ["ssh 192.0.2.9 laptop 540"]);
        assert_eq!(site.allowed(), site.grants());
    }
}

#[test]
fn retired_generations_grants_end_with_it() {
    for way in WAYS {
        let mut site = Site::edited(|key| {
            key.generations[0].not_after = Some(Timestamp(T0 + HOUR * 1000));
            key.generations.push(generation(2));
        });
        site.rules.rotation_grace = Duration::from_secs(60);
        site.reload();
        site.knock(0, ask(600));
        let packet = site.packet_by(0, 1, |_| ());
        let newer = site.send_from(STRANGER, &packet);
        assert_eq!(newer, "ssh 192.0.2.9 laptop 30; laptop 1 retires");
        site.pass(60);
        site.tick();
        assert_eq!(site.grants().len(), 1);
        site.pass(1);
        assert_eq!(way(&mut site), ["ssh of laptop ended: KeyChanged"]);
        assert!(site.grants().is_empty());
    }
}

#[test]
fn generation_ended_again_after_a_wrong_clock_has_no_grants() {
    let mut site = Site::edited(|key| {
        key.generations[0].not_after = Some(Timestamp(T0 + 60_000));
    });
    // Ended, by a clock that is ahead; not ended, and used; ended again.
    site.wall += 120_000;
    site.tick();
    site.wall -= 120_000;
    site.knock(0, ask(600));
    site.wall += 120_000;
    assert_eq!(site.tick(), ["ssh of laptop ended: KeyChanged"]);
}

#[test]
fn key_that_may_not_open_a_service_any_more_has_no_grant_of_it() {
    for way in &WAYS[1..] {
        let mut site = Site::new();
        site.knock(1, of_all);
        site.rules.keys[1].services.pop();
        assert!(way(&mut site).contains(&"web of phone ended: KeyChanged".into()));
        assert_eq!(site.grants(), ["ssh 192.0.2.7 phone 30"]);
    }
}

#[test]
fn removed_service_has_no_grants() {
    for way in &WAYS[1..] {
        let mut site = Site::new();
        site.knock(1, of_all);
        site.rules.services.remove(0);
        assert!(way(&mut site).contains(&"ssh of phone ended: KeyChanged".into()));
        assert_eq!(site.allowed(), ["web 192.0.2.7 phone 30"]);
    }
}

#[test]
fn another_key_under_an_old_name_inherits_no_grant() {
    for way in &WAYS[1..] {
        let mut site = Site::new();
        site.knock(0, ask(600));
        site.rules.keys[0] = key("laptop", &["ssh"]);
        assert_eq!(way(&mut site), ["ssh of laptop ended: KeyChanged"]);
        assert!(site.allowed().is_empty());
    }
}

#[test]
fn renamed_key_keeps_no_grant() {
    for way in &WAYS[1..] {
        let mut site = Site::new();
        site.knock(0, ask(600));
        site.rules.keys[0].name = Arc::new("tablet".parse().unwrap());
        assert_eq!(way(&mut site), ["ssh of laptop ended: KeyChanged"]);
    }
}

#[test]
fn clock_behind_not_before_ends_no_grant() {
    let mut site = Site::edited(|key| key.generations[0].not_before = Some(Timestamp(T0)));
    site.knock(0, ask(600));
    site.wall = 0;
    for way in [Site::tick, Site::reload] {
        assert!(way(&mut site).is_empty());
    }
    assert_eq!(site.restart(), ["ssh of laptop goes on"]);
}
