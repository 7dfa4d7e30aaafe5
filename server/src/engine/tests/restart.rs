//! What outlives the daemon, and floors of what did not.

use super::*;

const SKEW: u64 = 30_000;

/// Starts with these rules, an earlier run's state, and perhaps the floor of a power cut.
fn start(site: &mut Site, rules: &Rules, state: State, floor: Option<u64>) {
    let now = site.now();
    site.engine = Engine::new(rules.clone(), now);
    site.engine.load(state, now);
    if let Some(floor) = floor {
        site.engine.raise_floors(Timestamp(floor));
    }
}

/// The site's rules without the key laptop.
fn without_laptop(site: &Site) -> Rules {
    let mut rules = site.rules.clone();
    rules.keys.remove(0);
    rules
}

#[test]
fn spent_packet_is_replayed_after_a_restart() {
    let mut site = Site::new();
    let packet = site.packet(0, |_| ());
    site.send(&packet);
    site.restart();
    assert_eq!(site.send(&packet), "replayed");
    site.pass(31);
    site.tick();
    site.restart();
    site.wall = T0;
    assert_eq!(site.send(&packet), "replay-floor");
}

#[test]
fn nothing_up_to_a_raised_floor_is_accepted() {
    let mut site = Site::new();
    site.engine.raise_floors(Timestamp(T0));
    assert_eq!(site.knock(0, |_| ()), "replay-floor");
    let later = |knock: &mut Knock| knock.timestamp.0 += 1;
    assert_eq!(site.knock(0, later), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn key_away_at_a_power_cut_comes_back_to_the_floor() {
    let mut site = Site::new();
    site.knock(0, |_| ());
    let state = site.engine.snapshot(site.now());
    site.pass(1);
    let lost = site.packet(0, |_| ());
    let without = without_laptop(&site);
    start(&mut site, &without, state, Some(T0 + 5000));
    site.reload();
    assert_eq!(site.send(&lost), "replay-floor");
    site.pass(5);
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn key_without_a_record_waits_a_skew_at_most_after_a_lost_state() {
    // A state that was lost, and one whose clock was far ahead at that time.
    for floor in [T0 + SKEW, T0 + 1000 * SKEW] {
        let mut site = Site::new();
        let of_clock_ahead = site.packet(0, |knock| knock.timestamp.0 += SKEW - 1);
        let without = without_laptop(&site);
        start(&mut site, &without, State::default(), Some(floor));
        // And as another start finds it.
        let state = site.engine.snapshot(site.now());
        assert_eq!(state.default_floor, Some(Timestamp(floor)));
        start(&mut site, &without, state, None);
        site.pass(1);
        site.reload();
        let state = site.engine.snapshot(site.now());
        let id = site.rules.keys[0].generations[0].subkeys.id();
        let floors = state.floors.iter().filter(|(of, _)| *of == id);
        assert_eq!(floors.count(), 1, "it is written");
        assert_eq!(site.send(&of_clock_ahead), "replay-floor");
        site.pass(SKEW / 1000 + 1);
        site.reload();
        assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
    }
}

#[test]
fn new_key_waits_for_no_floor_where_nothing_was_lost() {
    let mut site = Site::new();
    let without = without_laptop(&site);
    start(&mut site, &without, State::default(), None);
    site.reload();
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 30");
}

#[test]
fn grant_of_an_earlier_run_goes_on_as_its_keys() {
    let mut site = Site::new();
    site.knock(0, ask(500));
    site.pass(1);
    site.knock(1, ask(5));
    site.pass(10);
    let state = site.engine.snapshot(site.now());
    assert_eq!(state.grants.len(), 1, "what is over is not written");
    assert_eq!(site.restart(), ["ssh of laptop goes on"]);
    assert_eq!(site.allowed(), ["ssh 192.0.2.7 laptop 489"]);
    assert!(
        site.engine
            .desired()
            .dirty()
            .contains(&target("ssh", LAPTOP))
    );
    assert_eq!(site.knock(0, |_| ()), "ssh 192.0.2.7 laptop 489");
    site.pass(1);
    assert_eq!(site.knock(0, close), "ssh 192.0.2.7 shut");
}

#[test]
fn grant_that_ended_between_two_runs_is_told_as_expired() {
    let mut site = Site::new();
    site.knock(0, ask(30));
    let state = site.engine.snapshot(site.now());
    site.pass(31);
    let rules = site.rules.clone();
    start(&mut site, &rules, state, None);
    assert_eq!(site.events(), ["ssh of laptop ended: Expired"]);
    assert_eq!(*site.engine.desired(), Desired::default());
}

#[test]
fn snapshot_holds_all_that_was_loaded() {
    let mut site = Site::edited(|key| {
        key.generations[0].not_after = Some(Timestamp(T0 + 48 * HOUR * 1000));
        key.generations.push(generation(2));
    });
    site.engine.raise_floors(Timestamp(T0 - 1));
    site.knock(0, ask(600));
    site.knock(1, close);
    let packet = site.packet_by(0, 1, |_| ());
    site.send(&packet);
    let now = site.now();
    let mut before = site.engine.snapshot(now);
    assert!(!before.seen.is_empty() && !before.floors.is_empty());
    assert!(!before.closes.is_empty() && !before.grants.is_empty());
    assert!(!before.retirements.is_empty() && before.default_floor.is_some());
    site.restart();
    let mut after = site.engine.snapshot(now);
    for state in [&mut before, &mut after] {
        state.floors.sort_unstable();
    }
    assert_eq!(after, before);
}
