//! Other rules while it runs.

use super::*;

#[test]
fn reload_gives_no_rate_back() {
    let mut site = Site::edited(|key| key.knocks_per_minute = 1);
    assert!(site.knock(0, |_| ()).starts_with("ssh"));
    site.reload();
    assert_eq!(site.knock(0, |_| ()), "rate-limited");
    // Nor does one that brings another key in, before it in the order of names.
    site.rules.keys.push(key("alarm", &["ssh"]));
    site.reload();
    assert_eq!(site.knock(0, |_| ()), "rate-limited");
    assert!(site.knock(2, |_| ()).starts_with("ssh"));
}

#[test]
fn removed_keys_grants_end_and_its_packets_are_unknown() {
    let mut site = Site::new();
    let spent = site.packet(0, |_| ());
    site.send(&spent);
    site.knock(1, ask(60));
    let of_removed = site.packet(0, |_| ());
    let removed = site.rules.keys.remove(0);
    assert_eq!(site.reload(), ["ssh of laptop ended: KeyChanged"]);
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 phone 60"]);
    assert_eq!(site.send(&of_removed), "selector");
    // Back again, it still knows what was spent.
    site.rules.keys.insert(0, removed);
    site.reload();
    assert_eq!(site.send(&spent), "replayed");
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 phone 60");
}

#[test]
fn reload_keeps_grants_and_what_is_spent() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    site.send(&packet);
    assert_eq!(site.reload(), Vec::<String>::new());
    assert_eq!(site.send(&packet), "replayed");
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 laptop 30"]);
}

#[test]
fn shorter_skew_refuses_what_the_longer_one_took() {
    let mut site = Site::new();
    let early = |knock: &mut Knock| knock.timestamp.0 -= 2000;
    assert_eq!(site.knock(0, early), "ssh 192.0.2.7 laptop 30");
    site.rules.skew = Duration::from_secs(1);
    site.reload();
    assert_eq!(site.knock(0, early), "clock-skew");
}
