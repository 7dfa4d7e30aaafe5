//! Keeps the ledger small, in portions: a knock that comes meanwhile waits for one of them
//! at the most.

use super::columns::{mono, ms};
use super::history::{self, How, MOVE};
use super::rows::raise_floor;
use crate::gate::{Forgotten, Now};
use rusqlite::{Connection, Result, params};
use std::time::Duration;

/// So many rows go at once, some ten milliseconds' work: what says that it was so many may
/// have left some.
pub const PORTION: u16 = if cfg!(test) { 50 } else { 8_192 };
/// So many rows are kept for each key, the latest: a key that is used without end cannot
/// fill the disk, and takes no row from another.
pub const ROWS_OF_KEY: u16 = 20_000;

/// What a start finds: claims that have ended, or that the machine has forgotten since by
/// starting anew, go to the history.
pub fn begin(database: &mut Connection, now: Now, same_boot: bool) -> Result<()> {
    let change = database.transaction()?;
    if !same_boot {
        history::end_all(&change, now, How::Lost)?;
    }
    while end_expired(&change, now)? >= usize::from(PORTION) {}
    change.commit()
}

/// Forgets packets and closes that cannot pass the time window any more: the floors take
/// their place, no later than in the same commit. Returns how many packets.
pub fn forget(change: &Connection, forgotten: &Forgotten) -> Result<usize> {
    for &(generation, floor) in &forgotten.floors {
        raise_floor(change, generation, floor)?;
    }
    let oldest = ms(forgotten.oldest);
    change
        .prepare_cached("DELETE FROM closed WHERE at < ?")?
        .execute([oldest])?;
    // Nothing without a floor in its place, whatever the caller says.
    change
        .prepare_cached(
            "DELETE FROM accepted WHERE (at, packet) IN (
             SELECT at, packet FROM accepted WHERE at < ? AND at <=
             (SELECT ifnull(floor, -1) FROM generation WHERE id = generation) LIMIT ?)",
        )?
        .execute(params![oldest, PORTION])
}

/// Moves claims whose time is over to the history. Returns how many.
pub fn end_expired(change: &Connection, now: Now) -> Result<usize> {
    let which = "(key, service, address) IN (
         SELECT key, service, address FROM claim WHERE ends <= ?1
         ORDER BY key, service, address LIMIT ?2)";
    let with = params![mono(now.mono), PORTION];
    let end = format!("{MOVE} until, 'expired', knocks FROM claim WHERE {which}");
    let moved = change.prepare_cached(&end)?.execute(with)?;
    if moved > 0 {
        let delete = format!("DELETE FROM claim WHERE {which}");
        change.prepare_cached(&delete)?.execute(with)?;
    }
    Ok(moved)
}

/// Cuts the history: to what ended within `keep`, and to so many rows for each key. What
/// a clock that was ahead has written stays until that time has come and gone. Returns how
/// many rows went.
pub fn cut(change: &Connection, keep: Duration, now: Now) -> Result<usize> {
    let oldest = ms(now.wall).saturating_sub(mono(keep));
    let mut gone = change
        .prepare_cached(
            "DELETE FROM history WHERE id IN (SELECT id FROM history WHERE ended < ? LIMIT ?)",
        )?
        .execute(params![oldest, PORTION])?;
    let mut many =
        change.prepare_cached("SELECT key FROM history GROUP BY key HAVING count(*) > ?")?;
    let many: Vec<String> = many
        .query_map([ROWS_OF_KEY], |row| row.get(0))?
        .collect::<Result<_>>()?;
    for key in many {
        gone += change
            .prepare_cached(
                "DELETE FROM history WHERE id IN (SELECT id FROM history
                 WHERE key = ?1 AND id <= (SELECT id FROM history
                 WHERE key = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2) LIMIT ?3)",
            )?
            .execute(params![key, ROWS_OF_KEY, PORTION])?;
    }
    Ok(gone)
}
