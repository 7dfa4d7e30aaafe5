//! The ways into the ledger's database file.

use super::FILE;
use rusqlite::{Connection, Error, OpenFlags, Result};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pages in the write-ahead log from which on a commit moves them itself.
pub const LONG_LOG: u32 = 16_000;

/// How long root reads what the daemon's user could have written.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Of the database's own, between two looks at the time.
const STEPS: i32 = 10_000;

/// Opens the database of a state to read it, also while a daemon writes it.
pub fn open_to_read(folder: &Path) -> Result<Connection> {
    let mut database = open_in_place(&folder.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    limit(&mut database, READ_WITHIN)?;
    // What is checked is what is read.
    database.execute_batch("BEGIN")?;
    check_schema(&database)?;
    Ok(database)
}

/// Ends whatever it is asked when the time is over.
fn limit(database: &mut Connection, time: Duration) -> Result<()> {
    let start = Instant::now();
    database.progress_handler(STEPS, Some(move || start.elapsed() > time))
}

/// Refuses what could be more than rows. The daemon's user could have put it there, and root
/// would run it: a view or a trigger is a program, which need not end.
fn check_schema(database: &Connection) -> Result<()> {
    let others = "SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index')
         OR tbl_name NOT IN ('generation', 'accepted', 'closed', 'claim', 'history')
         OR sql LIKE '%VIRTUAL%'";
    let computed = "SELECT count(*) FROM sqlite_schema AS s, pragma_table_xinfo(s.name) AS x
         WHERE s.type = 'table' AND x.hidden <> 0";
    let count = |sql| database.query_row(sql, [], |row| row.get::<_, i64>(0));
    if count(others)? == 0 && count(computed)? == 0 {
        return Ok(());
    }
    Err(not_ours(
        "it has views, triggers or tables that no ledger has",
    ))
}

fn not_ours(why: &str) -> Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
    Error::SqliteFailure(code, Some(why.into()))
}

/// Opens a database in its folder, wherever that is. A link in the database's place leads
/// nowhere: root opens what the daemon's user could have put there.
fn open_in_place(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let folder = path
        .parent()
        .and_then(|folder| fs::canonicalize(folder).ok());
    let name = path.file_name().unwrap_or_default();
    // To open a pipe waits for whoever writes it.
    for part in ["", "-wal", "-shm", "-journal"] {
        let mut name = name.to_owned();
        name.push(part);
        let meta = fs::symlink_metadata(path.with_file_name(name));
        if meta.is_ok_and(|meta| !meta.is_file() && !meta.is_symlink()) {
            return Err(not_ours("it is not a plain file"));
        }
    }
    let path = folder.map_or_else(|| path.to_owned(), |folder| folder.join(name));
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(path, flags)
}

/// Opens a database that is there; one that is not is an error.
pub fn connect(path: &Path) -> Result<Connection> {
    let database = open_in_place(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check_schema(&database)?;
    // Nobody else writes, but for the rest of a long log that is moved; whoever does all the
    // same must not hold a knock up for long.
    database.busy_timeout(Duration::from_secs(1))?;
    // More than there are.
    database.set_prepared_statement_cache_capacity(64);
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    database.pragma_update(None, "wal_autocheckpoint", LONG_LOG)?;
    Ok(database)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Owner;
    use crate::ledger::store;

    const FOR_EVER: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
         SELECT x AS id, zeroblob(16) AS identity, 'laptop' AS key, 1 AS floor, 1 AS used,
         NULL AS used_from, NULL AS retires FROM c";

    fn me() -> Owner {
        Owner {
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        }
    }

    #[test]
    fn a_database_with_more_than_rows_is_no_ledger() {
        let view = format!(
            "PRAGMA foreign_keys = 0; DROP TABLE generation; CREATE VIEW generation AS {FOR_EVER} WHERE x < 0"
        );
        let trigger =
            "CREATE TRIGGER t AFTER INSERT ON claim BEGIN DELETE FROM accepted; END".to_owned();
        let table = "CREATE TABLE other (x)".to_owned();
        let column = "ALTER TABLE history ADD COLUMN x INTEGER AS (1)".to_owned();
        for change in [view, trigger, table, column] {
            let folder = tempfile::tempdir().unwrap();
            store::create(folder.path(), me()).unwrap();
            let path = folder.path().join(FILE);
            open_to_read(folder.path()).unwrap();
            connect(&path).unwrap().execute_batch(&change).unwrap();
            for opened in [open_to_read(folder.path()), connect(&path)] {
                let error = opened.map(drop).unwrap_err();
                assert!(store::is_damage(&error), "{change}: {error}");
            }
        }
    }

    #[test]
    fn a_question_that_has_no_end_is_ended() {
        let mut database = Connection::open_in_memory().unwrap();
        limit(&mut database, Duration::ZERO).unwrap();
        let sum = format!("SELECT count(*) FROM ({FOR_EVER})");
        let error = database.query_row(&sum, [], |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
    }

    #[test]
    fn a_pipe_in_the_databases_place_is_not_waited_for() {
        for name in [FILE.to_owned(), format!("{FILE}-wal")] {
            let folder = tempfile::tempdir().unwrap();
            store::create(folder.path(), me()).unwrap();
            let path = folder.path().join(name);
            let _ = fs::remove_file(&path);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
            open_to_read(folder.path()).map(drop).unwrap_err();
        }
    }
}
