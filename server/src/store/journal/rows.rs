//! Projects the log's records to rows. The rows follow from the records alone, so that a lost
//! journal can be made again from the log.

use super::super::boot::BootId;
use super::super::record::{LogRecord, RunId};
use super::database::run;
use crate::engine::{EndReason, Grant, Now};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, OptionalExtension, Result, params};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How far the rows go.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct JournalPosition {
    pub run: RunId,
    /// The segment, and in it the record that was read last.
    pub segment: u32,
    pub record: u32,
    pub boot: BootId,
    /// When that was, since boot.
    pub now: Duration,
    /// Whether `opened` has every target since that boot.
    pub is_complete: bool,
}

/// Times that no clock shows are cut to the greatest that a row can hold.
pub(super) fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// Milliseconds since boot.
pub(super) fn mono_ms(at: Duration) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn position(database: &Connection) -> Result<Option<JournalPosition>> {
    let sql = "SELECT run, segment, record, boot, now, complete FROM position";
    let read = database.query_row(sql, [], |row| {
        Ok(JournalPosition {
            run: row.get(0)?,
            segment: row.get(1)?,
            record: row.get(2)?,
            boot: BootId(row.get(3)?),
            now: Duration::from_millis(row.get::<_, i64>(4)?.max(0).cast_unsigned()),
            is_complete: row.get(5)?,
        })
    });
    read.optional()
}

pub(super) fn set_position(change: &Connection, at: &JournalPosition) -> Result<()> {
    let now = mono_ms(at.now);
    run(
        change,
        "INSERT OR REPLACE INTO position (one, run, segment, record, boot, now, complete)
         VALUES (1, ?, ?, ?, ?, ?, ?)",
        params![
            at.run,
            at.segment,
            at.record,
            at.boot.0,
            now,
            at.is_complete
        ],
    )
}

/// Makes rows of these records, in their order.
pub(super) fn apply(change: &Connection, records: &[LogRecord]) -> Result<()> {
    // Of the uses of a generation only the last one is kept.
    let mut uses = BTreeMap::new();
    for record in records {
        match record {
            LogRecord::Spent(spend, wall) => {
                uses.insert(spend.generation, (ms(*wall), spend.from.to_string()));
            }
            LogRecord::Granted(grant, now) => {
                grant_row(change, grant, *now)?;
                opened_row(change, grant, now.wall)?;
            }
            LogRecord::Ended(grant, why, wall) => {
                let how = match why {
                    None => "closed",
                    Some(EndReason::Expired) => "expired",
                    Some(EndReason::Revoked | EndReason::KeyChanged) => "revoked",
                    Some(EndReason::Reboot) => "reboot",
                };
                end(change, &place(grant), how, Duration::ZERO, *wall)?;
            }
            LogRecord::Retirement(generation, ends) => retires(change, *generation, *ends)?,
            _ => {}
        }
    }
    for (generation, (wall, from)) in uses {
        run(
            change,
            "INSERT INTO generation (identity, used, used_from) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET used = ?2, used_from = ?3",
            params![generation.0, wall, from],
        )?;
    }
    Ok(())
}

/// The key, the service and the source of a grant: a key has one open row for each.
type Place = [String; 3];

fn place(grant: &Grant) -> Place {
    let (service, source) = (grant.target.service, grant.target.source);
    [
        grant.key.to_string(),
        service.to_string(),
        source.to_string(),
    ]
}

/// Adds a row, or renews the open row that has not expired.
fn grant_row(change: &Connection, grant: &Grant, now: Now) -> Result<()> {
    let [key, service, source] = place(grant);
    run(
        change,
        "UPDATE history SET how = 'expired'
         WHERE key = ? AND service = ? AND source = ? AND how = 'open' AND ends <= ?",
        params![key, service, source, mono_ms(now.mono)],
    )?;
    let remaining = mono_ms(grant.until.saturating_sub(now.mono));
    let (opened, ended) = (ms(grant.opened), ms(now.wall).saturating_add(remaining));
    let (number, ends) = (grant.number, mono_ms(grant.until));
    run(
        change,
        "INSERT INTO history (key, number, service, source, opened, ended, ends, how, knocks)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'open', 1)
         ON CONFLICT (key, service, source) WHERE how = 'open' DO UPDATE SET number = ?2,
         ended = CASE WHEN ends < ?7 THEN ?6 ELSE ended END, ends = max(ends, ?7),
         knocks = knocks + 1",
        params![key, number, service, source, opened, ended, ends],
    )
}

fn opened_row(change: &Connection, grant: &Grant, wall: Timestamp) -> Result<()> {
    let [key, service, source] = place(grant);
    run(
        change,
        "INSERT INTO opened (key, number, service, source, last) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET last = max(last, ?5)",
        params![key, grant.number, service, source, ms(wall)],
    )
}

/// Ends an open row: as expired where its time was over at `mono`.
fn end(
    change: &Connection,
    [key, service, source]: &Place,
    how: &str,
    mono: Duration,
    wall: Timestamp,
) -> Result<()> {
    run(
        change,
        "UPDATE history SET how = CASE WHEN ends <= ?5 THEN 'expired' ELSE ?4 END,
         ended = CASE WHEN ends <= ?5 THEN ended ELSE max(opened, min(ended, ?6)) END
         WHERE key = ?1 AND service = ?2 AND source = ?3 AND how = 'open'",
        params![key, service, source, how, mono_ms(mono), ms(wall)],
    )
}

fn retires(change: &Connection, id: GenerationId, at: Timestamp) -> Result<()> {
    run(
        change,
        "INSERT INTO generation (identity, retires) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET retires = ?2",
        params![id.0, ms(at)],
    )
}

fn open_places(change: &Connection) -> Result<BTreeSet<Place>> {
    let mut open = change.prepare("SELECT key, service, source FROM history WHERE how = 'open'")?;
    let rows = open.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
    rows.collect()
}

/// Ends every open row, after a reboot: as expired where its time was over at `last`, since boot.
/// No connection is left of what was opened.
pub(super) fn end_boot(change: &Connection, last: Duration, now: Now) -> Result<()> {
    for place in open_places(change)? {
        end(change, &place, "reboot", last, now.wall)?;
    }
    run(change, "DELETE FROM opened", [])
}

/// Makes the rows agree with a state of this time: ends every other open row, and adds what the
/// rows lack.
pub(super) fn reconcile(change: &Connection, state: &[LogRecord], now: Now) -> Result<()> {
    let had = open_places(change)?;
    let mut live = BTreeSet::new();
    for record in state {
        match record {
            LogRecord::Granted(grant, _) => {
                if !had.contains(&place(grant)) {
                    grant_row(change, grant, now)?;
                }
                opened_row(change, grant, grant.opened)?;
                live.insert(place(grant));
            }
            LogRecord::Retirement(generation, at) => retires(change, *generation, *at)?,
            _ => {}
        }
    }
    for place in had.difference(&live) {
        end(change, place, "revoked", now.mono, now.wall)?;
    }
    Ok(())
}
