//! Makes rows of the log's records. What a row says follows from the records alone, so that a
//! journal that was lost can be made again from the log.

use super::super::record::{LogRecord, RunId};
use super::columns::{mono_ms, ms};
use crate::engine::{EndReason, Grant, Now, Spend};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, TransactionBehavior, params};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The last record of the log that the rows have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalPosition {
    pub run: RunId,
    /// Segment * 2^32 + index.
    pub record: u64,
    /// The boot of the machine.
    pub boot: String,
    /// Whether `opened` has every target since that boot.
    pub complete: bool,
}

/// Does all of it in one commit, or nothing of it.
pub(super) fn within<T>(
    database: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    // It writes in any case: a lock that comes later would not be waited for.
    let change = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
    let done = work(&change)?;
    change.commit()?;
    Ok(done)
}

pub(super) fn position(database: &Connection) -> Result<Option<JournalPosition>> {
    let sql = "SELECT run, record, boot, complete FROM position";
    let read = database.query_row(sql, [], |row| {
        Ok(JournalPosition {
            run: row.get(0)?,
            record: row.get::<_, i64>(1)?.cast_unsigned(),
            boot: row.get(2)?,
            complete: row.get(3)?,
        })
    });
    read.optional()
}

pub(super) fn set_position(change: &Connection, at: &JournalPosition) -> Result<()> {
    let sql = "INSERT INTO position (one, run, record, boot, complete) VALUES (1, ?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET run = ?1, record = ?2, boot = ?3, complete = ?4";
    change
        .prepare_cached(sql)?
        .execute(params![
            at.run,
            at.record.cast_signed(),
            at.boot,
            at.complete
        ])
        .map(drop)
}

/// Makes rows of these records, in their order. Returns how many grants have ended by it.
pub(super) fn apply(change: &Connection, records: &[LogRecord]) -> Result<usize> {
    let mut ended = 0;
    // Only the last use of each generation is kept.
    let mut uses: BTreeMap<GenerationId, (&Spend, Timestamp)> = BTreeMap::new();
    for record in records {
        match record {
            LogRecord::Spent { spend, wall } => {
                uses.insert(spend.generation, (spend, *wall));
            }
            LogRecord::Granted { grant, now, .. } => {
                ended += grant_row(change, grant, *now)?;
                opened_row(change, grant, now.wall)?;
            }
            LogRecord::Closed { grant, wall } => ended += end(change, grant, *wall, "closed")?,
            LogRecord::Ended { grant, why, wall } => {
                let how = match why {
                    EndReason::Expired => "expired",
                    EndReason::Revoked | EndReason::KeyChanged => "revoked",
                    EndReason::Reboot => "reboot",
                };
                ended += end(change, grant, *wall, how)?;
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
    Ok(ended)
}

/// A new row, or a renewal of the open one that has not expired. Returns how many have.
fn grant_row(change: &Connection, grant: &Grant, now: Now) -> Result<usize> {
    if try_grant_row(change, grant, now)? {
        return Ok(0);
    }
    let expired = change
        .prepare_cached(
            "UPDATE history SET how = 'expired'
             WHERE key = ? AND service = ? AND source = ? AND how = 'open'",
        )?
        .execute(params![
            grant.key.as_str(),
            grant.target.service.as_str(),
            grant.target.source.to_string()
        ])?;
    try_grant_row(change, grant, now)?;
    Ok(expired)
}

/// As [`grant_row`]; false, and nothing done, where the open row has expired.
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

fn end(change: &Connection, grant: &Grant, wall: Timestamp, how: &str) -> Result<usize> {
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

/// Ends the open rows whose time is over, a portion of them. Returns how many.
pub(super) fn expire(change: &Connection, now: Now, portion: u16) -> Result<usize> {
    change
        .prepare_cached(
            "UPDATE history SET how = 'expired' WHERE id IN
             (SELECT id FROM history WHERE how = 'open' AND ends <= ? LIMIT ?)",
        )?
        .execute(params![mono_ms(now.mono), portion])
}

/// What a snapshot says is so: every other open row has ended, and what the rows lack is
/// added. After another boot nothing is open, and no connection is left of what was.
pub(super) fn reconcile(
    change: &Connection,
    snapshot: &[LogRecord],
    is_other_boot: bool,
    now: Now,
) -> Result<()> {
    if is_other_boot {
        change
            .prepare_cached(
                "UPDATE history SET how = 'reboot', ended = max(opened, min(ended, ?))
                 WHERE how = 'open'",
            )?
            .execute([ms(now.wall)])?;
        change.execute("DELETE FROM opened", [])?;
    }
    while expire(change, now, u16::MAX)? > 0 {}
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
                "UPDATE history SET how = 'revoked', ended = max(opened, min(ended, ?4))
                 WHERE key = ?1 AND service = ?2 AND source = ?3 AND how = 'open'",
            )?
            .execute(params![key, service, source, ms(now.wall)])?;
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
