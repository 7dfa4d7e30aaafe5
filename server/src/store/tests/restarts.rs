//! What a start knows after a kill, a clean stop, a power cut.

use super::*;
use std::path::Path;

#[test]
fn new_state_forbids_nothing() {
    let site = Site::new();
    let want = Recovery::State {
        state: State::default(),
        floor: None,
        ended: Vec::new(),
    };
    assert_eq!(site.found(after(0)), want);
}

#[test]
fn nothing_is_spent_before_the_run_has_begun() {
    let site = Site::new();
    let (mut store, _) = site.open(after(0));
    let spent = store.spend(&[open(1, at(0))], after(0));
    assert!(matches!(spent, Err(StoreError::NotBegun)), "{spent:?}");
    let noted = store.note(&[], after(0));
    assert!(matches!(noted, Err(StoreError::NotBegun)), "{noted:?}");
}

#[test]
fn second_store_is_locked_out() {
    let site = Site::new();
    let _first = site.open(after(0));
    let second = Store::open(&site.path, after(0));
    assert!(matches!(second, Err(StoreOpenError::Locked(_))));
}

#[test]
fn missing_directory_is_said_to_be_missing() {
    let site = Site::new();
    let opened = Store::open(&site.path.join("other"), after(0));
    assert!(matches!(opened, Err(StoreOpenError::Missing(_))));
}

#[test]
fn spent_packet_is_refused_after_a_kill() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let packet = open(1, at(0));
    assert!(spend_one(&mut store, &packet, after(0)));
    drop(store);
    let (mut store, state) = site.start(after(1));
    assert_eq!(state.seen, [(packet.generation, packet.at, packet.id)]);
    assert!(!spend_one(&mut store, &packet, after(1)));
    assert!(spend_one(&mut store, &open(2, at(1)), after(1)));
    // Nor by the start after that, which has it of the start before.
    drop(store);
    let (mut store, state) = site.start(after(2));
    assert_eq!(state.seen.len(), 2);
    assert!(!spend_one(&mut store, &packet, after(2)));
}

#[test]
fn spent_packet_is_refused_after_a_clean_stop() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let packet = open(1, at(0));
    assert!(spend_one(&mut store, &packet, after(0)));
    store.close().unwrap();
    site.reboot();
    let found = site.found(after(1));
    assert!(
        matches!(found, Recovery::State { floor: None, .. }),
        "{found:?}"
    );
    let (mut store, _) = site.start(after(1));
    assert!(!spend_one(&mut store, &packet, after(1)));
    assert!(spend_one(&mut store, &open(2, at(1)), after(1)));
}

#[test]
fn mark_is_the_floor_after_a_power_cut() {
    for harm in ["nothing", "cut", "zeroed", "gone"] {
        let site = Site::new();
        let (mut store, _) = site.start(after(0));
        let (first, last) = (open(1, at(0)), open(2, at(3_000)));
        for packet in [&first, &last] {
            assert!(spend_one(&mut store, packet, after(0)));
        }
        drop(store);
        let path = site.current();
        let bytes = fs::read(&path).unwrap();
        match harm {
            "cut" => fs::write(&path, &bytes[..start(&path) + 100]).unwrap(),
            "zeroed" => {
                let (state, records) = bytes.split_at(start(&path));
                let whole = [state, &[0; 200], &records[200..]].concat();
                fs::write(&path, whole).unwrap();
            }
            "gone" => fs::remove_file(&path).unwrap(),
            _ => {}
        }
        site.reboot();
        let found = site.found(after(4));
        let Recovery::State { floor, .. } = found else {
            panic!("{harm}: {found:?}")
        };
        assert_eq!(floor, Some(at(5_000)), "{harm}");
        let (mut store, _) = site.start(after(6));
        assert!(spend_one(&mut store, &open(3, at(6_000)), after(6)));
        // The floor outlives a kill.
        drop(store);
        let state = site.state(after(7));
        assert_eq!(state.floors, [(generation(7), at(5_000))], "{harm}");
        assert_eq!(state.default_floor, Some(at(5_000)), "{harm}");
        assert_eq!(state.seen.len(), 1, "{harm}");
    }
}

#[test]
fn power_cut_that_spoils_the_begin_has_the_mark_of_before() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    drop(store);
    site.reboot();
    for _ in 0..3 {
        let (store, recovery) = site.open(after(1));
        let Recovery::State { floor, .. } = recovery else {
            panic!("{recovery:?}")
        };
        assert_eq!(floor, Some(at(5_000)));
        // A stop before the run has begun leaves no note of a clean one.
        store.close().unwrap();
    }
}

#[test]
fn clean_stop_lowers_the_mark_to_the_last_packet() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(2)), after(0)));
    store.close().unwrap();
    // A power cut in the next run, before it has accepted anything.
    let (store, _) = site.start(after(1));
    drop(store);
    site.reboot();
    let found = site.found(after(2));
    let floor = at(2);
    assert!(
        matches!(found, Recovery::State { floor: Some(at), .. } if at == floor),
        "{found:?}"
    );
}

#[test]
fn close_holds_after_a_kill_before_its_outcome_was_noted() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    let other = Grant {
        target: Target {
            source: Source::of([192, 0, 2, 9].into()),
            ..live.target
        },
        ..live.clone()
    };
    let events = [granted(&live, after(0)), granted(&other, after(0))];
    store.note(&events, after(0)).unwrap();
    assert!(spend_one(&mut store, &close(1, at(1_000)), after(1)));
    drop(store);
    let state = site.state(after(2));
    assert_eq!(state.closes.len(), 1);
    assert_eq!(state.closes[0].at, at(1_000));
    assert_eq!(state.grants, [other]);
}

#[test]
fn close_of_every_service_ends_them_all() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let ssh = grant(after(0), 600);
    let web = Grant {
        target: Target {
            service: "web".parse().unwrap(),
            ..ssh.target
        },
        ..ssh.clone()
    };
    let phones = Grant {
        key: Arc::new("phone".parse().unwrap()),
        ..ssh.clone()
    };
    let events = [&ssh, &web, &phones].map(|grant| granted(grant, after(0)));
    store.note(&events, after(0)).unwrap();
    let all = Spend {
        service: None,
        ..close(1, at(1_000))
    };
    assert!(spend_one(&mut store, &all, after(1)));
    drop(store);
    assert_eq!(site.state(after(2)).grants, [phones]);
}

#[test]
fn grants_of_two_keys_survive_a_kill() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let laptops = grant(after(0), 60);
    let phones = Grant {
        key: Arc::new("phone".parse().unwrap()),
        until: after(600).mono + Duration::from_nanos(7),
        ..laptops.clone()
    };
    let events = [granted(&laptops, after(0)), granted(&phones, after(0))];
    store.note(&events, after(0)).unwrap();
    drop(store);
    assert_eq!(site.state(after(59)).grants, [laptops, phones]);
}

#[test]
fn ended_grant_does_not_come_back() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    store.note(&[granted(&live, after(0))], after(0)).unwrap();
    let why = EndReason::Revoked;
    let end = Event::Ended {
        grant: live.clone(),
        why,
    };
    store.note(&[end], after(1)).unwrap();
    drop(store);
    assert_eq!(site.state(after(2)).grants, []);
    // An expired grant does not come back either, and is reported.
    let (mut store, _) = site.start(after(3));
    let short = grant(after(3), 10);
    store.note(&[granted(&short, after(3))], after(3)).unwrap();
    drop(store);
    let Recovery::State { state, ended, .. } = site.found(after(13)) else {
        panic!()
    };
    assert_eq!(state.grants, []);
    assert_eq!(ended, [(short, EndReason::Expired)]);
}

#[test]
fn grants_end_with_a_reboot() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    store.note(&[granted(&live, after(0))], after(0)).unwrap();
    store.close().unwrap();
    site.reboot();
    let Recovery::State { state, ended, .. } = site.found(after(1)) else {
        panic!()
    };
    assert_eq!(state.grants, []);
    assert_eq!(ended, [(live, EndReason::Reboot)]);
}

#[test]
fn retirements_and_floors_are_there_after_a_kill() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let retiring = Event::Retiring {
        key: Arc::new("laptop".parse().unwrap()),
        generation: generation(6),
        number: 6,
        ends: at(86_400_000),
        newer: 7,
    };
    store.note(&[retiring], after(0)).unwrap();
    // A lower one lowers nothing.
    for floor in [30_000, 20_000] {
        let floors = [(generation(9), at(floor))];
        store.raise_floors(&floors).unwrap();
    }
    drop(store);
    let (store, state) = site.start(after(1));
    assert_eq!(state.retirements, [(generation(6), at(86_400_000))]);
    assert_eq!(state.floors, [(generation(9), at(30_000))]);
    drop(store);
    assert_eq!(site.state(after(2)), state);
}

#[test]
fn duplicate_is_refused_in_one_batch_and_across_segments() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let (first, second) = (open(1, at(0)), open(2, at(0)));
    let batch = [first.clone(), second.clone(), first.clone()];
    assert_eq!(store.spend(&batch, after(0)).unwrap(), [true, true, false]);
    assert_eq!(store.spend(&batch, after(0)).unwrap(), [false; 3]);
    assert!(store.spend(&[], after(0)).unwrap().is_empty());
    drop(store);
    assert_eq!(site.state(after(1)).seen.len(), 2);
}

#[test]
fn state_that_is_there_is_not_made_again() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    drop(store);
    Store::create(&site.path, me()).unwrap();
    assert_eq!(site.state(after(1)).seen.len(), 1);
    // Nor where a part of it is lost: that is no first start.
    fs::remove_file(site.path.join("mark")).unwrap();
    Store::create(&site.path, me()).unwrap();
    assert_eq!(site.nothing(after(1)), "mark is missing");
}

#[test]
fn state_with_a_relative_path_is_made_and_opened() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = Path::new(dir.path().file_name().unwrap()).join("state");
    Store::create(&path, me()).unwrap();
    let (_store, recovery) = Store::open(&path, after(0)).unwrap();
    assert!(matches!(recovery, Recovery::State { .. }));
}

#[test]
fn written_state_gives_no_secret_away() {
    let site = Site::new();
    let secret = oneknock_shared::secret::Secret::generate().unwrap();
    let server = oneknock_shared::secret::ServerId::generate().unwrap();
    let keys = oneknock_shared::secret::Subkeys::derive(&secret, &server);
    let (mut store, _) = site.start(after(0));
    let packet = Spend {
        generation: keys.id(),
        ..open(1, at(0))
    };
    assert!(spend_one(&mut store, &packet, after(0)));
    store.close().unwrap();
    let text = secret.to_base64();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &*text).unwrap();
    let mut files = 0;
    for file in fs::read_dir(&site.path).unwrap() {
        let content = fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for needle in [&bytes[..8], text.as_bytes()] {
            let found = content.windows(needle.len()).any(|window| window == needle);
            assert!(!found);
        }
    }
    assert!(files >= 4, "{files}");
}
