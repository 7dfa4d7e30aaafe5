//! The ledger's database file: made, opened, found damaged, moved aside, closed.

use super::connect::connect;
use super::{FILE, Unusable, rows, tidy};
use crate::files::{self, Existing, Owner};
use crate::gate::{Memory, Now};
use rusqlite::{Connection, ErrorCode};
use std::fs;
use std::io;
use std::path::Path;

/// What it is called while it is made.
const NEW: &str = ".new-ledger.db";
/// "oknk", so that no other program's database is taken for a ledger.
const APPLICATION: i32 = 0x6f6b_6e6b;
const VERSION: i32 = 2;
/// From version 1: the ends that were brought forward.
const FROM_1: &str =
    "BEGIN; ALTER TABLE generation ADD COLUMN retires INTEGER; PRAGMA user_version = 2; COMMIT";
/// A commit writes the pages that it has changed: small ones, since a knock changes a few
/// dozen bytes in each of three.
const PAGE: u32 = 1024;

/// Whether the error says that the file is damaged, or no ledger at all.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match error {
        E::SqliteFailure(error, _) => {
            matches!(
                error.code,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
            )
        }
        // A row that no ledger of ours has.
        E::FromSqlConversionFailure(..)
        | E::InvalidColumnType(..)
        | E::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

/// Writes something: the first commit of a log syncs its beginning, and no knock is to wait
/// for that.
pub fn begin_log(database: &Connection) -> rusqlite::Result<()> {
    database.pragma_update(None, "user_version", VERSION)
}

/// Moves the write-ahead log into the database, synced. Returns whether all of it was.
pub fn checkpoint(database: &Connection, how: &str) -> rusqlite::Result<bool> {
    database.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
        let (busy, log, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == moved)
    })
}

/// Makes an empty database; one that is there is kept.
pub fn create(folder: &Path, owner: Owner) -> Result<(), Unusable> {
    if folder.join(FILE).symlink_metadata().is_ok() {
        return Ok(());
    }
    make(folder, owner, |_| Ok(()))
}

/// Makes a database, complete and on disk before it has its name: an empty one in the
/// place of one that was to be filled would have forgotten what was accepted.
fn make(
    folder: &Path,
    owner: Owner,
    fill: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
) -> Result<(), Unusable> {
    let failed = |error| Unusable::Database(folder.into(), error);
    let io = |error| Unusable::Io(folder.into(), error);
    let fresh = folder.join(NEW);
    for suffix in ["", "-journal"] {
        remove(&folder.join(format!("{NEW}{suffix}"))).map_err(io)?;
    }
    files::write(&fresh, "", owner, super::FILE_MODE, Existing::Keep).map_err(io)?;
    let mut database = connect(&fresh).map_err(failed)?;
    build(&database)
        .and_then(|()| fill(&mut database))
        .map_err(failed)?;
    database.close().map_err(|(_, error)| failed(error))?;
    let sync = |path: &Path| fs::File::open(path)?.sync_all();
    sync(&fresh).map_err(io)?;
    fs::rename(&fresh, folder.join(FILE)).map_err(io)?;
    sync(folder).map_err(io)
}

fn build(database: &Connection) -> rusqlite::Result<()> {
    database.pragma_update(None, "page_size", PAGE)?;
    database.execute_batch("BEGIN")?;
    database.execute_batch(include_str!("schema.sql"))?;
    database.pragma_update(None, "application_id", APPLICATION)?;
    database.pragma_update(None, "user_version", VERSION)?;
    database.execute_batch("COMMIT")
}

/// What is wrong with the database's file.
enum Trouble {
    /// It is no ledger that this program can read: why.
    Damaged(String),
    /// It is not there.
    Missing,
    /// Something else is wrong: the disk is full, or another program holds it.
    Other(Unusable),
}

/// Opens the database and reads what is in it. Where it is missing or damaged the text
/// says so; a damaged one is moved aside, and nothing takes its place yet. So is one that
/// is `distrusted`, unread.
pub fn open(
    folder: &Path,
    now: Now,
    same_boot: bool,
    distrusted: Option<String>,
) -> Result<Result<(Connection, Memory), String>, Unusable> {
    let is_there = folder.join(FILE).symlink_metadata().is_ok();
    let opened = match distrusted {
        Some(why) if is_there => Err(Trouble::Damaged(format!("not to be trusted: {why}"))),
        _ => try_open(folder, now, same_boot),
    };
    match opened {
        Ok(opened) => Ok(Ok(opened)),
        Err(Trouble::Other(why)) => Err(why),
        Err(Trouble::Missing) => Ok(Err(format!("{FILE} is missing"))),
        Err(Trouble::Damaged(why)) => {
            let aside = move_aside(folder).map_err(|e| Unusable::Io(folder.into(), e))?;
            Ok(Err(format!(
                "{FILE} is damaged ({why}); it was moved to {aside}"
            )))
        }
    }
}

/// Opens a database that was made a moment ago.
pub fn open_new(folder: &Path) -> Result<Connection, Unusable> {
    let database = connect(&folder.join(FILE)).and_then(|database| {
        database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        Ok(database)
    });
    database.map_err(|error| Unusable::Database(folder.into(), error))
}

fn try_open(folder: &Path, now: Now, same_boot: bool) -> Result<(Connection, Memory), Trouble> {
    let path = folder.join(FILE);
    match path.symlink_metadata() {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(Trouble::Damaged("it is not a plain file".into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Trouble::Missing),
        Err(error) => return Err(Trouble::Other(Unusable::Io(folder.into(), error))),
    }
    let read = || {
        let mut database = connect(&path)?;
        let number = |name: &str| database.pragma_query_value(None, name, |row| row.get(0));
        let (application, mut version): (i32, i32) =
            (number("application_id")?, number("user_version")?);
        if (application, version) == (APPLICATION, 1) {
            database.execute_batch(FROM_1)?;
            version = VERSION;
        }
        if (application, version) != (APPLICATION, VERSION) {
            return Ok(Err(format!("it is not a ledger of version {VERSION}")));
        }
        for table in ["generation", "accepted", "closed", "claim"] {
            let check = format!("PRAGMA quick_check({table})");
            let found: String = database.query_row(&check, [], |row| row.get(0))?;
            if found != "ok" {
                return Ok(Err(found));
            }
        }
        let mode: String =
            database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Ok(Err(format!("it has no write-ahead log but {mode}")));
        }
        tidy::begin(&mut database, now, same_boot)?;
        let memory = rows::load(&database)?;
        Ok(Ok((database, memory)))
    };
    match read() {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(why)) => Err(Trouble::Damaged(why)),
        Err(error) if is_damage(&error) => Err(Trouble::Damaged(error.to_string())),
        Err(error) => Err(Trouble::Other(Unusable::Database(folder.into(), error))),
    }
}

/// Puts a new database, filled from memory, in the place of a damaged one. Returns it and
/// the damaged one's new name.
pub fn renew(
    folder: &Path,
    owner: Owner,
    memory: &Memory,
    now: Now,
) -> Result<(Connection, String), Unusable> {
    let aside = move_aside(folder).map_err(|error| Unusable::Io(folder.into(), error))?;
    make(folder, owner, |database| rows::fill(database, memory, now))?;
    Ok((open_new(folder)?, aside))
}

/// Everything to disk. Returns whether all of it is there: a reader that holds on to the
/// database prevents it.
pub fn close(database: Connection) -> rusqlite::Result<bool> {
    let all = checkpoint(&database, "TRUNCATE")?;
    database.close().map_err(|(_, error)| error)?;
    Ok(all)
}

/// Moves the database and what belongs to it out of the way; an earlier one that was
/// moved so gives way. Returns the new name.
fn move_aside(folder: &Path) -> io::Result<String> {
    let aside = format!("{FILE}.damaged");
    for part in ["", "-wal", "-shm"] {
        let from = folder.join(format!("{FILE}{part}"));
        let to = folder.join(format!("{aside}{part}"));
        remove(&to)?;
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(aside)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
