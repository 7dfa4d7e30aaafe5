//! Closes, and what they hold back.

use super::*;

fn close_all(knock: &mut Knock) {
    of_all(knock);
    close(knock);
}

#[test]
fn close_of_one_key_leaves_the_others_grant() {
    let mut site = Site::new();
    site.knock(0, ask(600));
    assert_eq!(site.knock(1, ask(60)), "ssh 192.0.2.7 laptop 600");
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 phone 60");
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 phone 60");
    assert_eq!(site.knock(1, close), "ssh 192.0.2.7 shut");
}

#[test]
fn open_held_back_past_its_keys_close_is_refused() {
    let mut site = Site::new();
    let held = site.packet(0, |_| ());
    site.pass(1);
    site.knock(0, close);
    assert_eq!(site.send(&held), "superseded-by-close");
    assert_eq!(site.send(&held), "replayed");
    site.pass(1);
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn open_held_back_past_a_close_of_every_service_is_refused() {
    let mut site = Site::new();
    let (ssh, web) = (site.packet(1, |_| ()), site.packet(1, of("web")));
    site.knock(1, |knock| {
        of_all(knock);
        knock.timestamp.0 -= 1;
    });
    site.pass(1);
    let both = "ssh 192.0.2.7 shut; web 192.0.2.7 shut";
    assert_eq!(site.knock(1, close_all), both);
    for held in [ssh, web] {
        assert_eq!(site.send(&held), "superseded-by-close");
    }
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn close_refused_by_policy_holds_back_all_the_same() {
    let mut site = Site::new();
    site.rules.keys[0].services.push("web".parse().unwrap());
    let held = site.packet(0, of("web"));
    site.pass(1);
    let close_web = |knock: &mut Knock| {
        of("web")(knock);
        close(knock);
    };
    assert_eq!(site.knock(0, close_web), "service-not-allowed");
    site.reload();
    assert_eq!(site.send(&held), "superseded-by-close");
}

#[test]
fn late_close_lets_nothing_in_that_a_later_one_holds_back() {
    let mut site = Site::new();
    let late = site.packet(0, close);
    site.pass(1);
    let held = site.packet(0, |_| ());
    site.pass(1);
    site.knock(0, close);
    assert_eq!(site.send(&late), "ssh 192.0.2.7 shut");
    assert_eq!(site.send(&held), "superseded-by-close");
}

#[test]
fn close_is_redundant_until_the_key_opens_again() {
    let mut site = Site::new();
    let mut closes = |edit: fn(&mut Knock), passing: u64| {
        site.pass(passing);
        site.knock(0, |_| ());
        let mut redundant = Vec::new();
        for edit in [edit, close, close_all] {
            let packet = site.packet(0, edit);
            let (spend, now) = (site.spend(&packet), site.now());
            site.engine.commit(now, &[spend]);
            let events: Vec<Event> = site.engine.drain_events().collect();
            let did = events
                .iter()
                .filter(|e| !matches!(e, Event::Accepted { .. }));
            redundant.extend(did.map(|event| match event {
                Event::Closed {
                    redundant, grant, ..
                } => {
                    assert!(!*redundant || grant.is_none());
                    *redundant
                }
                other => panic!("{other:?}"),
            }));
        }
        redundant
    };
    assert_eq!(closes(close, 0), [false, true, true]);
    assert_eq!(closes(close_all, 1), [false, true, true]);
}

#[test]
fn held_back_open_stays_refused_when_the_clock_goes_back() {
    let mut site = Site::new();
    site.rules.keys[0].generations.push(generation(2));
    site.reload();
    let held = [0, 1].map(|generation| site.packet_by(0, generation, |_| ()));
    site.pass(1);
    site.knock(0, close);
    site.pass(3600);
    site.tick();
    site.wall = T0;
    for held in held {
        assert_eq!(site.send(&held), "replay-floor");
    }
}

#[test]
fn close_outlives_the_daemon_in_both_forms() {
    for form in [close, close_all] {
        let mut site = Site::new();
        let held = site.packet(0, |_| ());
        site.pass(1);
        site.knock(0, form);
        site.restart();
        assert_eq!(site.send(&held), "superseded-by-close");
    }
}
