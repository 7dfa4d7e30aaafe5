//! The journal's database file: made, opened, found damaged, moved aside.

use super::super::directory::{DATABASE, DATABASE_PARTS, StateDirectory};
use rusqlite::{
    Connection, Error, ErrorCode, OpenFlags, Params, Result, Transaction, TransactionBehavior,
};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// "oknj", so that no other program's database is taken for a journal.
const APPLICATION: i32 = 0x6f6b_6e6a;
const VERSION: i32 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// Why the journal cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file cannot be created, moved or synced, or the log cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The database returned an error.
    #[error("{0}")]
    Database(#[from] Error),
}

impl JournalError {
    /// Moves a database that is damaged, or no journal, aside, and says so; none where the error
    /// is another one, or the directory cannot be changed. What was moved aside earlier is removed.
    pub fn replace(&self, directory: &StateDirectory) -> Option<String> {
        if !matches!(self, Self::Database(error) if is_damage(error)) {
            return None;
        }
        for part in DATABASE_PARTS {
            directory.move_aside(DATABASE, part).ok()?;
        }
        Some(format!(
            "{DATABASE} is damaged ({self}); it was moved to {DATABASE}.damaged"
        ))
    }
}

pub(super) fn is_damage(error: &Error) -> bool {
    match error {
        Error::SqliteFailure(error, _) => matches!(
            error.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
        ),
        // A row that no version of the journal writes.
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

pub(super) fn not_ours(why: &str) -> Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
    Error::SqliteFailure(code, Some(why.into()))
}

/// Creates an empty database, which is complete before it gets its name. A database that is
/// there is kept.
pub(crate) fn create(directory: &StateDirectory) -> Result<(), JournalError> {
    let path = directory.file(DATABASE);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let new = directory.unnamed()?;
    let database = open_in_place(new.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.execute_batch(SCHEMA)?;
    database.pragma_update(None, "application_id", APPLICATION)?;
    database.pragma_update(None, "user_version", VERSION)?;
    // Now, since later a reader could keep the file from being changed to it.
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    database.close().map_err(|(_, error)| error)?;
    directory.name(new, &directory.file(DATABASE))?;
    Ok(())
}

/// Opens the database for writing; a missing one is created. One that is there and untrusted for
/// this reason is an error like one that is damaged.
pub(super) fn open(
    directory: &StateDirectory,
    untrusted: Option<&str>,
) -> Result<Connection, JournalError> {
    let is_there = directory.file(DATABASE).symlink_metadata().is_ok();
    if let Some(why) = untrusted.filter(|_| is_there) {
        return Err(not_ours(why).into());
    }
    create(directory)?;
    Ok(open_to_write(directory)?)
}

fn open_to_write(directory: &StateDirectory) -> Result<Connection> {
    let path = directory.file(DATABASE);
    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(not_ours("it is not a plain file"));
    }
    let database = open_in_place(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check_schema(&database)?;
    let number = |name: &str| database.pragma_query_value(None, name, |row| row.get(0));
    let found: (i32, i32) = (number("application_id")?, number("user_version")?);
    if found != (APPLICATION, VERSION) {
        return Err(not_ours("it is no journal of version 1"));
    }
    let check: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(not_ours(&check));
    }
    // No other process should write. One that does is waited for, then tried again.
    database.busy_timeout(Duration::from_secs(1))?;
    database.set_prepared_statement_cache_capacity(64);
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    database.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(database)
}

/// Refuses every schema but the one above, to the letter. The daemon's user could have written
/// another one, and root would run it: a view, a trigger or an index of an expression is a
/// program, which need not end.
pub(super) fn check_schema(database: &Connection) -> Result<()> {
    let ours = Connection::open_in_memory()?;
    ours.execute_batch(SCHEMA)?;
    if schema(database)? == schema(&ours)? {
        return Ok(());
    }
    Err(not_ours("its tables are not those of a journal"))
}

fn schema(database: &Connection) -> Result<Vec<[Option<String>; 4]>> {
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    let mut rows = database.prepare(sql)?;
    let rows = rows.query_map([], |row| {
        Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
    })?;
    rows.collect()
}

/// Opens a database without following a symlink in its place, which the daemon's user could have
/// put there for root. The directory's own name may be a symlink.
pub(super) fn open_in_place(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let parent = path.parent().and_then(|dir| fs::canonicalize(dir).ok());
    let name = path.file_name().unwrap_or_default();
    // To open a named pipe waits for its writer.
    for part in DATABASE_PARTS {
        let mut name = name.to_owned();
        name.push(part);
        let meta = fs::symlink_metadata(path.with_file_name(name));
        if meta.is_ok_and(|meta| !meta.is_file() && !meta.is_symlink()) {
            return Err(not_ours("it is not a plain file"));
        }
    }
    let path = parent.map_or_else(|| path.to_owned(), |parent| parent.join(name));
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(path, flags)
}

/// Runs `work` in one transaction, which is undone where it fails.
pub(super) fn within<T>(
    database: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    // SQLite waits for the write lock only at the beginning of a transaction.
    let change = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
    let done = work(&change)?;
    change.commit()?;
    Ok(done)
}

/// Runs one statement, which is kept for the next time.
pub(super) fn run(change: &Connection, sql: &str, parameters: impl Params) -> Result<()> {
    change.prepare_cached(sql)?.execute(parameters).map(drop)
}
