//! Step 8: what a key may do.

use super::*;

#[test]
fn time_asked_for_is_capped_by_service_and_key() {
    let mut site = Site::edited(|key| key.max_time = Some(Duration::from_secs(600)));
    assert_eq!(site.knock(0, ask(5)), "ssh 192.0.2.7 laptop 5");
    assert_eq!(site.knock(0, ask(65535)), "ssh 192.0.2.7 laptop 600");
    assert_eq!(site.knock(1, ask(65535)), "ssh 192.0.2.7 phone 28800");
}

#[test]
fn key_opens_its_own_services_only() {
    let mut site = Site::new();
    assert_eq!(site.knock(0, of("web")), "service-not-allowed");
    assert_eq!(site.knock(0, of("imap")), "no-such-service");
    assert_eq!(site.knock(0, of_all), "ssh 192.0.2.7 laptop 30");
    let both = "ssh 192.0.2.7 phone 40; web 192.0.2.7 phone 40";
    let all = |knock: &mut Knock| {
        of_all(knock);
        ask(40)(knock);
    };
    assert_eq!(site.knock(1, all), both);
}

#[test]
fn key_without_a_service_is_refused_and_not_in_silence() {
    let mut site = Site::edited(|key| key.services.clear());
    assert_eq!(site.knock(0, of_all), "service-not-allowed");
    let close_all = |knock: &mut Knock| {
        of_all(knock);
        close(knock);
    };
    assert_eq!(site.knock(0, close_all), "service-not-allowed");
}

#[test]
fn signed_address_must_be_the_source_unless_others_are_allowed() {
    let mut site = Site::new();
    assert_eq!(site.knock(0, sign(LAPTOP)), "ssh 192.0.2.7 laptop 30");
    assert_eq!(site.knock(0, sign(STRANGER)), "address-not-source");
    let close_other = |knock: &mut Knock| {
        sign(STRANGER)(knock);
        close(knock);
    };
    assert_eq!(site.knock(0, close_other), "address-not-source");
    let mut site = Site::edited(|key| key.allow_other_address = true);
    assert_eq!(site.knock(0, sign(STRANGER)), "ssh 192.0.2.9 laptop 30");
}

#[test]
fn key_that_must_sign_the_address_is_held_to_it() {
    let mut site = Site::edited(|key| key.require_signed_address = true);
    assert_eq!(site.knock(0, |_| ()), "address-not-signed");
    assert_eq!(site.knock(0, sign(LAPTOP)), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn default_gateway_is_not_admitted_unless_configured() {
    let mut site = Site::new();
    site.engine.set_gateways(vec![LAPTOP.into()]);
    assert_eq!(site.engine.gateways(), [IpAddr::from(LAPTOP)]);
    assert_eq!(site.knock(0, |_| ()), "source-is-gateway");
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 shut");
    site.rules.allow_gateway = true;
    site.reload();
    site.pass(1);
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn key_over_its_rate_is_refused_and_others_notice_nothing() {
    let mut site = Site::edited(|key| key.knocks_per_minute = 3);
    for _ in 0..3 {
        assert!(site.knock(0, |_| ()).starts_with("ssh"));
    }
    assert_eq!(site.knock(0, |_| ()), "rate-limited");
    assert!(site.knock(1, |_| ()).starts_with("ssh"));
    site.pass(20);
    assert!(site.knock(0, |_| ()).starts_with("ssh"));
    assert_eq!(site.knock(0, |_| ()), "rate-limited");
}

#[test]
fn link_local_source_is_not_admitted() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    let source: IpAddr = "fe80::7".parse().unwrap();
    assert_eq!(site.send_from(source, &packet), "address-unusable");
}

#[test]
fn malformed_packet_names_its_key_and_is_not_spent() {
    let mut site = Site::new();
    let packet = site.packet(0, |knock| knock.address = Some([127, 0, 0, 1].into()));
    assert_eq!(site.send(&packet), "malformed");
    assert_eq!(site.send(&packet), "malformed");
}
