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
    until(|| site.segments().first() == Some(&6));
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

    assert!(site.segments().contains(&2));
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

#[test]
fn records_after_the_state_was_taken_add_up_with_it() {
    let site = Site::in_memory();
    let mut spent = 0;
    // The next segment is made sooner or later, and a kill comes before or after.
    for round in 0..50 {
        let (mut store, state) = site.start(after(round));
        assert_eq!(state.seen.len(), spent);
        store.rotate(State::default(), after(round)).unwrap();
        let live = grant(after(round), 600);
        for number in 0..=round {
            let number = round * 100 + number;
            assert!(spend_one(&mut store, &open(number, at(0)), after(round)));
            spent += 1;
        }
        store
            .note(&[granted(&live, after(round))], after(round))
            .unwrap();
        drop(store);
        assert_eq!(site.state(after(round)).grants, [live], "{round}");
    }
}

/// A log that goes on in a second segment.
fn with_two_segments() -> (Site, Grant) {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    let live = grant(after(0), 600);
    let state = State {
        grants: vec![live.clone()],
        ..State::default()
    };
    rotate(&mut store, &state, after(1));
    assert!(spend_one(&mut store, &open(2, at(1_000)), after(1)));
    drop(store);
    (site, live)
}

#[test]
fn kill_before_the_next_segment_is_in_use_loses_nothing() {
    let (site, live) = with_two_segments();
    let (path, older) = (site.current(), site.directory().segment(2));
    let mut bytes = fs::read(&path).unwrap();
    bytes[start(&path)..].fill(0);
    fs::write(&path, bytes).unwrap();
    for is_ended in [true, false] {
        if !is_ended {
            let mut bytes = fs::read(&older).unwrap();
            let end = used(&bytes);
            bytes[end - 200..].fill(0);
            fs::write(&older, bytes).unwrap();
        }
        let state = site.state(after(2));
        assert_eq!(
            (state.seen.len(), &state.grants[..]),
            (1, &[live.clone()][..])
        );
    }
}

#[test]
fn log_that_goes_on_after_a_segment_without_end_is_damage() {
    let (site, _) = with_two_segments();
    let path = site.directory().segment(2);
    let mut bytes = fs::read(&path).unwrap();
    let end = used(&bytes);
    bytes[end - 200..].fill(0);
    fs::write(&path, bytes).unwrap();
    let why = site.nothing(after(2));
    assert!(why.contains("the segment before it has no end"), "{why}");
}

#[test]
fn segment_that_has_lost_what_the_next_one_builds_on_is_damage() {
    let (site, _) = with_two_segments();
    let (path, current) = (site.directory().segment(2), site.current());
    for (path, end) in [(&path, start(&path)), (&current, start(&current))] {
        let mut bytes = fs::read(path).unwrap();
        bytes[end..].fill(0);
        fs::write(path, bytes).unwrap();
    }
    let why = site.nothing(after(2));
    assert!(why.contains("00000002.log: its end is missing"), "{why}");
}

#[test]
fn close_holds_although_the_snapshot_after_it_lacks_it() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &close(1, at(1_000)), after(1)));
    rotate(&mut store, &State::default(), after(1));

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
    let mut spent = 0;
    let mut fill = |store: &mut Store| {
        while !store.is_full() {
            let batch = (spent..spent + 500).map(|number| open(number, at(0)));
            let batch: Vec<Spend> = batch.collect();
            spent += store.spend(&batch, after(0)).unwrap().len() as u64;
            assert!(spent < 1_000_000);
        }
    };
    fill(&mut store);
    rotate(&mut store, &State::default(), after(1));
    assert!(!store.is_full());
    // It was full within seconds: the one after it is larger.
    let len_of = |number| {
        fs::metadata(site.directory().segment(number))
            .unwrap()
            .len()
    };
    assert!(len_of(3) > 3 * len_of(2));
    fill(&mut store);
    drop(store);
    assert_eq!(site.state(after(2)).seen.len() as u64, spent);
}
