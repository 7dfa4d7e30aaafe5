//! Removes old rows of the journal, in portions.

use super::rows::{mono_ms, ms};
use oneknock_shared::knock::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, params};
use std::time::Duration;

/// The number of rows that one commit removes at most.
pub(super) const PORTION: u16 = if cfg!(test) { 50 } else { 8_192 };
/// The number of rows of the history that are kept for each key, the latest: a key that is used
/// without end cannot fill the disk, and takes no row from another key.
pub(super) const ROWS_OF_KEY: u32 = 20_000;
/// The number of targets opened since boot that are kept for each key, the latest.
pub(super) const OPENED_OF_KEY: u32 = 100_000;

/// Removes a portion of the rows that ended longer than `keep` before the newest row was opened,
/// and of those that one key has too many of. The newest row was opened by a packet whose clock
/// agreed with this machine's, so a clock that is ahead for a moment removes nothing. Nor does a
/// row that was opened then, once the clock is right. Returns how many rows it has removed of the
/// history, and of the targets opened since boot, which are not complete then.
pub(super) fn prune(
    change: &Connection,
    keep: Duration,
    wall: Timestamp,
) -> Result<(usize, usize)> {
    let newest: Option<i64> = change
        .prepare_cached("SELECT opened FROM history ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(newest) = newest else {
        return Ok((0, 0));
    };
    let oldest = newest.min(ms(wall)).saturating_sub(mono_ms(keep));
    let mut opened = 0;
    let mut history = change
        .prepare_cached(
            "DELETE FROM history WHERE id IN (SELECT id FROM history
             WHERE ended < ? LIMIT ?)",
        )?
        .execute(params![oldest, PORTION])?;
    for key in keys_with_more_than(change, "history", ROWS_OF_KEY)? {
        history += change
            .prepare_cached(
                "DELETE FROM history WHERE id IN (SELECT id FROM history
                 WHERE key = ?1 AND id <= (SELECT id FROM history
                 WHERE key = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2) LIMIT ?3)",
            )?
            .execute(params![key, ROWS_OF_KEY, PORTION])?;
    }
    for key in keys_with_more_than(change, "opened", OPENED_OF_KEY)? {
        opened += change
            .prepare_cached(
                "DELETE FROM opened WHERE (key, number, service, source) IN
                 (SELECT key, number, service, source FROM opened WHERE key = ?1
                 ORDER BY last LIMIT min(?3, (SELECT count(*) - ?2 FROM opened WHERE key = ?1)))",
            )?
            .execute(params![key, OPENED_OF_KEY, PORTION])?;
    }
    Ok((history, opened))
}

fn keys_with_more_than(change: &Connection, table: &str, rows: u32) -> Result<Vec<String>> {
    let sql = format!("SELECT key FROM {table} GROUP BY key HAVING count(*) > ?");
    let mut keys = change.prepare_cached(&sql)?;
    let keys = keys.query_map([rows], |row| row.get(0))?;
    keys.collect()
}
