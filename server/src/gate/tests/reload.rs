//! Other settings while it runs.

use super::*;

#[test]
fn a_reload_gives_no_rate_back() {
    let mut site = Site::edited(|key| key.policy.knocks_per_minute = 1);
    assert!(site.knock(0, |_| ()).starts_with("ssh"));
    let (settings, now) = (site.settings.clone(), site.now());
    site.gate.reconfigure(&settings, now);
    assert_eq!(site.knock(0, |_| ()), "too-many-knocks");
}

#[test]
fn a_removed_keys_grants_are_closed_and_its_packets_unknown() {
    let mut site = Site::new();
    let spent = site.packet(0, |_| ());
    site.send(&spent);
    site.knock(1, ask(60));
    let (full, now) = (site.settings.clone(), site.now());
    let mut without = full.clone();
    without.keys.remove(0);
    let lost = site.gate.reconfigure(&without, now);
    assert_eq!(
        lost.changes.iter().map(change).collect::<Vec<_>>(),
        ["ssh 192.0.2.7 phone 60"]
    );
    assert_eq!(site.knock(0, |_| ()), "selector");
    // Put back, it still knows what was spent.
    site.gate.reconfigure(&full, now);
    assert_eq!(site.send(&spent), "replayed");
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 phone 60");
}

#[test]
fn a_reload_keeps_grants_and_what_was_seen() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    site.send(&packet);
    let (settings, now) = (site.settings.clone(), site.now());
    assert!(site.gate.reconfigure(&settings, now).claims.is_empty());
    assert_eq!(site.send(&packet), "replayed");
    assert_eq!(site.admitted(), ["ssh 192.0.2.7 laptop 30"]);
}

#[test]
fn another_key_under_an_old_name_inherits_no_grant() {
    let mut site = Site::new();
    site.knock(0, ask(600));
    let (mut settings, now) = (site.settings.clone(), site.now());
    settings.keys[0] = key("laptop", &["ssh"]);
    let lost = site.gate.reconfigure(&settings, now);
    let changes: Vec<String> = lost.changes.iter().map(change).collect();
    assert_eq!(changes, ["ssh 192.0.2.7 shut"]);
}
