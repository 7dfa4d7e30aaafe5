//! Steps 1 to 7: which packets count, and once.

use super::*;

#[test]
fn knock_opens_to_its_source_for_the_default_time() {
    assert_eq!(Site::new().knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn mapped_source_is_its_ipv4_address() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    let source: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    assert_eq!(site.send_from(source, &packet), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn spend_says_all_that_is_recorded_of_a_packet() {
    let mut site = Site::new();
    let packet = site.packet(0, |knock| {
        ask(5)(knock);
        sign(LAPTOP)(knock);
        knock.timestamp.0 -= 7;
    });
    let spend = site.spend(&packet);
    let generation = &site.rules.keys[0].generations[0];
    let want = Spend {
        key: Arc::clone(&site.rules.keys[0].name),
        generation: generation.subkeys.id(),
        number: 1,
        at: Timestamp(T0 - 7),
        id: spend.id,
        from: LAPTOP.into(),
        source: Source::of(LAPTOP.into()),
        is_signed: true,
        action: Action::Open { seconds: 5 },
        service: "ssh".parse().ok(),
    };
    assert_eq!(spend, want);
    assert!(packet.ends_with(&spend.id.0));
}

#[test]
fn junk_is_told_apart_by_its_first_defect() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    let longest = packet.len();
    for length in (0..1500).filter(|&n| n != longest) {
        assert_eq!(site.send(&vec![0x5a; length]), "length");
    }
    assert_eq!(site.send(&vec![0x5a; longest]), "selector");
    for at in 0..longest {
        let mut changed = packet.clone();
        changed[at] ^= 1;
        let want = if at < 8 { "selector" } else { "mac" };
        assert_eq!(site.send(&changed), want, "byte {at}");
    }
    assert_eq!(site.send(&packet), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn junk_changes_nothing() {
    let mut site = Site::new();
    let (now, length) = (site.now(), site.packet(0, |_| ()).len());
    for byte in 0..=255 {
        site.send(&vec![byte; length]);
    }
    assert_eq!(site.engine.snapshot(now), State::default());
    assert_eq!(*site.engine.desired(), Desired::default());
    assert!(site.events().is_empty());
}

#[test]
fn same_packet_again_is_replayed_from_anywhere() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    assert_eq!(site.send(&packet), "ssh 192.0.2.7 laptop 30");
    assert_eq!(site.send(&packet), "replayed");
    assert_eq!(site.send_from(STRANGER, &packet), "replayed");
    site.pass(29);
    assert_eq!(site.send(&packet), "replayed");
    site.pass(2);
    assert_eq!(site.send(&packet), "clock-skew");
}

#[test]
fn selector_of_a_minute_that_is_not_current_is_junk() {
    let mut site = Site::new();
    let got = site.knock(0, |knock| knock.timestamp = Timestamp(T0 + 90_000));
    assert_eq!(got, "selector");
}

#[test]
fn packet_refused_by_policy_is_spent_and_frames_no_address() {
    let mut site = Site::new();
    let packet = site.packet(0, of("web"));
    assert_eq!(site.send(&packet), "service-not-allowed");
    assert_eq!(site.send_from(STRANGER, &packet), "replayed");
}

#[test]
fn quicker_thief_spends_neither_signed_packet_nor_rate() {
    let mut site = Site::edited(|key| key.knocks_per_minute = 1);
    let packet = site.packet(0, sign(LAPTOP));
    for _ in 0..100 {
        assert_eq!(site.send_from(STRANGER, &packet), "address-not-source");
    }
    assert_eq!(site.send(&packet), "ssh 192.0.2.7 laptop 30");
}

/// Whether the rejection of this packet names its source as the key holder's doing.
fn is_authenticated(site: &mut Site, from: [u8; 4], packet: &[u8]) -> bool {
    let now = site.now();
    let event = match site.engine.judge(now, from.into(), packet) {
        Ok(spend) => {
            site.engine.commit(now, &[spend]);
            site.engine.drain_events().next().unwrap()
        }
        Err(event) => event,
    };
    match event {
        Event::Rejected(rejection) => {
            assert_eq!(rejection.source, IpAddr::from(from));
            rejection.authenticated
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn source_is_authenticated_only_where_signed_and_spent() {
    let mut site = Site::new();
    let unsigned = site.packet(0, of("web"));
    assert!(!is_authenticated(&mut site, LAPTOP, &unsigned));
    let signed = site.packet(0, |knock| {
        of("web")(knock);
        sign(LAPTOP)(knock);
    });
    assert!(is_authenticated(&mut site, LAPTOP, &signed));
    assert!(!is_authenticated(&mut site, LAPTOP, &signed), "a replay");
    let stolen = site.packet(0, sign(LAPTOP));
    assert!(!is_authenticated(&mut site, STRANGER, &stolen));
}

#[test]
fn source_of_a_packet_that_signs_another_is_not_authenticated() {
    let mut site = Site::edited(|key| key.allow_other_address = true);
    let packet = site.packet(0, |knock| {
        of("web")(knock);
        sign(LAPTOP)(knock);
    });
    assert!(!is_authenticated(&mut site, STRANGER, &packet));
}
