//! Grants as claims.

use super::*;

#[test]
fn a_key_has_so_many_live_grants_and_renewing_is_not_one_more() {
    let mut site = Site::edited(|key| key.policy.grants = 2);
    let from = |site: &mut Site, last: u8| {
        let packet = site.packet(0, |_| ());
        site.send_from([198, 51, 100, last], &packet)
    };
    assert!(from(&mut site, 1).starts_with("ssh"));
    assert!(from(&mut site, 2).starts_with("ssh"));
    assert_eq!(from(&mut site, 3), "too-many-grants");
    assert!(from(&mut site, 2).starts_with("ssh"));
    site.pass(31);
    assert!(from(&mut site, 3).starts_with("ssh"));
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
fn what_ends_in_its_time_is_told_once_and_what_was_closed_is_not() {
    let mut site = Site::new();
    site.knock(0, ask(30));
    site.knock(1, ask(60));
    site.knock(1, close);
    assert_eq!(site.gate.take_over(), []);
    site.pass(31);
    site.gate.tick(site.now());
    let over = site.gate.take_over();
    assert_eq!(over.len(), 1);
    assert_eq!(over[0].0.as_str(), "laptop");
    assert_eq!(site.gate.take_over(), []);
}

#[test]
fn the_close_of_one_key_does_not_shut_the_other_out() {
    let mut site = Site::new();
    site.knock(0, ask(600));
    assert_eq!(site.knock(1, ask(60)), "ssh 192.0.2.7 laptop 600");
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 phone 60");
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 phone 60");
    assert_eq!(site.knock(1, close), "ssh 192.0.2.7 shut");
}

#[test]
fn an_open_that_was_held_back_is_refused_after_its_keys_close() {
    let mut site = Site::new();
    let held = site.packet(0, |_| ());
    site.pass(1);
    site.knock(0, close);
    assert_eq!(site.send(&held), "closed-since");
    assert_eq!(site.send(&held), "replayed");
    site.pass(1);
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn a_close_that_comes_late_lets_nothing_in_that_a_later_one_holds_back() {
    let mut site = Site::new();
    let late = site.packet(0, close);
    site.pass(1);
    let held = site.packet(0, |_| ());
    site.pass(1);
    site.knock(0, close);
    assert_eq!(site.send(&late), "ssh 192.0.2.7 shut");
    assert_eq!(site.send(&held), "closed-since");
}

#[test]
fn what_could_not_be_recorded_leaves_the_claims_as_they_were() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    let (packet, now) = (site.packet(0, ask(600)), site.now());
    let Verdict::Accepted(accepted) = site.gate.handle(now, LAPTOP.into(), &packet) else {
        panic!("not accepted");
    };
    site.gate.undo(&accepted);
    assert_eq!(site.admitted(), ["ssh 192.0.2.7 laptop 60"]);
    assert_eq!(site.send(&packet), "replayed");
}

#[test]
fn a_grant_that_survived_the_daemon_counts_as_its_keys() {
    let mut site = Site::new();
    let place = Place {
        service: "ssh".parse().unwrap(),
        address: LAPTOP.into(),
    };
    let until = site.mono + Duration::from_secs(500);
    let secret = &site.settings.keys[0].generations[0].secret;
    let claim = Claim {
        generation: Subkeys::derive(secret, &site.settings.config.server_id).id(),
        key: "laptop".parse().unwrap(),
        place,
        until,
    };
    let now = site.now();
    site.gate.resume(now, &[claim]);
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 500");
    site.pass(1);
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 shut");
}

#[test]
fn claims_that_ended_leave_nothing_behind() {
    let mut site = Site::new();
    for last in 1..=16 {
        let packet = site.packet(0, |_| ());
        site.send_from([198, 51, 100, last], &packet);
    }
    site.pass(31);
    let now = site.now();
    site.gate.tick(now);
    assert_eq!(site.gate.take_left().len(), 16);
    assert_eq!(site.gate.take_over().len(), 16);
    assert_eq!(
        format!("{:?}", site.gate.claims),
        format!("{:?}", Claims::default())
    );
}
