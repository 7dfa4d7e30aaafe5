//! Grants, and the allow entries that follow from them.

use super::*;

#[test]
fn key_has_at_most_max_grants_and_renewing_adds_none() {
    let mut site = Site::edited(|key| key.max_grants = 2);
    let from = |site: &mut Site, last: u8| {
        let packet = site.packet(0, |_| ());
        site.send_from([198, 51, 100, last], &packet)
    };
    assert!(from(&mut site, 1).starts_with("ssh"));
    assert!(from(&mut site, 2).starts_with("ssh"));
    assert_eq!(from(&mut site, 3), "grant-limit");
    assert!(from(&mut site, 2).starts_with("ssh"));
    site.pass(31);
    assert!(from(&mut site, 3).ends_with("30"));
}

#[test]
fn max_grants_counts_those_of_all_generations_of_the_key() {
    let mut site = Site::edited(|key| {
        key.max_grants = 2;
        key.generations.push(generation(2));
    });
    for (generation, want) in [(0, "ssh"), (1, "ssh"), (0, "grant"), (1, "grant")] {
        let packet = site.packet_by(0, generation, |_| ());
        let source = [198, 51, 100, site.grants().len().try_into().unwrap()];
        assert!(site.send_from(source, &packet).starts_with(want));
    }
}

#[test]
fn opening_again_never_shortens() {
    let mut site = Site::new();
    assert_eq!(site.knock(0, ask(600)), "ssh 192.0.2.7 laptop 600");
    assert_eq!(site.knock(0, ask(5)), "ssh 192.0.2.7 laptop 600");
    site.pass(590);
    assert_eq!(site.knock(0, ask(20)), "ssh 192.0.2.7 laptop 20");
}

#[test]
fn renewed_grant_keeps_its_beginning_and_changes_generation() {
    let mut site = Site::edited(|key| key.generations.push(generation(2)));
    site.knock(0, ask(600));
    site.pass(60);
    let packet = site.packet_by(0, 1, ask(30));
    let (spend, now) = (site.spend(&packet), site.now());
    site.engine.commit(now, &[spend]);
    let event = site.engine.drain_events().nth(1).unwrap();
    let Event::Granted {
        grant,
        time,
        renewed,
        from,
    } = event
    else {
        panic!("{event:?}");
    };
    assert!(renewed);
    assert_eq!((time.as_secs(), from), (30, LAPTOP.into()));
    assert_eq!((grant.number, grant.opened), (2, Timestamp(T0)));
    let newer = &site.rules.keys[0].generations[1];
    assert_eq!(grant.generation, newer.subkeys.id());
    assert_eq!(grant.until, now.mono + Duration::from_secs(540));
}

#[test]
fn expired_grant_is_told_once_and_a_closed_one_not_at_all() {
    let mut site = Site::new();
    site.knock(0, ask(30));
    site.knock(1, ask(60));
    site.knock(1, close);
    assert_eq!(site.tick(), Vec::<String>::new());
    site.pass(31);
    assert_eq!(site.tick(), ["ssh of laptop ended: Expired"]);
    assert_eq!(site.tick(), Vec::<String>::new());
}

#[test]
fn grant_has_ended_at_its_very_end_and_not_before() {
    let mut site = Site::new();
    site.knock(0, ask(30));
    site.mono += Duration::from_millis(29_999);
    assert!(site.tick().is_empty());
    assert_eq!(site.grants().len(), 1);
    site.mono += Duration::from_millis(1);
    assert!(site.grants().is_empty());
    assert_eq!(site.tick(), ["ssh of laptop ended: Expired"]);
    assert!(site.allowed().is_empty());
}

#[test]
fn entry_that_the_kernel_ended_is_not_dirty() {
    let mut site = Site::new();
    site.knock(0, ask(30));
    site.knock(1, ask(60));
    site.engine.desired_mut().clean_all();
    site.pass(31);
    site.tick();
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 phone 29"]);
    site.pass(30);
    site.tick();
    assert_eq!(*site.engine.desired(), Desired::default());
}

#[test]
fn entry_not_written_is_dirty_also_when_its_time_is_over() {
    let mut site = Site::new();
    site.knock(0, ask(30));
    site.knock(1, ask(600));
    site.engine.desired_mut().clean_all();
    // The kernel holds 600 s; that it is to hold 30 s never reaches it.
    site.knock(1, close);
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 laptop 30"]);
    site.pass(31);
    site.tick();
    assert!(site.allowed().is_empty());
    assert!(
        site.engine
            .desired()
            .dirty()
            .contains(&target("ssh", LAPTOP))
    );
}

#[test]
fn grants_that_ended_leave_nothing_behind() {
    let mut site = Site::new();
    for last in 1..=16 {
        let packet = site.packet(0, |_| ());
        site.send_from([198, 51, 100, last], &packet);
    }
    site.engine.desired_mut().clean_all();
    site.pass(31);
    assert_eq!(site.tick().len(), 16);
    let (is, want) = (&site.engine.grants, GrantTable::default());
    assert_eq!(format!("{is:?}"), format!("{want:?}"));
}
