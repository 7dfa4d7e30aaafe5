//! The ways into the ledger's database file.

use super::FILE;
use rusqlite::{Connection, OpenFlags, Result};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Pages in the write-ahead log from which on a commit moves them itself.
pub const LONG_LOG: u32 = 16_000;

/// Opens the database of a state to read it, also while a daemon writes it.
pub fn open_to_read(folder: &Path) -> Result<Connection> {
    open_in_place(&folder.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Opens a database in its folder, wherever that is. A link in the database's place leads
/// nowhere: root opens what the daemon's user could have put there.
fn open_in_place(path: &Path, flags: OpenFlags) -> Result<Connection> {
    let folder = path
        .parent()
        .and_then(|folder| fs::canonicalize(folder).ok());
    let name = path.file_name().unwrap_or_default();
    let path = folder.map_or_else(|| path.to_owned(), |folder| folder.join(name));
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(path, flags)
}

/// Opens a database that is there; one that is not is an error.
pub fn connect(path: &Path) -> Result<Connection> {
    let database = open_in_place(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Nobody else writes; whoever does all the same must not hold a knock up for long.
    database.busy_timeout(Duration::from_millis(20))?;
    // More than there are.
    database.set_prepared_statement_cache_capacity(64);
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "foreign_keys", true)?;
    database.pragma_update(None, "wal_autocheckpoint", LONG_LOG)?;
    Ok(database)
}
