//! When each generation was last used and from where, what it opened, and when it
//! retires: read from the state, also while a daemon writes it.

use super::columns::{text, timestamp};
use super::connect::open_to_read;
use crate::gate::Place;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use rusqlite::{Connection, Result, params};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

/// What the state knows of a generation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Use {
    /// When a packet of it was last accepted; never, where there is none.
    pub last: Option<Timestamp>,
    /// Where that packet came from.
    pub from: Option<IpAddr>,
    /// When it ends, since a newer generation was used.
    pub retires: Option<Timestamp>,
}

/// Reads what is known of every generation that the state knows.
pub fn read(folder: &Path) -> Result<BTreeMap<GenerationId, Use>> {
    let database = open_to_read(folder)?;
    let mut rows = database.prepare("SELECT identity, used, used_from, retires FROM generation")?;
    let optional = |row: &rusqlite::Row<'_>, index| match row.get_ref(index)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => timestamp(row, index).map(Some),
    };
    let uses = rows.query_map([], |row| {
        let from = match row.get_ref(2)? {
            rusqlite::types::ValueRef::Null => None,
            _ => Some(text(row, 2)?),
        };
        let known = Use {
            last: optional(row, 1)?,
            from,
            retires: optional(row, 3)?,
        };
        Ok((GenerationId(row.get(0)?), known))
    })?;
    uses.collect()
}

/// The places whose live claim one of these generations has opened or renewed last.
pub fn opened_by<T>(
    database: &Connection,
    generations: &BTreeMap<GenerationId, T>,
) -> Result<Vec<(KeyName, Place)>> {
    // Once through, however many generations have ended.
    let mut claims = database.prepare_cached(
        "SELECT identity, claim.key, service, address FROM claim JOIN generation ON id = generation",
    )?;
    let mut claims = claims.query([])?;
    let mut found = Vec::new();
    while let Some(row) = claims.next()? {
        if generations.contains_key(&GenerationId(row.get(0)?)) {
            let (service, address) = (text(row, 2)?, text(row, 3)?);
            found.push((text(row, 1)?, Place { service, address }));
        }
    }
    Ok(found)
}

/// Every place that grants have opened, live or in the history: of a key, of one of its
/// generations, or to an address; of all without.
pub fn places(
    database: &Connection,
    key: Option<&KeyName>,
    number: Option<u32>,
    address: Option<IpAddr>,
) -> Result<BTreeSet<Place>> {
    let mut rows = database.prepare_cached(
        "SELECT service, address FROM claim
         WHERE (?1 IS NULL OR key = ?1) AND (?2 IS NULL OR number = ?2)
         AND (?3 IS NULL OR address = ?3)
         UNION
         SELECT service, address FROM history
         WHERE (?1 IS NULL OR key = ?1) AND (?2 IS NULL OR number = ?2)
         AND (?3 IS NULL OR address = ?3)",
    )?;
    let key = key.map(KeyName::as_str);
    let address = address.map(|address| address.to_string());
    let places = rows.query_map(params![key, number, address], |row| {
        let (service, address) = (text(row, 0)?, text(row, 1)?);
        Ok(Place { service, address })
    })?;
    places.collect()
}
