mod hostile;
mod losses;
mod pruning;

use super::super::directory::DATABASE;
use super::super::tests::{
    NOWHERE, Site, T0, after, at, generation, grant, granted, me, open, rotate, spend_one, to,
    until,
};
use super::super::{Recovery, Store, StoreStatus};
use super::*;
use crate::engine::{EndReason, Event, Grant, Now, Source, State};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use rusqlite::Connection;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

/// All that was noted is in the journal.
pub(super) fn flush(store: &Store) {
    assert_eq!(store.flush_journal().unwrap().recv().unwrap(), Ok(()));
}

/// The history at this time, in seconds after the beginning.
pub(super) fn lines(site: &Site, now: Now) -> Vec<String> {
    let rows = history(&site.path, None, NOWHERE, now).unwrap();
    let line = |row: &HistoryRow| {
        let after = |at: Timestamp| (at.0 - T0) / 1000;
        let (opened, ended) = (after(row.opened), after(row.ended));
        let (key, service) = (&row.key, row.service);
        format!(
            "{key} {service} {opened}-{ended} {} x{}",
            row.how, row.knocks
        )
    };
    rows.iter().map(line).collect()
}

pub(super) fn ended(grant: &Grant, why: EndReason) -> Event {
    Event::Ended {
        grant: grant.clone(),
        why,
    }
}

fn renewed(grant: &Grant, now: Now) -> Event {
    Event::Granted {
        grant: grant.clone(),
        time: grant.until.saturating_sub(now.mono),
        renewed: true,
        from: [192, 0, 2, 7].into(),
    }
}

#[test]
fn history_has_key_times_end_and_knocks_of_each_grant() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let first = grant(after(0), 60);
    store.note(&[granted(&first, after(0))], after(0)).unwrap();
    let longer = Grant {
        until: after(70).mono,
        ..first
    };
    store
        .note(&[renewed(&longer, after(10))], after(10))
        .unwrap();
    flush(&store);
    assert_eq!(lines(&site, after(69)), ["laptop ssh 0-70 open x2"]);
    // Its end is known without an event.
    assert_eq!(lines(&site, after(70)), ["laptop ssh 0-70 expired x2"]);
    // A new grant after the end is a new row, also where no event told the expiry.
    let second = grant(after(110), 60);
    store
        .note(&[granted(&second, after(110))], after(110))
        .unwrap();
    let closed = Event::Closed {
        key: Arc::clone(&second.key),
        target: second.target,
        grant: Some(second.clone()),
        redundant: false,
    };
    store.note(&[closed], after(115)).unwrap();
    for (opened, why) in [(116, EndReason::Revoked), (120, EndReason::KeyChanged)] {
        let short = grant(after(opened), 60);
        store
            .note(&[granted(&short, after(opened))], after(opened))
            .unwrap();
        store
            .note(&[ended(&short, why)], after(opened + 1))
            .unwrap();
    }
    let last = grant(after(130), 60);
    store
        .note(&[granted(&last, after(130))], after(130))
        .unwrap();
    store
        .note(&[ended(&last, EndReason::Expired)], after(190))
        .unwrap();
    flush(&store);
    let want = [
        "laptop ssh 0-70 expired x2",
        "laptop ssh 110-115 closed x1",
        "laptop ssh 116-117 revoked x1",
        "laptop ssh 120-121 revoked x1",
        "laptop ssh 130-190 expired x1",
    ];
    assert_eq!(lines(&site, after(190)), want);
    store.close().unwrap();
    assert_eq!(lines(&site, after(190)), want);
}

#[test]
fn history_is_of_one_key_and_of_what_lasted_until_then() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let laptops = grant(after(0), 60);
    let phones = Grant {
        key: Arc::new("phone".parse().unwrap()),
        until: after(600).mono,
        ..laptops.clone()
    };
    let both = [granted(&laptops, after(0)), granted(&phones, after(0))];
    store.note(&both, after(0)).unwrap();
    flush(&store);
    let of = |key: &str, since| {
        let key: KeyName = key.parse().unwrap();
        history(&site.path, Some(&key), since, after(0))
            .unwrap()
            .len()
    };
    assert_eq!(
        (
            of("laptop", NOWHERE),
            of("phone", NOWHERE),
            of("other", NOWHERE)
        ),
        (1, 1, 0)
    );
    assert_eq!((of("laptop", at(60_001)), of("phone", at(60_001))), (0, 1));
}

#[test]
fn last_use_is_that_of_the_last_spent_packet() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    for (number, from) in [(1, "192.0.2.7"), (2, "2001:db8::7")] {
        let mut packet = open(number, at(number * 1_000));
        packet.from = from.parse().unwrap();
        assert!(spend_one(&mut store, &packet, after(number)));
    }
    let retiring = Event::Retiring {
        key: Arc::new("laptop".parse().unwrap()),
        generation: generation(6),
        number: 6,
        ends: at(86_400_000),
        newer: 7,
    };
    store.note(&[retiring], after(3)).unwrap();
    flush(&store);
    let known = uses(&site.path).unwrap();
    let of_newer = GenerationUse {
        last: Some(at(2_000)),
        from: Some("2001:db8::7".parse().unwrap()),
        retires: None,
    };
    let of_older = GenerationUse {
        retires: Some(at(86_400_000)),
        ..GenerationUse::default()
    };
    let want = [(generation(6), of_older), (generation(7), of_newer)];
    assert_eq!(known, want.into_iter().collect());
}

#[test]
fn opened_targets_are_those_since_boot_whatever_became_of_them() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let first = grant(after(0), 60);
    let second = to(&first, "2001:db8::7");
    let newer = Grant {
        number: 8,
        ..to(&first, "192.0.2.8")
    };
    let events = [&first, &second, &newer].map(|grant| granted(grant, after(0)));
    store.note(&events, after(0)).unwrap();
    store
        .note(&[ended(&first, EndReason::Revoked)], after(1))
        .unwrap();
    flush(&store);
    let (laptop, phone): (KeyName, KeyName) = ("laptop".parse().unwrap(), "phone".parse().unwrap());
    let count = |key, number, source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        let filter = ConnectionFilter {
            key,
            number,
            source,
        };
        opened_targets(&site.path, &filter).unwrap().len()
    };
    assert_eq!(count(None, None, None), 3);
    assert_eq!(count(Some(&laptop), None, None), 3);
    assert_eq!(count(Some(&laptop), Some(7), None), 2);
    assert_eq!(count(Some(&laptop), Some(8), Some("192.0.2.8")), 1);
    assert_eq!(count(Some(&phone), None, None), 0);
    assert_eq!(count(None, None, Some("192.0.2.9")), 0);
    let sources = granted_since_boot(&site.path).unwrap().unwrap();
    assert_eq!(sources.len(), 3);
    // A restart changes nothing, and a reboot ends them all.
    store.close().unwrap();
    let (store, _) = site.start(after(2));
    flush(&store);
    assert_eq!(count(None, None, None), 3);
    assert_eq!(granted_since_boot(&site.path).unwrap(), Some(sources));
    store.close().unwrap();
    site.reboot();
    set_boot(&site);
    let (store, _) = site.start(after(3));
    flush(&store);
    assert_eq!(count(None, None, None), 0);
    assert_eq!(granted_since_boot(&site.path).unwrap(), Some([].into()));
}

/// What the journal of another boot says.
fn set_boot(site: &Site) {
    let database = Connection::open(site.path.join(DATABASE)).unwrap();
    database
        .execute("UPDATE position SET boot = ?", [[7_u8; 16]])
        .unwrap();
}

#[test]
fn reboot_ends_what_was_open_and_not_what_had_expired() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let live = grant(after(0), 600);
    let over = to(&grant(after(0), 10), "192.0.2.8");
    let events = [granted(&live, after(0)), granted(&over, after(0))];
    store.note(&events, after(0)).unwrap();
    store
        .note(&[ended(&over, EndReason::Expired)], after(11))
        .unwrap();
    flush(&store);
    store.close().unwrap();
    site.reboot();
    set_boot(&site);
    let want = ["laptop ssh 0-10 expired x1", "laptop ssh 0-600 reboot x1"];
    assert_eq!(lines(&site, after(0)), want);
    let (store, _) = site.start(after(100));
    flush(&store);
    let want = ["laptop ssh 0-10 expired x1", "laptop ssh 0-100 reboot x1"];
    assert_eq!(lines(&site, after(100)), want);
}

#[test]
fn next_start_reads_what_a_kill_kept_from_the_journal() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    flush(&store);
    let first = grant(after(0), 600);
    for number in 0..3_000_u16 {
        let [high, low] = number.to_be_bytes();
        let live = to(&first, &format!("10.0.{high}.{low}"));
        store.note(&[granted(&live, after(0))], after(0)).unwrap();
    }
    // A kill, wherever the journal is.
    drop(store);
    let (mut store, state) = site.start(after(1));
    assert_eq!(state.grants.len(), 3_000);
    let last = to(&first, "192.0.2.99");
    store.note(&[granted(&last, after(1))], after(1)).unwrap();
    flush(&store);
    let rows = history(&site.path, None, NOWHERE, after(0)).unwrap();
    assert_eq!(rows.len(), 3_001);
    assert!(rows.iter().all(|row| row.how == "open" && row.knocks == 1));
    assert_eq!(store.status(), StoreStatus::default());
    assert_eq!(
        granted_since_boot(&site.path).unwrap().unwrap().len(),
        3_001
    );
}

#[test]
fn grant_that_the_next_run_lacks_is_revoked_in_the_history() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let (gone, stays) = (grant(after(0), 600), to(&grant(after(0), 600), "192.0.2.8"));
    let events = [granted(&gone, after(0)), granted(&stays, after(0))];
    store.note(&events, after(0)).unwrap();
    flush(&store);
    store.close().unwrap();
    let (mut store, found) = site.open(after(5));
    let Recovery::State { mut state, .. } = found else {
        panic!("{found:?}")
    };
    state.grants.retain(|grant| grant.target != gone.target);
    store.begin(&state, NOWHERE, after(5)).unwrap();
    flush(&store);
    assert_eq!(
        lines(&site, after(5)),
        ["laptop ssh 0-5 revoked x1", "laptop ssh 0-600 open x1"]
    );
}

#[test]
fn rotation_changes_nothing_in_the_journal() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let mut state = State::default();
    for number in 0..5_u8 {
        let live = to(&grant(after(0), 600), &format!("192.0.2.{number}"));
        store.note(&[granted(&live, after(0))], after(0)).unwrap();
        state.grants.push(live);
        rotate(&mut store, &state, after(0));
    }
    flush(&store);
    let rows = history(&site.path, None, NOWHERE, after(0)).unwrap();
    assert!(rows.iter().all(|row| row.how == "open" && row.knocks == 1));
    assert_eq!(rows.len(), 5);
    assert_eq!(store.status(), StoreStatus::default());
}

#[test]
fn reader_of_the_history_delays_nothing() {
    let site = Site::new();
    let (mut store, _) = site.start(after(0));
    let reader = Connection::open(site.path.join(DATABASE)).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM history")
        .unwrap();
    let live = grant(after(0), 600);
    store.note(&[granted(&live, after(0))], after(0)).unwrap();
    flush(&store);
    assert_eq!(
        history(&site.path, None, NOWHERE, after(0)).unwrap().len(),
        1
    );
    // Nor does one that would write: it is the journal's alone to wait.
    let writer = Connection::open(site.path.join(DATABASE)).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in 0..100 {
        assert!(spend_one(&mut store, &open(number, at(1_000)), after(1)));
        let live = to(&live, &format!("192.0.2.{number}"));
        store.note(&[granted(&live, after(1))], after(1)).unwrap();
    }
    assert_eq!(
        history(&site.path, None, NOWHERE, after(0)).unwrap().len(),
        1
    );
    drop(writer);
    flush(&store);
    assert_eq!(
        history(&site.path, None, NOWHERE, after(0)).unwrap().len(),
        100
    );
    store.close().unwrap();
    site.reboot();
    let found = site.found(after(2));
    assert!(
        matches!(found, Recovery::State { floor: None, .. }),
        "{found:?}"
    );
}

#[test]
fn journal_has_no_row_before_its_grant_was_recorded() {
    let site = Site::new();
    assert!(lines(&site, after(0)).is_empty());
    assert!(uses(&site.path).unwrap().is_empty());
    assert_eq!(granted_since_boot(&site.path).unwrap(), None);
    let (store, _) = site.start(after(0));
    flush(&store);
    assert_eq!(granted_since_boot(&site.path).unwrap(), Some([].into()));
    drop(store);
    fs::remove_file(site.path.join(DATABASE)).unwrap();
    history(&site.path, None, NOWHERE, after(0)).unwrap_err();
}
