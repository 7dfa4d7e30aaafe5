//! Reads the journal, also while a daemon writes it. Root reads it too, although the daemon's user
//! could have written anything there.

use super::super::directory::DATABASE;
use super::database::{check_schema, not_ours, open_in_place};
use super::rows::{mono_ms, ms, position};
use crate::engine::{Now, Source, Target};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, OpenFlags, Params, Result, Row, params};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// A query that takes longer is ended: a hostile file could make it endless.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Steps of the database's virtual machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// One grant of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The key.
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

/// The last use of a generation of a key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct GenerationUse {
    /// When a packet of it was last spent; none if never.
    pub last: Option<Timestamp>,
    /// The address that this packet came from.
    pub from: Option<IpAddr>,
    /// When it ends, since a newer generation was used.
    pub retires: Option<Timestamp>,
}

/// Selects targets: all members that are set must match.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ConnectionFilter<'k> {
    /// The key.
    pub key: Option<&'k KeyName>,
    /// The number of the key's generation.
    pub number: Option<u32>,
    /// The admitted source.
    pub source: Option<Source>,
}

/// Reads the history of one key, or of all, in the order of opening, without grants that had
/// ended before `since`. Fails where the journal is missing, or is no journal.
pub fn history(
    dir: &Path,
    key: Option<&KeyName>,
    since: Timestamp,
    now: Now,
) -> Result<Vec<HistoryRow>> {
    let database = open_to_read(dir)?;
    let is_open = still_open(&database, now)?;
    let sql = "SELECT key, number, service, source, opened, ended, how, knocks, ends FROM history
         WHERE (?1 IS NULL OR key = ?1) AND ended >= ?2 ORDER BY opened, ended, id";
    let of = params![key.map(KeyName::as_str), ms(since)];
    read_all(&database, sql, of, |row| {
        let how = match how(row, 6)? {
            "open" => is_open(row.get(8)?),
            other => other,
        };
        Ok(HistoryRow {
            key: text(row, 0)?,
            number: row.get(1)?,
            service: text(row, 2)?,
            source: text(row, 3)?,
            opened: timestamp(row.get(4)?)?,
            ended: timestamp(row.get(5)?)?,
            how,
            knocks: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
        })
    })
}

/// Reads every row of a query.
fn read_all<T, C: FromIterator<T>>(
    database: &Connection,
    sql: &str,
    of: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<C> {
    database.prepare(sql)?.query_map(of, read)?.collect()
}

/// What became of a grant that is open in its row, by when it ends since boot: nothing is written
/// when a grant expires, or the machine is booted.
fn still_open(database: &Connection, now: Now) -> Result<impl Fn(i64) -> &'static str> {
    let at = position(database)?.unwrap_or_default();
    let (same_boot, last) = (at.boot.is_current(), mono_ms(at.now));
    Ok(move |ends| match same_boot {
        true if ends > mono_ms(now.mono) => "open",
        false if ends > last => "reboot",
        _ => "expired",
    })
}

/// Reads how a grant ended: one of these words and nothing else, since it is printed.
fn how(row: &Row<'_>, index: usize) -> Result<&'static str> {
    let words = ["open", "expired", "closed", "revoked", "reboot"];
    let found = row.get_ref(index)?.as_str()?;
    let known = words.into_iter().find(|word| *word == found);
    known.ok_or_else(|| not_ours("a grant has no end that the journal writes"))
}

/// Reads the last use of every generation that the journal knows. Fails where the journal is
/// missing, or is no journal.
pub fn uses(dir: &Path) -> Result<BTreeMap<GenerationId, GenerationUse>> {
    let sql = "SELECT identity, used, used_from, retires FROM generation";
    read_all(&open_to_read(dir)?, sql, [], |row| {
        let known = GenerationUse {
            last: row.get::<_, Option<_>>(1)?.map(timestamp).transpose()?,
            from: row.get_ref(2)?.as_str_or_null()?.map(parsed).transpose()?,
            retires: row.get::<_, Option<_>>(3)?.map(timestamp).transpose()?,
        };
        Ok((GenerationId(row.get(0)?), known))
    })
}

/// Reads every target that grants have opened since boot, live or not: the connections that a
/// key let in are to one of its targets. (No connection outlives a boot.) Of one key the latest
/// 100,000 targets are known. Fails where the journal is missing, or is no journal.
pub fn opened_targets(dir: &Path, filter: &ConnectionFilter<'_>) -> Result<BTreeSet<Target>> {
    let sql = "SELECT DISTINCT service, source FROM opened
         WHERE (?1 IS NULL OR key = ?1) AND (?2 IS NULL OR number = ?2)
         AND (?3 IS NULL OR source = ?3)";
    let key = filter.key.map(KeyName::as_str);
    let source = filter.source.map(|source| source.to_string());
    let of = params![key, filter.number, source];
    read_all(&open_to_read(dir)?, sql, of, |row| {
        let (service, source) = (text(row, 0)?, text(row, 1)?);
        Ok(Target { service, source })
    })
}

/// Reads every source that had a grant since boot; none where the journal does not know all of
/// them. A connection of any other source was not let in by a grant. Fails where the journal is
/// missing, or is no journal.
pub fn granted_since_boot(dir: &Path) -> Result<Option<BTreeSet<Source>>> {
    if !knows_all_since_boot(dir)? {
        return Ok(None);
    }
    let database = open_to_read(dir)?;
    let sql = "SELECT DISTINCT source FROM opened";
    read_all(&database, sql, [], |row| text(row, 0)).map(Some)
}

/// Whether the journal knows all that grants have opened since boot. Fails where it is missing,
/// or is no journal.
pub fn knows_all_since_boot(dir: &Path) -> Result<bool> {
    let at = position(&open_to_read(dir)?)?;
    Ok(at.is_some_and(|at| at.is_complete && at.boot.is_current()))
}

/// Opens the journal for reading, and checks its schema.
pub(super) fn open_to_read(dir: &Path) -> Result<Connection> {
    let mut database = open_in_place(&dir.join(DATABASE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    limit(&mut database, READ_WITHIN)?;
    // In one transaction, so that what was checked is what is read.
    database.execute_batch("BEGIN")?;
    check_schema(&database)?;
    Ok(database)
}

/// Ends every query when this time has passed.
pub(super) fn limit(database: &mut Connection, time: Duration) -> Result<()> {
    let start = Instant::now();
    database.progress_handler(STEPS, Some(move || start.elapsed() > time))
}

fn timestamp(ms: i64) -> Result<Timestamp> {
    let at = u64::try_from(ms);
    at.map(Timestamp)
        .map_err(|_| not_ours("a time is before 1970"))
}

fn text<T: FromStr>(row: &Row<'_>, index: usize) -> Result<T> {
    parsed(row.get_ref(index)?.as_str()?)
}

fn parsed<T: FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| not_ours("a name or an address is none"))
}
