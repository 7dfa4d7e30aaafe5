//! From one segment to the next.

use super::*;

fn floor(of: Timestamp) -> State {
    State {
        floors: vec![(generation(7), of)],
        ..State::default()
    }
}

#[test]
fn segment_with_a_packet_above_its_floor_is_kept() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let packets = [open(1, at(0)), open(2, at(1_000))];
    assert!(spend_one(&mut store, &packets[0], after(0)));
    rotate(&mut store, &State::default(), after(1));
    assert!(spend_one(&mut store, &packets[1], after(1)));
    rotate(&mut store, &floor(at(0)), after(2));
    until(|| site.log_files().snapshots.first() == Some(&4));
    drop(store);
    let (mut store, state) = site.start(after(3));
    assert_eq!(state.seen.len(), 1);
    assert_eq!(state.floors, [(generation(7), at(0))]);
    assert!(!spend_one(&mut store, &packets[1], after(3)));
}

#[test]
fn floor_stands_for_removed_segments() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    for number in 1..=5 {
        let packet = open(number, at(number * 1_000));
        assert!(spend_one(&mut store, &packet, after(number)));
        let floor = floor(at(number * 1_000 - 1_000));
        rotate(&mut store, &floor, after(number));
    }
    assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
    until(|| site.log_files().segments.first() == Some(&6));
    drop(store);
    let state = site.state(after(6));
    assert_eq!(state.seen.len(), 1);
    assert_eq!(state.floors, [(generation(7), at(4_000))]);
}

#[test]
fn segment_stays_while_a_generation_in_it_has_no_floor() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let other = Spend {
        generation: generation(8),
        ..open(2, at(0))
    };
    store
        .spend(&[open(1, at(0)), other.clone()], after(0))
        .unwrap();
    rotate(&mut store, &floor(at(5_000)), after(1));
    rotate(&mut store, &floor(at(5_000)), after(2));
    until(|| site.log_files().snapshots.first() == Some(&4));
    assert!(site.log_files().segments.contains(&2));
    drop(store);
    let state = site.state(after(3));
    assert_eq!(state.seen, [(other.generation, other.at, other.id)]);
}

#[test]
fn snapshot_holds_all_but_the_packets() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let whole = State {
        seen: Vec::new(),
        floors: vec![(generation(1), at(5)), (generation(2), at(6))],
        default_floor: Some(at(7)),
        closes: vec![crate::engine::Close {
            key: "phone".parse().unwrap(),
            service: Some("ssh".parse().unwrap()),
            source: Source::of("2001:db8::1".parse().unwrap()),
            at: at(8),
        }],
        grants: vec![grant(after(0), 600)],
        retirements: vec![(generation(1), at(9))],
    };
    rotate(&mut store, &whole, after(1));
    until(|| site.log_files().snapshots.first() == Some(&3));
    drop(store);
    assert_eq!(site.state(after(2)), whole);
}

#[test]
fn packet_is_refused_in_the_segments_after_its_own() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let packet = open(1, at(0));
    assert!(spend_one(&mut store, &packet, after(0)));
    for round in 1..4 {
        rotate(&mut store, &State::default(), after(round));
        assert!(!spend_one(&mut store, &packet, after(round)));
    }
}

/// A log that was switched, and killed before the snapshot was written.
fn without_its_last_snapshot() -> (Site, Grant) {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    store.note(&[granted(&live, after(0))], after(0)).unwrap();
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    let before = fs::read(site.directory().snapshot(2)).unwrap();
    // A state that lacks what the log has would show.
    rotate(&mut store, &State::default(), after(1));
    assert!(spend_one(&mut store, &open(2, at(1_000)), after(1)));
    until(|| site.log_files().snapshots.first() == Some(&3));
    drop(store);
    fs::remove_file(site.directory().snapshot(3)).unwrap();
    let path = site.directory().snapshot(2);
    fs::write(&path, before).unwrap();
    permissions::set(&path, 0o600);
    (site, live)
}

#[test]
fn kill_between_a_switch_and_its_snapshot_loses_nothing() {
    let (site, live) = without_its_last_snapshot();
    let state = site.state(after(2));
    assert_eq!(state.grants, [live]);
    assert_eq!(state.seen.len(), 2);
}

#[test]
fn log_that_goes_on_after_a_segment_without_end_is_damage() {
    let (site, _) = without_its_last_snapshot();
    let path = site.directory().segment(2);
    let mut bytes = fs::read(&path).unwrap();
    let end = used(&bytes);
    bytes[end - 192..].fill(0);
    fs::write(&path, bytes).unwrap();
    // The kill came before the next one was prepared.
    fs::remove_file(site.directory().segment(4)).unwrap();
    let why = site.nothing(after(2));
    assert!(why.contains("00000002.log has no end"), "{why}");
}

#[test]
fn close_holds_although_the_snapshot_after_it_lacks_it() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &close(1, at(1_000)), after(1)));
    rotate(&mut store, &State::default(), after(1));
    until(|| site.log_files().snapshots.first() == Some(&3));
    drop(store);
    let closes = site.state(after(2)).closes;
    assert_eq!(closes.len(), 1);
    assert_eq!(closes[0].at, at(1_000));
}

#[test]
fn full_segment_takes_records_until_the_switch() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(!store.is_full());
    let mut number = 0;
    let mut spent = 0;
    while !store.is_full() {
        let batch: Vec<Spend> = (0..500)
            .map(|_| {
                number += 1;
                open(number, at(0))
            })
            .collect();
        spent += store.spend(&batch, after(0)).unwrap().len();
        assert!(spent < 1_000_000);
    }
    store.rotate(State::default(), after(1)).unwrap();
    assert!(!store.is_full());
    // It was full within seconds: the one after the next is larger.
    assert!(spend_one(&mut store, &open(0, at(0)), after(1)));
    until(|| site.log_files().segments.contains(&4));
    let len_of = |number| {
        fs::metadata(site.directory().segment(number))
            .unwrap()
            .len()
    };
    assert_eq!(len_of(4), 4 * len_of(3));
    drop(store);
    assert_eq!(site.state(after(2)).seen.len(), spent + 1);
}
