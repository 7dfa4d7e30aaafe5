//! What is in the ledger's database, row by row.
//!
//! What a knock waits for is as little as can be: the row of the packet and that of its
//! claim, by statements that are there already.

use super::columns::{mono, ms, text, timestamp};
use super::history::{self, How};
use crate::gate::{Accepted, Claim, Lost, Memory, Now, Place};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::packet::PacketId;
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

fn place(row: &Row<'_>, index: usize) -> Result<Place> {
    let (service, address) = (text(row, index)?, text::<IpAddr>(row, index + 1)?);
    Ok(Place { service, address })
}

/// Reads everything that bears on what is accepted now.
pub fn load(database: &Connection) -> Result<Memory> {
    let all = |sql: &str| database.prepare(sql);
    let seen = all("SELECT identity, at, packet FROM accepted JOIN generation ON id = generation")?
        .query_map([], |row| {
            Ok((
                GenerationId(row.get(0)?),
                timestamp(row, 1)?,
                PacketId(row.get(2)?),
            ))
        })?
        .collect::<Result<_>>()?;
    let floors = all("SELECT identity, floor FROM generation WHERE floor IS NOT NULL")?
        .query_map([], |row| {
            Ok((GenerationId(row.get(0)?), timestamp(row, 1)?))
        })?
        .collect::<Result<_>>()?;
    let closes = all("SELECT key, service, address, at FROM closed")?
        .query_map([], |row| {
            Ok((text(row, 0)?, place(row, 1)?, timestamp(row, 3)?))
        })?
        .collect::<Result<_>>()?;
    let claims = all("SELECT identity, claim.key, service, address, ends
         FROM claim JOIN generation ON id = generation")?
    .query_map([], |row| {
        Ok(Claim {
            generation: GenerationId(row.get(0)?),
            key: text(row, 1)?,
            place: place(row, 2)?,
            until: Duration::from_millis(timestamp(row, 4)?.0),
        })
    })?
    .collect::<Result<_>>()?;
    let retires = all("SELECT identity, retires FROM generation WHERE retires IS NOT NULL")?
        .query_map([], |row| {
            Ok((GenerationId(row.get(0)?), timestamp(row, 1)?))
        })?
        .collect::<Result<_>>()?;
    Ok(Memory {
        seen,
        floors,
        closes,
        claims,
        retires,
    })
}

/// Writes everything of a gate's memory into an empty database.
pub fn fill(database: &mut Connection, memory: &Memory, now: Now) -> Result<()> {
    let change = database.transaction()?;
    for &(generation, at, id) in &memory.seen {
        let generation = generation_row(&change, generation, "")?;
        remember(&change, generation, at, id)?;
    }
    for &(generation, floor) in &memory.floors {
        raise_floor(&change, generation, floor)?;
    }
    for &(generation, at) in &memory.retires {
        let row = generation_row(&change, generation, "")?;
        retire(&change, row, Some(at))?;
    }
    for (key, place, at) in &memory.closes {
        close(&change, key.as_str(), *place, *at)?;
    }
    for claim in &memory.claims {
        let generation = generation_row(&change, claim.generation, claim.key.as_str())?;
        let by = By {
            key: claim.key.as_str(),
            generation,
            number: 0,
        };
        open(&change, &by, claim.place, claim.until, now)?;
    }
    change.commit()
}

/// The rows of generations that are known to be there, and stay.
pub type Known = BTreeMap<GenerationId, i64>;

/// Does all of it in one commit, or nothing of it.
pub fn within<T>(database: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let run = |what| database.prepare_cached(what)?.execute([]).map(drop);
    run("BEGIN IMMEDIATE")?;
    let done = work().and_then(|done| run("COMMIT").map(|()| done));
    // Where this fails too, nothing more can begin: nothing more is recorded or granted.
    if done.is_err() && !database.is_autocommit() {
        run("ROLLBACK")?;
    }
    done
}

/// Records accepted packets and what they open or close.
pub fn record(
    database: &Connection,
    known: &mut Known,
    batch: &[Accepted],
    now: Now,
) -> Result<()> {
    let mut new = Known::new();
    within(database, || {
        for accepted in batch {
            let id = accepted.generation;
            let row = match known.get(&id).or(new.get(&id)) {
                Some(row) => *row,
                None => generation_row(database, id, accepted.key.as_str())?,
            };
            new.insert(id, row);
            record_one(database, row, accepted, now)?;
        }
        Ok(())
    })?;
    known.append(&mut new);
    Ok(())
}

/// Notes when each key was last used, and from where.
pub fn note_uses(database: &Connection, batch: &[Accepted], now: Now) -> Result<()> {
    let last = batch.iter().map(|accepted| (accepted.generation, accepted));
    let last: BTreeMap<_, _> = last.collect();
    within(database, || {
        for (id, accepted) in last {
            let (key, source) = (accepted.key.as_str(), accepted.source.to_string());
            database
                .prepare_cached(
                    "UPDATE generation SET key = ?2, used = ?3, used_from = ?4 WHERE identity = ?1",
                )?
                .execute(params![id.0, key, ms(now.wall), source])?;
        }
        Ok(())
    })
}

fn record_one(change: &Connection, generation: i64, accepted: &Accepted, now: Now) -> Result<()> {
    remember(change, generation, accepted.at, accepted.id)?;
    for retired in &accepted.retired {
        let row = generation_row(change, retired.generation, accepted.key.as_str())?;
        retire(change, row, Some(retired.at))?;
    }
    let by = By {
        key: accepted.key.as_str(),
        generation,
        number: accepted.number,
    };
    for &(place, time) in &accepted.asked {
        if let Some(time) = time {
            open(change, &by, place, now.mono.saturating_add(time), now)?;
        } else {
            close(change, by.key, place, accepted.at)?;
            history::end(change, by.key, place, now, How::Closed)?;
        }
    }
    Ok(())
}

/// Puts the claims back as they were before the packets, the last first.
pub fn undo(database: &mut Connection, batch: &[Accepted], now: Now) -> Result<()> {
    let change = database.transaction()?;
    for accepted in batch.iter().rev() {
        undo_one(&change, accepted, now)?;
    }
    change.commit()
}

fn undo_one(change: &Connection, accepted: &Accepted, now: Now) -> Result<()> {
    let generation = generation_row(change, accepted.generation, accepted.key.as_str())?;
    let by = By {
        key: accepted.key.as_str(),
        generation,
        number: accepted.number,
    };
    for retired in &accepted.retired {
        let row = generation_row(change, retired.generation, accepted.key.as_str())?;
        retire(change, row, None)?;
    }
    for &(place, before) in &accepted.undo {
        change
            .prepare_cached("DELETE FROM claim WHERE key = ? AND service = ? AND address = ?")?
            .execute(params![
                by.key,
                place.service.as_str(),
                place.address.to_string()
            ])?;
        if let Some(until) = before {
            open(change, &by, place, until, now)?;
        }
    }
    Ok(())
}

/// Notes claims that ended before their time.
pub fn lose(database: &mut Connection, lost: &Lost, now: Now) -> Result<()> {
    let change = database.transaction()?;
    for (key, place) in &lost.claims {
        history::end(&change, key.as_str(), *place, now, How::Revoked)?;
    }
    change.commit()
}

/// Whose claim it is.
struct By<'k> {
    key: &'k str,
    generation: i64,
    number: u32,
}

/// The generation's row, made where there is none.
fn generation_row(change: &Connection, id: GenerationId, key: &str) -> Result<i64> {
    let known = change
        .prepare_cached("SELECT id FROM generation WHERE identity = ?")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    if let Some(row) = known {
        return Ok(row);
    }
    change
        .prepare_cached("INSERT INTO generation (identity, key) VALUES (?, ?)")?
        .execute(params![id.0, key])?;
    Ok(change.last_insert_rowid())
}

pub fn raise_floor(change: &Connection, id: GenerationId, floor: Timestamp) -> Result<()> {
    let row = generation_row(change, id, "")?;
    change
        .prepare_cached("UPDATE generation SET floor = max(?2, ifnull(floor, 0)) WHERE id = ?1")?
        .execute(params![row, ms(floor)])
        .map(drop)
}

fn retire(change: &Connection, row: i64, at: Option<Timestamp>) -> Result<()> {
    change
        .prepare_cached("UPDATE generation SET retires = ?2 WHERE id = ?1")?
        .execute(params![row, at.map(ms)])
        .map(drop)
}

/// A database that was made anew from the gate's memory has the packet already.
fn remember(change: &Connection, generation: i64, at: Timestamp, id: PacketId) -> Result<()> {
    change
        .prepare_cached(
            "INSERT INTO accepted (at, packet, generation) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        )?
        .execute(params![ms(at), id.0, generation])
        .map(drop)
}

fn close(change: &Connection, key: &str, place: Place, at: Timestamp) -> Result<()> {
    change
        .prepare_cached(
            "INSERT INTO closed (key, service, address, at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET at = max(at, ?4)",
        )?
        .execute(params![
            key,
            place.service.as_str(),
            place.address.to_string(),
            ms(at)
        ])
        .map(drop)
}

/// Opens a place until then, or renews a claim that has not ended: never for shorter.
fn open(change: &Connection, by: &By<'_>, place: Place, ends: Duration, now: Now) -> Result<()> {
    // Where there is a claim that has ended it becomes history first.
    if !try_open(change, by, place, ends, now)? {
        history::end_if_expired(change, by.key, place, now)?;
        try_open(change, by, place, ends, now)?;
    }
    Ok(())
}

/// As [`open`]; false, and nothing done, where there is a claim that has ended.
fn try_open(
    change: &Connection,
    by: &By<'_>,
    place: Place,
    ends: Duration,
    now: Now,
) -> Result<bool> {
    let left = ends.saturating_sub(now.mono);
    let until = ms(now.wall).saturating_add(mono(left));
    let done = change
        .prepare_cached(
            "INSERT INTO claim (key, service, address, generation, number, opened, until, ends, knocks)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1)
             ON CONFLICT DO UPDATE SET generation = ?4, number = ?5,
             until = CASE WHEN ends < ?8 THEN ?7 ELSE until END,
             ends = max(ends, ?8), knocks = knocks + 1
             WHERE ends > ?9",
        )?
        .execute(params![
            by.key,
            place.service.as_str(),
            place.address.to_string(),
            by.generation,
            by.number,
            ms(now.wall),
            until,
            mono(ends),
            mono(now.mono),
        ])?;
    Ok(done > 0)
}
