//! Steps 1 to 7: which packets count, and once.

use super::*;

#[test]
fn a_knock_admits_its_source_for_the_time_the_service_says() {
    assert_eq!(Site::new().knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn a_mapped_source_is_its_ipv4_address() {
    let mut site = Site::new();
    let (packet, now) = (site.packet(0, |_| ()), site.now());
    let verdict = site
        .gate
        .handle(now, "::ffff:192.0.2.7".parse().unwrap(), &packet);
    assert_eq!(word(&verdict), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn junk_is_told_apart_by_its_first_defect() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    for length in (0..1500).filter(|&n| n != 112) {
        assert_eq!(site.send(&vec![0x5a; length]), "length");
    }
    assert_eq!(site.send(&[0x5a; 112]), "selector");
    for at in 0..112 {
        let mut changed = packet.clone();
        changed[at] ^= 1;
        assert_eq!(
            site.send(&changed),
            if at < 8 { "selector" } else { "mac" },
            "byte {at}"
        );
    }
    let counters = site.gate.counters().clone();
    assert_eq!(
        (counters.selector, counters.mac, counters.accepted),
        (9, 104, 0)
    );
    assert_eq!(site.send(&packet), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn junk_changes_nothing_but_counters() {
    let mut site = Site::new();
    for byte in 0..=255 {
        site.send(&[byte; 112]);
    }
    assert!(site.gate.claims.all(site.mono).is_empty());
    assert!(
        site.gate
            .replay
            .values()
            .all(|replay| !replay.is_below_floor(Timestamp(0)))
    );
    assert!(site.gate.closes.is_empty());
}

#[test]
fn the_same_packet_is_accepted_once_from_anywhere() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    assert_eq!(site.send(&packet), "ssh 192.0.2.7 laptop 30");
    assert_eq!(site.send(&packet), "replayed");
    assert_eq!(site.send_from(STRANGER, &packet), "replayed");
    site.pass(29);
    assert_eq!(site.send(&packet), "replayed");
    site.pass(2);
    assert_eq!(site.send(&packet), "stale");
}

#[test]
fn selector_of_a_slot_outside_the_window() {
    let mut site = Site::new();
    assert_eq!(
        site.knock(0, |k| k.timestamp = Timestamp(T0 + 90_000)),
        "selector"
    );
}

#[test]
fn what_was_refused_by_policy_cannot_be_sent_again_to_frame_an_address() {
    let mut site = Site::new();
    let packet = site.packet(0, |k| k.service = "web".parse().ok());
    assert_eq!(site.send(&packet), "service-not-allowed");
    assert_eq!(site.send_from(STRANGER, &packet), "replayed");
}

#[test]
fn a_thief_who_is_quicker_spends_neither_the_signed_packet_nor_its_owners_rate() {
    let mut site = Site::edited(|key| key.policy.knocks_per_minute = 1);
    let packet = site.packet(0, |k| k.address = Some(LAPTOP.into()));
    for _ in 0..100 {
        assert_eq!(site.send_from(STRANGER, &packet), "address-not-source");
    }
    assert_eq!(site.send(&packet), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn a_source_is_proven_only_where_it_is_signed() {
    let proven = |address: Option<[u8; 4]>| {
        let mut site = Site::new();
        let packet = site.packet(0, |k| {
            k.service = "web".parse().ok();
            k.address = address.map(Into::into);
        });
        let now = site.now();
        match site.gate.handle(now, LAPTOP.into(), &packet) {
            Verdict::Refused(refused) => refused.proven,
            other => panic!("{other:?}"),
        }
    };
    assert!(!proven(None));
    assert!(proven(Some(LAPTOP)));
}
