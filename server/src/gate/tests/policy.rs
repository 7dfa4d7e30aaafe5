//! Step 8: what a key may do.

use super::*;

#[test]
fn asked_seconds_are_capped_by_service_and_key() {
    let mut site = Site::edited(|key| key.policy.max_open_for = Some(Duration::from_secs(600)));
    assert_eq!(site.knock(0, ask(5)), "ssh 192.0.2.7 laptop 5");
    assert_eq!(site.knock(0, ask(65535)), "ssh 192.0.2.7 laptop 600");
    assert_eq!(site.knock(1, ask(65535)), "ssh 192.0.2.7 phone 28800");
}

#[test]
fn a_key_opens_its_own_services_only() {
    let mut site = Site::new();
    assert_eq!(
        site.knock(0, |k| k.service = "web".parse().ok()),
        "service-not-allowed"
    );
    assert_eq!(
        site.knock(0, |k| k.service = "imap".parse().ok()),
        "no-such-service"
    );
    assert_eq!(
        site.knock(0, |k| k.service = None),
        "ssh 192.0.2.7 laptop 30"
    );
    let both = "ssh 192.0.2.7 phone 40; web 192.0.2.7 phone 40";
    let all = |k: &mut Knock| {
        k.service = None;
        ask(40)(k);
    };
    assert_eq!(site.knock(1, all), both);
}

#[test]
fn a_signed_address_must_be_the_source_unless_the_key_may_admit_others() {
    let sign = |address: [u8; 4]| move |k: &mut Knock| k.address = Some(address.into());
    let mut site = Site::new();
    assert_eq!(site.knock(0, sign(LAPTOP)), "ssh 192.0.2.7 laptop 30");
    assert_eq!(site.knock(0, sign(STRANGER)), "address-not-source");
    assert_eq!(
        site.knock(0, |k| {
            sign(STRANGER)(k);
            close(k);
        }),
        "address-not-source"
    );
    let mut site = Site::edited(|key| key.policy.admit_others = true);
    assert_eq!(site.knock(0, sign(STRANGER)), "ssh 192.0.2.9 laptop 30");
}

#[test]
fn a_key_that_must_sign_the_address_is_held_to_it() {
    let mut site = Site::edited(|key| key.policy.signed_address = true);
    assert_eq!(site.knock(0, |_| ()), "address-not-signed");
    assert_eq!(
        site.knock(0, |k| k.address = Some(LAPTOP.into())),
        "ssh 192.0.2.7 laptop 30"
    );
}

#[test]
fn the_default_gateway_is_not_admitted_unless_configured() {
    let mut site = Site::new();
    site.gate.set_gateways(vec![LAPTOP.into()]);
    assert_eq!(site.knock(0, |_| ()), "gateway");
    site.settings.config.admit_gateway = true;
    let now = site.now();
    let settings = site.settings.clone();
    site.gate.reconfigure(&settings, now);
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn a_key_over_its_rate_is_refused_and_others_notice_nothing() {
    let mut site = Site::edited(|key| key.policy.knocks_per_minute = 3);
    for _ in 0..3 {
        assert!(site.knock(0, |_| ()).starts_with("ssh"));
    }
    assert_eq!(site.knock(0, |_| ()), "too-many-knocks");
    assert!(site.knock(1, |_| ()).starts_with("ssh"));
    site.pass(20);
    assert!(site.knock(0, |_| ()).starts_with("ssh"));
    assert_eq!(site.knock(0, |_| ()), "too-many-knocks");
}

#[test]
fn a_link_local_source_is_not_admitted() {
    let mut site = Site::new();
    let (packet, now) = (site.packet(0, |_| ()), site.now());
    let verdict = site.gate.handle(now, "fe80::7".parse().unwrap(), &packet);
    assert_eq!(word(&verdict), "address-unusable");
}
