//! Projects the log's records to rows. The rows follow from the records alone, so that a lost
//! journal can be made again from the log.

use super::super::record::{LogRecord, RunId};
use super::columns::{mono_ms, ms};
use crate::engine::{EndReason, Grant, Now, Spend};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, TransactionBehavior, params};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// How far the rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalPosition {
    pub run: RunId,
    /// The last record that was read: segment * 2^32 + index.
    pub record: u64,
    /// The id of the boot of the machine.
    pub boot: String,
    /// When that was, since boot.
    pub now: Duration,
    /// Whether `opened` has every target since that boot.
    pub complete: bool,
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

pub(super) fn position(database: &Connection) -> Result<Option<JournalPosition>> {
    let sql = "SELECT run, record, boot, now, complete FROM position";
    let read = database.query_row(sql, [], |row| {
        Ok(JournalPosition {
            run: row.get(0)?,
            record: row.get::<_, i64>(1)?.cast_unsigned(),
            boot: row.get(2)?,
            now: Duration::from_millis(row.get::<_, i64>(3)?.max(0).cast_unsigned()),
            complete: row.get(4)?,
        })
    });
    read.optional()
}

pub(super) fn set_position(change: &Connection, at: &JournalPosition) -> Result<()> {
    let sql = "INSERT INTO position (one, run, record, boot, now, complete)
         VALUES (1, ?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET run = ?1, record = ?2, boot = ?3, now = ?4, complete = ?5";
    change
        .prepare_cached(sql)?
        .execute(params![
            at.run,
            at.record.cast_signed(),
            at.boot,
            mono_ms(at.now),
            at.complete
        ])
        .map(drop)
}

/// Makes rows of these records, in their order.
pub(super) fn apply(change: &Connection, records: &[LogRecord]) -> Result<()> {
    // Of the uses of a generation only the last one is kept.
    let mut uses: BTreeMap<GenerationId, (&Spend, Timestamp)> = BTreeMap::new();
    for record in records {
        match record {
            LogRecord::Spent { spend, wall } => {
                uses.insert(spend.generation, (spend, *wall));
            }
            LogRecord::Granted { grant, now, .. } => {
                grant_row(change, grant, *now)?;
                opened_row(change, grant, now.wall)?;
            }
            LogRecord::Closed { grant, wall } => end(change, grant, *wall, "closed")?,
            LogRecord::Ended { grant, why, wall } => {
                let how = match why {
                    EndReason::Expired => "expired",
                    EndReason::Revoked | EndReason::KeyChanged => "revoked",
                    EndReason::Reboot => "reboot",
                };
                end(change, grant, *wall, how)?;
            }
            LogRecord::Retiring {
                generation, ends, ..
            } => retires(change, *generation, *ends)?,
            _ => {}
        }
    }
    for (generation, (spend, wall)) in uses {
        used(change, generation, wall, spend.from)?;
    }
    Ok(())
}

/// Adds a row, or renews the open row that has not expired.
fn grant_row(change: &Connection, grant: &Grant, now: Now) -> Result<()> {
    if try_grant_row(change, grant, now)? {
        return Ok(());
    }
    change
        .prepare_cached(
            "UPDATE history SET how = 'expired'
             WHERE key = ? AND service = ? AND source = ? AND how = 'open'",
        )?
        .execute(params![
            grant.key.as_str(),
            grant.target.service.as_str(),
            grant.target.source.to_string()
        ])?;
    try_grant_row(change, grant, now).map(drop)
}

/// As [`grant_row`]; does nothing and returns false where the open row has expired.
fn try_grant_row(change: &Connection, grant: &Grant, now: Now) -> Result<bool> {
    let remaining = mono_ms(grant.until.saturating_sub(now.mono));
    let changed = change
        .prepare_cached(
            "INSERT INTO history (key, number, service, source, opened, ended, ends, how, knocks)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'open', 1)
             ON CONFLICT (key, service, source) WHERE how = 'open' DO UPDATE SET number = ?2,
             ended = CASE WHEN ends < ?7 THEN ?6 ELSE ended END, ends = max(ends, ?7),
             knocks = knocks + 1
             WHERE ends > ?8",
        )?
        .execute(params![
            grant.key.as_str(),
            grant.number,
            grant.target.service.as_str(),
            grant.target.source.to_string(),
            ms(grant.opened),
            ms(now.wall).saturating_add(remaining),
            mono_ms(grant.until),
            mono_ms(now.mono),
        ])?;
    Ok(changed > 0)
}

fn opened_row(change: &Connection, grant: &Grant, wall: Timestamp) -> Result<()> {
    change
        .prepare_cached(
            "INSERT INTO opened (key, number, service, source, last) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET last = max(last, ?5)",
        )?
        .execute(params![
            grant.key.as_str(),
            grant.number,
            grant.target.service.as_str(),
            grant.target.source.to_string(),
            ms(wall)
        ])
        .map(drop)
}

fn end(change: &Connection, grant: &Grant, wall: Timestamp, how: &str) -> Result<()> {
    change
        .prepare_cached(
            "UPDATE history SET how = ?4, ended = max(opened, min(ended, ?5))
             WHERE key = ?1 AND service = ?2 AND source = ?3 AND how = 'open'",
        )?
        .execute(params![
            grant.key.as_str(),
            grant.target.service.as_str(),
            grant.target.source.to_string(),
            how,
            ms(wall)
        ])
        .map(drop)
}

fn used(change: &Connection, id: GenerationId, wall: Timestamp, from: IpAddr) -> Result<()> {
    change
        .prepare_cached(
            "INSERT INTO generation (identity, used, used_from) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET used = ?2, used_from = ?3",
        )?
        .execute(params![id.0, ms(wall), from.to_string()])
        .map(drop)
}

fn retires(change: &Connection, id: GenerationId, at: Timestamp) -> Result<()> {
    change
        .prepare_cached(
            "INSERT INTO generation (identity, retires) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET retires = ?2",
        )?
        .execute(params![id.0, ms(at)])
        .map(drop)
}

/// Ends every open row, after a reboot: as expired where its time was over at `last`, since boot.
/// No connection is left of what was opened.
pub(super) fn end_boot(change: &Connection, last: Duration, now: Now) -> Result<()> {
    change
        .prepare_cached(
            "UPDATE history SET how = CASE WHEN ends <= ?1 THEN 'expired' ELSE 'reboot' END,
             ended = CASE WHEN ends <= ?1 THEN ended ELSE max(opened, min(ended, ?2)) END
             WHERE how = 'open'",
        )?
        .execute([mono_ms(last), ms(now.wall)])?;
    change.execute("DELETE FROM opened", []).map(drop)
}

/// Makes the rows agree with a snapshot: ends every other open row, and adds what the rows lack.
pub(super) fn reconcile(change: &Connection, snapshot: &[LogRecord], now: Now) -> Result<()> {
    let mut live = BTreeSet::new();
    for record in snapshot {
        match record {
            LogRecord::Grant(grant) => {
                let (service, source) = (grant.target.service, grant.target.source);
                live.insert((
                    grant.key.to_string(),
                    service.to_string(),
                    source.to_string(),
                ));
            }
            LogRecord::Retirement(generation, at) => retires(change, *generation, *at)?,
            _ => {}
        }
    }
    let mut had = BTreeSet::new();
    let mut open = change.prepare("SELECT key, service, source FROM history WHERE how = 'open'")?;
    let mut rows = open.query([])?;
    while let Some(row) = rows.next()? {
        had.insert((row.get(0)?, row.get(1)?, row.get(2)?));
    }
    for (key, service, source) in had.difference(&live) {
        change
            .prepare_cached(
                "UPDATE history SET how = CASE WHEN ends <= ?4 THEN 'expired' ELSE 'revoked' END,
                 ended = CASE WHEN ends <= ?4 THEN ended ELSE max(opened, min(ended, ?5)) END
                 WHERE key = ?1 AND service = ?2 AND source = ?3 AND how = 'open'",
            )?
            .execute(params![
                key,
                service,
                source,
                mono_ms(now.mono),
                ms(now.wall)
            ])?;
    }
    for record in snapshot {
        if let LogRecord::Grant(grant) = record {
            let (service, source) = (grant.target.service, grant.target.source);
            let place = (
                grant.key.to_string(),
                service.to_string(),
                source.to_string(),
            );
            if !had.contains(&place) {
                grant_row(change, grant, now)?;
            }
            opened_row(change, grant, grant.opened)?;
        }
    }
    Ok(())
}
