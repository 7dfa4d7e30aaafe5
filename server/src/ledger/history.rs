//! The history: what was opened for whom, from when to when, and how it ended.

use super::columns::{bad, ms, text, timestamp};
use super::connect::open_to_read;
use crate::gate::{Now, Place};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::{KeyName, ServiceName};
use rusqlite::types::Type;
use rusqlite::{Connection, Result, Row, params};
use std::net::IpAddr;
use std::path::Path;

/// How a claim ended.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// Its holder closed it.
    Closed,
    /// Its key lost the right to it, or the administrator ended it.
    Revoked,
    /// The machine started anew.
    Lost,
}

impl How {
    fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Revoked => "revoked",
            Self::Lost => "lost",
        }
    }
}

/// One line of the history.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who opened it.
    pub key: KeyName,
    /// With which generation.
    pub generation: u32,
    /// What.
    pub service: ServiceName,
    /// For whom.
    pub address: IpAddr,
    /// When, on the machine's wall clock then.
    pub opened: Timestamp,
    /// When it ended, or will.
    pub ended: Timestamp,
    /// `open` while it lasts, then `expired`, `closed` (by its holder), `revoked` (its key
    /// lost the right to it, or "oneknockctl revoke") or `lost` (the machine started anew).
    pub how: &'static str,
    /// How many packets opened or prolonged it.
    pub knocks: u64,
}

/// Makes history of claims, up to how and when they ended.
pub const MOVE: &str =
    "INSERT INTO history (key, service, address, number, opened, ended, how, knocks)
    SELECT key, service, address, number, opened,";

/// Ends one claim now; where there is none, nothing.
pub fn end(change: &Connection, key: &str, place: Place, now: Now, how: How) -> Result<()> {
    let (service, address) = (place.service, place.address.to_string());
    let end = format!(
        "{MOVE} min(until, ?4), ?5, knocks FROM claim
         WHERE key = ?1 AND service = ?2 AND address = ?3"
    );
    change.prepare_cached(&end)?.execute(params![
        key,
        service.as_str(),
        address,
        ms(now.wall),
        how.word()
    ])?;
    change
        .prepare_cached("DELETE FROM claim WHERE key = ? AND service = ? AND address = ?")?
        .execute(params![key, service.as_str(), address])
        .map(drop)
}

/// Ends every claim.
pub fn end_all(change: &Connection, now: Now, how: How) -> Result<()> {
    let end = format!("{MOVE} min(until, ?1), ?2, knocks FROM claim");
    change.execute(&end, params![ms(now.wall), how.word()])?;
    change.execute("DELETE FROM claim", []).map(drop)
}

/// Moves the claim to a place whose time is over, so that what opens it again begins a line
/// of its own.
pub fn end_if_expired(change: &Connection, key: &str, place: Place, now: Now) -> Result<()> {
    let now = i64::try_from(now.mono.as_millis()).unwrap_or(i64::MAX);
    let (service, address) = (place.service, place.address.to_string());
    let which = "WHERE key = ?1 AND service = ?2 AND address = ?3 AND ends <= ?4";
    let end = format!("{MOVE} until, 'expired', knocks FROM claim {which}");
    let moved =
        change
            .prepare_cached(&end)?
            .execute(params![key, service.as_str(), address, now])?;
    if moved > 0 {
        let delete = format!("DELETE FROM claim {which}");
        change
            .prepare_cached(&delete)?
            .execute(params![key, service.as_str(), address, now])?;
    }
    Ok(())
}

/// How a claim is or ended, as [`Entry::how`] has it; nothing else is printed for it.
fn how(row: &Row<'_>, index: usize) -> Result<&'static str> {
    let words = [
        "open",
        "expired",
        How::Closed.word(),
        How::Revoked.word(),
        How::Lost.word(),
    ];
    let found = row.get_ref(index)?.as_str()?;
    let known = words.into_iter().find(|word| *word == found);
    known.ok_or_else(|| bad(index, Type::Text))
}

/// Reads the history of the state in `folder`, also while a daemon writes it: of one key
/// or of all, what had not ended before `since`, the oldest first.
pub fn read(folder: &Path, key: Option<&KeyName>, since: Timestamp) -> Result<Vec<Entry>> {
    let database = open_to_read(folder)?;
    let mut rows = database.prepare(
        "SELECT key, number, service, address, opened, ended, how, knocks FROM history
         WHERE (?1 IS NULL OR key = ?1) AND ended >= ?2
         UNION ALL
         SELECT key, number, service, address, opened, until, 'open', knocks FROM claim
         WHERE ?1 IS NULL OR key = ?1
         ORDER BY 5, 6",
    )?;
    let key = key.map(KeyName::as_str);
    let entries = rows.query_map(params![key, ms(since)], entry)?;
    entries.collect()
}

fn entry(row: &Row<'_>) -> Result<Entry> {
    Ok(Entry {
        key: text(row, 0)?,
        generation: row.get(1)?,
        service: text(row, 2)?,
        address: text(row, 3)?,
        opened: timestamp(row, 4)?,
        ended: timestamp(row, 5)?,
        how: how(row, 6)?,
        knocks: u64::try_from(row.get::<_, i64>(7)?).unwrap_or(0),
    })
}
