//! A journal that is lost, damaged, or too slow.

use super::super::super::directory::DATABASE_PARTS;
use super::*;

fn with_a_history(site: &Site) -> Grant {
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    let over = to(&live, "192.0.2.8");
    assert!(spend_one(&mut store, &open(1, at(0)), after(0)));
    let events = [granted(&live, after(0)), granted(&over, after(0))];
    store.note(&events, after(0)).unwrap();
    store
        .note(&[ended(&over, EndReason::Revoked)], after(5))
        .unwrap();
    flush(&store);
    store.close().unwrap();
    live
}

const WANT: [&str; 2] = ["laptop ssh 0-5 revoked x1", "laptop ssh 0-600 open x1"];

#[test]
fn lost_journal_is_made_again_from_the_log() {
    let site = Site::new();
    with_a_history(&site);
    for part in DATABASE_PARTS {
        let _ = fs::remove_file(site.path.join(format!("{DATABASE}{part}")));
    }
    let (store, _) = site.start(after(10));
    flush(&store);
    assert_eq!(lines(&site, after(10)), WANT);
    assert_eq!(uses(&site.path).unwrap()[&generation(7)].last, Some(at(0)));
    assert_eq!(store.status(), StoreStatus::default());
    // The log goes back to the first run of this boot.
    let sources = ["192.0.2.7", "192.0.2.8"].map(|source| source.parse().unwrap());
    assert_eq!(
        granted_since_boot(&site.path).unwrap(),
        Some(sources.into())
    );
}

#[test]
fn journal_that_is_made_again_from_a_part_does_not_know_all() {
    let site = Site::new();
    let live = with_a_history(&site);
    let (store, _) = site.start(after(10));
    flush(&store);
    until(|| site.segments().first() == Some(&3));
    drop(store);
    for part in DATABASE_PARTS {
        let _ = fs::remove_file(site.path.join(format!("{DATABASE}{part}")));
    }
    let (store, _) = site.start(after(10));
    flush(&store);
    assert_eq!(lines(&site, after(10)).len(), 1);
    assert_eq!(granted_since_boot(&site.path).unwrap(), None);
    let targets = opened_targets(&site.path, &ConnectionFilter::default());
    assert_eq!(targets.unwrap(), [live.target].into());
}

#[test]
fn damaged_journal_is_moved_aside_and_made_again() {
    type Harm = fn(&std::path::Path);
    let harms: [Harm; 5] = [
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, "scribble".repeat(1000)).unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[4096..].fill(0x55);
            fs::write(path, bytes).unwrap();
        },
        |path| {
            let database = Connection::open(path).unwrap();
            database.pragma_update(None, "user_version", 9).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ];
    for (number, harm) in harms.iter().enumerate() {
        let site = Site::new();
        with_a_history(&site);
        harm(&site.path.join(DATABASE));
        let (mut store, _) = site.start(after(10));
        flush(&store);
        let status = store.status();
        let replaced = status.lost.unwrap();
        assert!(
            replaced.starts_with("journal.db is damaged ("),
            "{number} {replaced}"
        );
        assert!(site.path.join("journal.db.damaged").exists());
        assert_eq!(lines(&site, after(10)), WANT, "{number}");
        assert!(spend_one(&mut store, &open(2, at(10_000)), after(10)));
    }
}

#[test]
fn journal_damaged_under_the_daemon_is_made_again() {
    let site = Site::new();
    let live = with_a_history(&site);
    let (mut store, _) = site.start(after(10));
    flush(&store);
    let harm = Connection::open(site.path.join(DATABASE)).unwrap();
    harm.execute_batch("DROP TABLE history").unwrap();
    drop(harm);
    let more = to(&live, "192.0.2.9");
    store.note(&[granted(&more, after(10))], after(10)).unwrap();
    // It is found when the rows are written; the next time it is whole.
    let _ = store.flush_journal().unwrap().recv().unwrap();
    flush(&store);
    let replaced = store.status().lost.unwrap();
    assert!(
        replaced.contains("moved to journal.db.damaged"),
        "{replaced}"
    );
    // The grants that are live are there, whatever became of the rest.
    let open: Vec<_> = history(&site.path, None, NOWHERE, after(0)).unwrap();
    let open = open.iter().filter(|row| row.how == "open");
    assert_eq!(open.count(), 2);
    assert_eq!(granted_since_boot(&site.path).unwrap(), None);
}

#[test]
fn lost_log_ends_what_the_journal_has_as_open() {
    let site = Site::new();
    with_a_history(&site);
    fs::remove_file(site.path.join("mark")).unwrap();
    let (mut store, found) = site.open(after(10));
    assert!(matches!(found, Recovery::Nothing(_)), "{found:?}");
    store
        .begin(&State::default(), at(40_000), after(10))
        .unwrap();
    flush(&store);
    assert_eq!(
        lines(&site, after(10)),
        ["laptop ssh 0-5 revoked x1", "laptop ssh 0-10 revoked x1"]
    );
}

#[test]
fn log_that_begins_again_is_read_from_its_beginning() {
    let site = Site::new();
    let live = with_a_history(&site);
    for entry in fs::read_dir(&site.path).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains("journal") {
            fs::remove_file(path).unwrap();
        }
    }
    // As "init" after the state was removed by hand.
    Store::create(&site.path, me()).unwrap();
    let (mut store, _) = site.start(after(10));
    let again = to(&live, "192.0.2.9");
    store
        .note(&[granted(&again, after(10))], after(10))
        .unwrap();
    flush(&store);
    let rows = history(&site.path, None, NOWHERE, after(0)).unwrap();
    assert_eq!(rows.len(), 3, "{rows:?}");
}

#[test]
fn slow_journal_loses_the_oldest_and_says_so() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    flush(&store);
    let writer = Connection::open(site.path.join(DATABASE)).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    let floor = State {
        floors: vec![(generation(7), at(0))],
        ..State::default()
    };
    let live = grant(after(0), 600);
    for number in 0..30_u8 {
        let live = to(&live, &format!("192.0.2.{number}"));
        store.note(&[granted(&live, after(1))], after(1)).unwrap();
        rotate(&mut store, &floor, after(1));
    }
    until(|| store.status().journal.is_some());
    until(|| site.segments().len() <= 18);
    drop(writer);
    flush(&store);
    let rows = history(&site.path, None, NOWHERE, after(0)).unwrap().len();
    assert!((10..30).contains(&rows), "{rows}");
    let status = store.status();
    assert!(status.lost.unwrap().contains("removed before"));
    assert_eq!(status.journal, None);
    assert_eq!(granted_since_boot(&site.path).unwrap(), None);
    until(|| site.segments().len() <= 2);
}

#[test]
fn kill_after_a_segment_was_removed_makes_no_gap() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    store.note(&[granted(&live, after(0))], after(0)).unwrap();
    let state = State {
        grants: vec![live],
        ..State::default()
    };
    for _ in 0..2 {
        rotate(&mut store, &state, after(1));
    }
    flush(&store);
    until(|| site.segments().first() == Some(&3));
    drop(store);
    let (mut store, _) = site.open(after(2));
    store.begin(&state, NOWHERE, after(2)).unwrap();
    flush(&store);
    assert_eq!(lines(&site, after(2)), ["laptop ssh 0-600 open x1"]);
    assert_eq!(store.status(), StoreStatus::default());
    assert_eq!(granted_since_boot(&site.path).unwrap().unwrap().len(), 1);
}
