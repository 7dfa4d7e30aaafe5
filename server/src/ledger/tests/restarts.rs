//! What a start knows after a kill, a clean stop, a power cut, a loss.

use super::*;

#[test]
fn a_new_state_forbids_nothing() {
    let (_, _, found) = Site::new().start();
    let memory = Memory::default();
    assert_eq!(
        found,
        Found::State {
            memory,
            floor: None
        }
    );
}

#[test]
fn after_a_kill_what_was_accepted_is_refused_and_a_fresh_knock_is_not() {
    let site = Site::new();
    let packet = site.open(0);
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    drop(ledger);
    let (mut ledger, mut gate, found) = site.start();
    assert!(matches!(found, Found::State { floor: None, .. }));
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
}

#[test]
fn after_a_clean_stop_the_same() {
    let site = Site::new();
    let packet = site.open(0);
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    ledger.close().unwrap();
    site.cut_power();
    let (mut ledger, mut gate, found) = site.start();
    assert!(matches!(found, Found::State { floor: None, .. }));
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
}

#[test]
fn after_a_power_cut_the_lease_is_the_floor_although_the_last_commits_are_gone() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let (first, last) = (site.open(0), {
        site.pass(3);
        site.open(0)
    });
    for packet in [&first, &last] {
        assert!(site.knock(&mut gate, &mut ledger, packet));
    }
    drop(ledger);
    fs::remove_file(site.folder.join("ledger.db-wal")).ok();
    site.cut_power();
    let (mut ledger, mut gate, found) = site.start();
    let lease = Timestamp(T0 + 3_000 + 5_000);
    assert!(matches!(found, Found::State { floor: Some(floor), .. } if floor <= lease));
    for packet in [&first, &last] {
        assert!(!site.knock(&mut gate, &mut ledger, packet));
    }
    site.pass(6);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
    // The floor outlives the next start of the same boot.
    drop(ledger);
    let (mut ledger, mut gate, _) = site.start();
    assert!(!site.knock(&mut gate, &mut ledger, &last));
}

#[test]
fn a_missing_or_damaged_state_is_never_taken_for_an_empty_one() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("ledger.db is missing", |f| {
            fs::remove_file(f.join("ledger.db")).unwrap();
        }),
        ("lease is missing", |f| {
            fs::remove_file(f.join("lease")).unwrap();
        }),
        ("lease is damaged", |f| {
            fs::write(f.join("lease"), "oneknock lease 3\n12").unwrap();
        }),
        ("ledger.db is damaged", |f| {
            fs::write(f.join("ledger.db"), "").unwrap();
        }),
        ("ledger.db is damaged", |f| {
            let mut bytes = fs::read(f.join("ledger.db")).unwrap();
            for byte in &mut bytes[4096..] {
                *byte = 0x55;
            }
            fs::write(f.join("ledger.db"), bytes).unwrap();
        }),
        ("ledger.db is damaged", |f| {
            let db = Connection::open(f.join("ledger.db")).unwrap();
            db.pragma_update(None, "user_version", 3).unwrap();
        }),
        ("ledger.db is damaged", |f| {
            let db = Connection::open(f.join("ledger.db")).unwrap();
            db.execute_batch("INSERT INTO closed VALUES ('../x', 'ssh', '192.0.2.7', 5)")
                .unwrap();
        }),
    ];
    for (what, harm) in harms {
        let site = Site::new();
        let (mut ledger, mut gate, _) = site.start();
        assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
        ledger.close().unwrap();
        harm(&site.folder);
        // Nor by the next start, after a stop before anything was begun.
        for first in [true, false] {
            let (ledger, _, found) = site.start();
            let Found::Nothing(why) = found else {
                panic!("{what}: {found:?}")
            };
            assert!(why.starts_with(what) || !first, "{what}: {why}");
            ledger.close().unwrap();
        }
        if what.starts_with("ledger.db is damaged") {
            assert!(site.folder.join("ledger.db.damaged").exists());
        }
    }
}

#[test]
fn what_is_forgotten_leaves_its_floor() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let packet = site.open(0);
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    site.pass(100);
    gate.tick(site.now);
    tidy(&mut ledger, &mut gate, site.now);
    drop(ledger);
    // The clock goes back while no daemon runs.
    site.now.wall = Timestamp(T0);
    let (mut ledger, mut gate, found) = site.start();
    let Found::State { memory, .. } = found else {
        panic!()
    };
    assert!(
        memory.seen.is_empty() && memory.floors.len() == 1,
        "{memory:?}"
    );
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
    site.pass(1);
    assert!(site.knock(&mut gate, &mut ledger, &site.open(0)));
}

#[test]
fn what_has_become_much_goes_in_portions() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
        INSERT INTO claim SELECT 'phone', 'ssh', '192.0.2.' || i, 1, 1, ?1, ?1, 1, 1 FROM n";
    assert!(site.knock(&mut gate, &mut ledger, &site.open(1)));
    ledger.database.execute(many, [T0.cast_signed()]).unwrap();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 170)
        INSERT INTO accepted SELECT ?1, randomblob(32), 1 FROM n";
    ledger.database.execute(many, [T0.cast_signed()]).unwrap();
    site.pass(100);
    assert_eq!(count(&ledger, "claim"), 121);
    assert_eq!(count(&ledger, "accepted"), 171);
    assert_eq!(tidy(&mut ledger, &mut gate, site.now), 3);
    assert_eq!(count(&ledger, "claim"), 0);
    assert_eq!(count(&ledger, "accepted"), 0);
    assert_eq!(count(&ledger, "history"), 121);
}

#[test]
fn a_close_holds_across_a_restart() {
    let mut site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let held_back = site.open(0);
    site.pass(1);
    assert!(site.knock(&mut gate, &mut ledger, &site.packet(0, Action::Close)));
    drop(ledger);
    let (mut ledger, mut gate, _) = site.start();
    assert!(!site.knock(&mut gate, &mut ledger, &held_back));
}

#[test]
fn one_daemon_at_a_time() {
    let site = Site::new();
    let _first = Ledger::open(&site.folder, site.now).unwrap();
    let second = Ledger::open(&site.folder, site.now);
    assert!(matches!(second, Err(Unusable::Locked(_))));
}

#[test]
fn what_a_first_use_brings_forward_is_there_after_a_kill_and_in_a_new_database() {
    let mut site = Site::new();
    let end = Timestamp(T0 + 1_000_000_000);
    site.settings.keys[0].generations[0].not_after = Some(end);
    let newer = Generation::generate(8, site.now.wall).unwrap();
    // In front: `packet` seals with the first.
    site.settings.keys[0].generations.insert(0, newer);
    let (mut ledger, mut gate, _) = site.start();
    assert!(site.knock(&mut gate, &mut ledger, &site.open(60)));
    let want = site.now.wall.0 + 24 * 3600 * 1000;
    let retires = |memory: &Memory| {
        memory
            .retires
            .iter()
            .map(|(_, at)| at.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(retires(&gate.memory()), [want]);
    ledger.renew(&gate.memory(), site.now).unwrap();
    drop(ledger);
    let (_ledger, gate, _) = site.start();
    assert_eq!(retires(&gate.memory()), [want]);
    let known = uses::read(&site.folder).unwrap();
    assert!(
        known
            .values()
            .any(|known| known.retires == Some(Timestamp(want)))
    );
}

#[test]
fn a_ledger_of_version_1_is_taken_up() {
    let site = Site::new();
    let (mut ledger, mut gate, _) = site.start();
    let packet = site.open(60);
    assert!(site.knock(&mut gate, &mut ledger, &packet));
    ledger.close().unwrap();
    let database = Connection::open(site.folder.join(FILE)).unwrap();
    let old = "ALTER TABLE generation DROP COLUMN retires; PRAGMA user_version = 1";
    database.execute_batch(old).unwrap();
    drop(database);
    let (mut ledger, mut gate, found) = site.start();
    assert!(matches!(found, Found::State { .. }), "{found:?}");
    assert!(!site.knock(&mut gate, &mut ledger, &packet));
}
