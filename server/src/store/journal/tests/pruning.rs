//! What becomes of old rows.

use super::super::pruning::{OPENED_OF_KEY, PORTION, ROWS_OF_KEY};
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// So many rows of the phone that ended a second after another, the last of them then.
fn add_rows(site: &Site, rows: u32, last: Timestamp) {
    let database = Connection::open(site.path.join(DATABASE)).unwrap();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO history (key, number, service, source, opened, ended, ends, how, knocks)
        SELECT 'phone', 1, 'ssh', '192.0.2.9', ?2 - (?1 - i) * 1000, ?2 - (?1 - i) * 1000, 1,
        'expired', 1 FROM n";
    let last = last.0.cast_signed();
    database
        .execute(many, rusqlite::params![rows, last])
        .unwrap();
}

fn rows_of(site: &Site, key: &str) -> Vec<u64> {
    let key: KeyName = key.parse().unwrap();
    let rows = history(&site.path, Some(&key), NOWHERE, after(0)).unwrap();
    rows.iter().map(|row| row.ended.0).collect()
}

/// A start prunes, a while after it.
fn prune(site: &Site, now: Now) {
    let (mut store, found) = site.open(now);
    let Recovery::State { state, .. } = found else {
        panic!("{found:?}")
    };
    store.set_history_retention(DAY);
    store.begin(&state, NOWHERE, now).unwrap();
    let later = Now {
        mono: now.mono + Duration::from_secs(3600),
        ..now
    };
    let over = ended(&grant(now, 0), EndReason::Expired);
    store.note(&[over], later).unwrap();
    flush(&store);
    store.close().unwrap();
}

fn with_a_grant(site: &Site, now: Now) {
    let (mut store, _) = site.start(now);
    let short = grant(now, 1);
    store.note(&[granted(&short, now)], now).unwrap();
    store
        .note(&[ended(&short, EndReason::Revoked)], now)
        .unwrap();
    flush(&store);
    store.close().unwrap();
}

#[test]
fn old_rows_go_by_the_newest_one_in_portions() {
    let site = Site::new();
    with_a_grant(&site, after(0));
    add_rows(&site, 170, at(0));
    const { assert!(170 > 3 * PORTION) };
    prune(&site, after(0));
    assert_eq!(rows_of(&site, "phone").len(), 170);
    // Two days later, and a grant then.
    with_a_grant(&site, after(2 * 86_400));
    prune(&site, after(2 * 86_400));
    assert_eq!(rows_of(&site, "phone").len(), 0);
    assert_eq!(rows_of(&site, "laptop").len(), 1);
}

#[test]
fn clock_that_is_a_year_ahead_removes_nothing() {
    let site = Site::new();
    with_a_grant(&site, after(0));
    add_rows(&site, 10, at(0));
    let year = 365 * 86_400;
    let ahead = Now {
        wall: after(year).wall,
        mono: after(1).mono,
    };
    prune(&site, ahead);
    assert_eq!(rows_of(&site, "phone").len(), 10);
    // Nor does a grant that was made by it, once the clock is right.
    let database = Connection::open(site.path.join(DATABASE)).unwrap();
    add_rows(&site, 1, ahead.wall);
    drop(database);
    prune(&site, after(2));
    assert_eq!(rows_of(&site, "phone").len(), 11);
}

#[test]
fn no_key_fills_the_history_or_takes_a_row_from_another() {
    let site = Site::new();
    with_a_grant(&site, after(0));
    add_rows(&site, ROWS_OF_KEY + 120, at(0));
    prune(&site, after(0));
    let phone = rows_of(&site, "phone");
    assert_eq!(phone.len(), ROWS_OF_KEY as usize);
    assert_eq!(phone.last(), Some(&at(0).0));
    assert_eq!(rows_of(&site, "laptop").len(), 1);
}

#[test]
fn targets_of_a_live_session_outlast_the_history() {
    let site = Site::new();
    with_a_grant(&site, after(0));
    add_rows(&site, ROWS_OF_KEY + 120, at(2 * 86_400_000));
    prune(&site, after(2 * 86_400));
    assert_eq!(rows_of(&site, "laptop").len(), 0);
    let laptop: KeyName = "laptop".parse().unwrap();
    let filter = ConnectionFilter {
        key: Some(&laptop),
        ..ConnectionFilter::default()
    };
    assert_eq!(opened_targets(&site.path, &filter).unwrap().len(), 1);
}

#[test]
fn targets_of_one_key_have_a_bound_and_the_latest_stay() {
    let site = Site::new();
    with_a_grant(&site, after(0));
    let database = Connection::open(site.path.join(DATABASE)).unwrap();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        INSERT INTO opened (key, number, service, source, last)
        SELECT 'phone', 1, 'ssh', '10.' || (i / 65536) || '.' || (i / 256 % 256)
        || '.' || (i % 256), i FROM n";
    database.execute(many, [OPENED_OF_KEY + 120]).unwrap();
    drop(database);
    assert!(granted_since_boot(&site.path).unwrap().is_some());
    prune(&site, after(0));
    // What is known is not all any more.
    assert_eq!(granted_since_boot(&site.path).unwrap(), None);
    let targets = opened_targets(&site.path, &ConnectionFilter::default()).unwrap();
    assert_eq!(targets.len(), OPENED_OF_KEY as usize + 1);
    let gone = [1, 120].map(|i| Source::of([10, 0, 0, i].into()));
    assert!(targets.iter().all(|target| !gone.contains(&target.source)));
}
