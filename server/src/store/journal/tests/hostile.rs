//! A database that a daemon that was taken over has left for root to read.

use super::super::database::{self, is_damage};
use super::super::read::{limit, open_to_read};
use super::*;
use std::os::unix::fs::symlink;

const FOR_EVER: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
     SELECT zeroblob(16) AS identity, 1 AS used, NULL AS used_from, NULL AS retires FROM c";

#[test]
fn database_with_more_than_rows_is_no_journal() {
    let view = format!("DROP TABLE generation; CREATE VIEW generation AS {FOR_EVER} WHERE x < 0");
    let trigger =
        "CREATE TRIGGER t AFTER INSERT ON history BEGIN DELETE FROM opened; END".to_owned();
    let table = "CREATE TABLE other (x)".to_owned();
    let column = "ALTER TABLE history ADD COLUMN x INTEGER AS (1)".to_owned();
    for change in [view, trigger, table, column] {
        let site = Site::new();
        open_to_read(&site.path).unwrap();
        let database = Connection::open(site.path.join(DATABASE)).unwrap();
        database.execute_batch(&change).unwrap();
        drop(database);
        let error = open_to_read(&site.path).map(drop).unwrap_err();
        assert!(is_damage(&error), "{change}: {error}");
        let error = database::open(&site.directory(), None).unwrap_err();
        assert!(error.replace(&site.directory()).is_some(), "{change}");
    }
}

#[test]
fn question_without_an_end_is_ended() {
    let mut database = Connection::open_in_memory().unwrap();
    limit(&mut database, Duration::ZERO).unwrap();
    let sum = format!("SELECT count(*) FROM ({FOR_EVER})");
    let error = database.query_row(&sum, [], |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
}

#[test]
fn pipe_in_the_databases_place_is_not_waited_for() {
    for name in [DATABASE, "journal.db-wal"] {
        let site = Site::new();
        let path = site.path.join(name);
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        open_to_read(&site.path).map(drop).unwrap_err();
    }
}

#[test]
fn symlink_in_the_databases_place_leads_nowhere() {
    let site = Site::new();
    let (there, away) = (site.path.join(DATABASE), site.path.join("away"));
    fs::rename(&there, &away).unwrap();
    symlink(&away, &there).unwrap();
    assert!(history(&site.path, None, NOWHERE, after(0)).is_err());
    assert!(uses(&site.path).is_err());
    fs::remove_file(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    // The directory's own name may be one.
    let link = site.path.with_file_name("link");
    symlink(&site.path, &link).unwrap();
    assert!(history(&link, None, NOWHERE, after(0)).unwrap().is_empty());
}

#[test]
fn row_that_no_journal_writes_is_not_shown() {
    for (row, is_shown) in [
        ("'laptop', 1, 'ssh', '192.0.2.7', 1, 2, 3, 'open', 1", true),
        (
            "'laptop', 1, 'ssh', '192.0.2.7', 1, 2, 3, char(27) || '[2J', 1",
            false,
        ),
        (
            "char(27) || '[2J', 1, 'ssh', '192.0.2.7', 1, 2, 3, 'open', 1",
            false,
        ),
        ("'laptop', 1, 'ssh', 'nowhere', 1, 2, 3, 'open', 1", false),
        (
            "'laptop', 1, 'ssh', '192.0.2.7', -1, 2, 3, 'open', 1",
            false,
        ),
        (
            "'laptop', -1, 'ssh', '192.0.2.7', 1, 2, 3, 'open', 1",
            false,
        ),
    ] {
        let site = Site::new();
        let lie = Connection::open(site.path.join(DATABASE)).unwrap();
        lie.pragma_update(None, "ignore_check_constraints", true)
            .unwrap();
        let sql = format!(
            "INSERT INTO history (key, number, service, source, opened, ended, ends, how, knocks)
             VALUES ({row})"
        );
        lie.execute(&sql, []).unwrap();
        drop(lie);
        let shown = history(&site.path, None, NOWHERE, after(0));
        assert_eq!(shown.is_ok(), is_shown, "{row}");
    }
}
