//! What the administrator asks, and ends.

use super::*;

#[test]
fn grants_are_listed_in_pages_that_join() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    site.knock(1, ask(70));
    site.knock(1, |knock| {
        ask(80)(knock);
        of("web")(knock);
    });
    let want = [
        "ssh 192.0.2.7 laptop 60",
        "ssh 192.0.2.7 phone 70",
        "web 192.0.2.7 phone 80",
    ];
    assert_eq!(site.grants(), want);
    let grants: Vec<Grant> = site.engine.grants(site.now(), None).cloned().collect();
    for (at, grant) in grants.iter().enumerate() {
        let rest = site.grants_after(Some((grant.target, &grant.key)));
        assert_eq!(rest, want[at + 1..]);
    }
    site.pass(65);
    assert_eq!(site.grants().len(), 2);
}

#[test]
fn revoking_a_keys_grants_leaves_what_another_key_has() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    site.knock(1, ask(70));
    let now = site.now();
    let revoked = site
        .engine
        .revoke(now, |grant| grant.key.as_str() == "phone");
    assert_eq!(revoked.len(), 1);
    assert_eq!(site.events(), ["ssh of phone ended: Revoked"]);
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 laptop 60"]);
    let revoked = site
        .engine
        .revoke(now, |grant| grant.target == target("ssh", LAPTOP));
    assert_eq!(revoked.len(), 1);
    assert!(site.allowed().is_empty() && site.grants().is_empty());
    assert!(site.engine.revoke(now, |_| true).is_empty());
    let dirty = site.engine.desired().dirty().iter().copied();
    assert_eq!(dirty.collect::<Vec<_>>(), [target("ssh", LAPTOP)]);
}

#[test]
fn grants_of_a_generation_are_revoked_and_no_others() {
    let mut site = Site::edited(|key| key.generations.push(generation(2)));
    for (generation, last) in [(0, 1), (1, 2), (0, 3)] {
        let packet = site.packet_by(0, generation, |_| ());
        site.send_from([198, 51, 100, last], &packet);
    }
    // Renewed by the other generation, it is that one's.
    let packet = site.packet_by(0, 1, |_| ());
    site.send_from([198, 51, 100, 3], &packet);
    let (now, first) = (site.now(), site.rules.keys[0].generations[0].subkeys.id());
    let revoked = site.engine.revoke(now, |grant| grant.generation == first);
    let sources = revoked.iter().map(|grant| grant.target.source.to_string());
    assert_eq!(sources.collect::<Vec<_>>(), ["198.51.100.1"]);
    assert_eq!(site.grants().len(), 2);
}

#[test]
fn dropped_key_opens_nothing_and_what_it_opened_ends() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    site.knock(1, ask(60));
    let (now, name) = (site.now(), "laptop".parse().unwrap());
    site.engine.drop_key(now, &name);
    assert_eq!(site.events(), ["ssh of laptop ended: KeyChanged"]);
    assert_eq!(site.knock(0, |_| ()), "selector");
    assert_eq!(site.knock(1, ask(90)), "ssh 192.0.2.7 phone 90");
    site.pass(120);
    site.tick();
    assert_eq!(site.knock(0, |_| ()), "selector");
    site.engine.drop_key(now, &name);
    assert!(
        site.engine
            .generations(now)
            .all(|view| *view.key.name != name)
    );
}

#[test]
fn generations_are_those_that_have_not_ended() {
    let at = |ms| Some(Timestamp(ms));
    let mut site = Site::edited(|key| {
        key.generations[0].not_after = at(T0 + 5);
        key.generations[0].not_before = at(T0 + 3);
        key.generations.push(GenerationRules {
            not_after: at(T0 - 1),
            ..generation(2)
        });
    });
    let live = |site: &Site| {
        let views = site.engine.generations(site.now());
        let views = views.map(|view| (view.key.name.to_string(), view.rules.number, view.ends));
        views.collect::<Vec<_>>()
    };
    let phone = ("phone".to_owned(), 1, None);
    assert_eq!(
        live(&site),
        [("laptop".into(), 1, at(T0 + 5)), phone.clone()]
    );
    assert!(site.engine.has_key_at(site.now()));
    site.rules.keys.pop();
    site.reload();
    assert!(!site.engine.has_key_at(site.now()), "not valid yet");
    site.wall += 5;
    assert!(site.engine.has_key_at(site.now()));
    site.wall += 1;
    assert!(!site.engine.has_key_at(site.now()), "valid no longer");
}

#[test]
fn new_slots_are_all_at_first_and_after_a_reload() {
    let mut site = Site::new();
    // T0 is the first moment of a minute.
    let first = T0 / 60_000;
    let minutes = |slots: Vec<Slot>| slots.iter().map(|s| s.0 + 1 - first).collect::<Vec<_>>();
    assert_eq!(minutes(site.engine.take_new_slots()), [0, 1, 2]);
    site.tick();
    assert!(site.engine.take_new_slots().is_empty());
    assert_eq!(site.engine.selectors().count(), 2 * 3);
    site.pass(30);
    site.tick();
    let new = site.engine.take_new_slots();
    let of_new = site
        .engine
        .selectors()
        .filter(|(_, slot)| new.contains(slot));
    assert_eq!(of_new.count(), 2);
    assert_eq!(minutes(new), [3]);
    site.reload();
    assert_eq!(minutes(site.engine.take_new_slots()), [1, 2, 3]);
}
