//! Reads the journal, also while a daemon writes it; as root too, over a file that the daemon's
//! user could have written.

use super::super::mark::boot_id;
use super::DATABASE;
use super::columns::{ms, optional, text, timestamp};
use super::database::{check_schema, not_ours, open_in_place};
use crate::engine::{Source, Target};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, Row, params};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long root reads what the daemon's user could have written.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Of the database's own, between two looks at the time.
const STEPS: i32 = 10_000;

/// One grant of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The key that it was made for.
    pub key: KeyName,
    /// The number of the generation that opened or renewed it last.
    pub number: u32,
    /// The service.
    pub service: ServiceName,
    /// The admitted source.
    pub source: Source,
    /// When it was opened, by the wall clock then.
    pub opened: Timestamp,
    /// When it ended, or will.
    pub ended: Timestamp,
    /// `open` while it lasts, then `expired`, `closed` (by its key), `revoked` (by an
    /// administrator or a change of the key) or `reboot`.
    pub how: &'static str,
    /// How many packets opened or renewed it.
    pub knocks: u64,
}

/// What the journal knows of a generation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GenerationUse {
    /// When a packet of it was last spent; never, where there is none.
    pub last: Option<Timestamp>,
    /// Where that packet came from.
    pub from: Option<IpAddr>,
    /// When it ends, since a newer generation was used.
    pub retires: Option<Timestamp>,
}

/// Whose connections are meant: all that is given must hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ConnectionFilter<'k> {
    /// Of this key.
    pub key: Option<&'k KeyName>,
    /// Of the generation with this number.
    pub number: Option<u32>,
    /// From this source.
    pub source: Option<Source>,
}

/// Reads the history: of one key or of all, what had not ended before `since`, in the order of
/// opening. Fails where the journal is missing or is none.
pub fn history(dir: &Path, key: Option<&KeyName>, since: Timestamp) -> Result<Vec<HistoryRow>> {
    let database = open_to_read(dir)?;
    let mut rows = database.prepare(
        "SELECT key, number, service, source, opened, ended, how, knocks FROM history
         WHERE (?1 IS NULL OR key = ?1) AND ended >= ?2 ORDER BY opened, ended, id",
    )?;
    let rows = rows.query_map(params![key.map(KeyName::as_str), ms(since)], history_row)?;
    rows.collect()
}

fn history_row(row: &Row<'_>) -> Result<HistoryRow> {
    Ok(HistoryRow {
        key: text(row, 0)?,
        number: row.get(1)?,
        service: text(row, 2)?,
        source: text(row, 3)?,
        opened: timestamp(row, 4)?,
        ended: timestamp(row, 5)?,
        how: how(row, 6)?,
        knocks: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
    })
}

/// How a grant is or ended; nothing else is printed for it.
fn how(row: &Row<'_>, index: usize) -> Result<&'static str> {
    let words = ["open", "expired", "closed", "revoked", "reboot"];
    let found = row.get_ref(index)?.as_str()?;
    let known = words.into_iter().find(|word| *word == found);
    known.ok_or_else(|| not_ours("a grant has no end that the journal writes"))
}

/// Reads what is known of every generation that was ever used. Fails where the journal is
/// missing or is none.
pub fn uses(dir: &Path) -> Result<BTreeMap<GenerationId, GenerationUse>> {
    let database = open_to_read(dir)?;
    let mut rows = database.prepare("SELECT identity, used, used_from, retires FROM generation")?;
    let rows = rows.query_map([], |row| {
        let known = GenerationUse {
            last: optional(row, 1, timestamp)?,
            from: optional(row, 2, text)?,
            retires: optional(row, 3, timestamp)?,
        };
        Ok((GenerationId(row.get(0)?), known))
    })?;
    rows.collect()
}

/// Every target that grants have opened since boot: where the connections may be that they let
/// in, which no connection outlives. Fails where the journal is missing or is none.
pub fn opened_targets(dir: &Path, filter: &ConnectionFilter<'_>) -> Result<BTreeSet<Target>> {
    let database = open_to_read(dir)?;
    let mut rows = database.prepare(
        "SELECT DISTINCT service, source FROM opened
         WHERE (?1 IS NULL OR key = ?1) AND (?2 IS NULL OR number = ?2)
         AND (?3 IS NULL OR source = ?3)",
    )?;
    let key = filter.key.map(KeyName::as_str);
    let source = filter.source.map(|source| source.to_string());
    let rows = rows.query_map(params![key, filter.number, source], |row| {
        let (service, source) = (text(row, 0)?, text(row, 1)?);
        Ok(Target { service, source })
    })?;
    rows.collect()
}

/// Every source that had a grant since boot; nothing where the journal does not reach back so
/// far. A connection of any other source was made while the guard was gone. Fails where the
/// journal is missing or is none.
pub fn granted_since_boot(dir: &Path) -> Result<Option<BTreeSet<Source>>> {
    let database = open_to_read(dir)?;
    let position = "SELECT complete, boot FROM position";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let position: Option<(bool, String)> = database.query_row(position, [], read).optional()?;
    if position != Some((true, boot_id())) {
        return Ok(None);
    }
    let mut rows = database.prepare("SELECT DISTINCT source FROM opened")?;
    let rows = rows.query_map([], |row| text(row, 0))?;
    rows.collect::<Result<_>>().map(Some)
}

/// Opens the journal to read it.
pub(super) fn open_to_read(dir: &Path) -> Result<Connection> {
    let mut database = open_in_place(&dir.join(DATABASE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    limit(&mut database, READ_WITHIN)?;
    // What is checked is what is read.
    database.execute_batch("BEGIN")?;
    check_schema(&database)?;
    Ok(database)
}

/// Ends whatever the database is asked when the time is over.
pub(super) fn limit(database: &mut Connection, time: Duration) -> Result<()> {
    let start = Instant::now();
    database.progress_handler(STEPS, Some(move || start.elapsed() > time))
}
