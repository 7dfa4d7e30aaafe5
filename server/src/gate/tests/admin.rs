//! What the administrator asks.

use super::*;

fn held(site: &Site, after: Option<(Place, &KeyName)>) -> Vec<String> {
    let held = site.gate.held(site.now(), after);
    let text = held.map(|h| {
        let Place { service, address } = h.place;
        format!("{service} {address} {} {}", h.key, h.left.as_secs())
    });
    text.collect()
}

#[test]
fn claims_are_listed_in_pieces_that_join() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    site.knock(1, ask(70));
    site.knock(1, |knock| {
        ask(80)(knock);
        knock.service = Some("web".parse().unwrap());
    });
    let all = held(&site, None);
    let want = [
        "ssh 192.0.2.7 laptop 60",
        "ssh 192.0.2.7 phone 70",
        "web 192.0.2.7 phone 80",
    ];
    assert_eq!(all, want);
    let claims: Vec<Held> = site.gate.held(site.now(), None).collect();
    for (at, claim) in claims.iter().enumerate() {
        assert_eq!(held(&site, Some((claim.place, &claim.key))), want[at + 1..]);
    }
    site.pass(65);
    assert_eq!(held(&site, None).len(), 2);
}

#[test]
fn ending_a_keys_claims_leaves_what_another_key_holds() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    site.knock(1, ask(70));
    let now = site.now();
    let ended = site.gate.end(now, |key, _| key.as_str() == "phone");
    assert_eq!(ended.claims.len(), 1);
    let changes: Vec<String> = ended.lost.changes.iter().map(change).collect();
    assert_eq!(changes, ["ssh 192.0.2.7 laptop 60"]);
    let ended = site
        .gate
        .end(now, |_, place| place.address == IpAddr::from(LAPTOP));
    let changes: Vec<String> = ended.lost.changes.iter().map(change).collect();
    assert_eq!(changes, ["ssh 192.0.2.7 shut"]);
    assert!(site.admitted().is_empty());
    assert!(site.gate.end(now, |_, _| true).claims.is_empty());
}

#[test]
fn what_could_not_be_ended_is_kept_as_it_was() {
    let mut site = Site::new();
    site.knock(0, ask(60));
    let before = held(&site, None);
    let now = site.now();
    let ended = site.gate.end(now, |_, _| true);
    site.gate.keep(now, &ended);
    assert_eq!(held(&site, None), before);
}

#[test]
fn refusals_are_counted_by_their_reason() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    site.send(&packet);
    site.send(&packet);
    site.knock(0, |knock| knock.timestamp.0 -= 31_000);
    site.knock(0, |knock| knock.service = Some("web".parse().unwrap()));
    let reasons = &site.gate.counters().reasons;
    let reasons: Vec<_> = reasons.iter().map(|(&word, &n)| (word, n)).collect();
    let want = [("replayed", 1), ("service-not-allowed", 1), ("stale", 1)];
    assert_eq!(reasons, want);
}
