//! How times and names stand in the ledger's columns.

use oneknock_shared::knock::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Result, Row};
use std::str::FromStr;
use std::time::Duration;

/// Times that no clock shows are cut to the greatest that a row can hold.
pub fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

pub fn mono(at: Duration) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

/// A value that no ledger has.
pub fn bad(index: usize, kind: Type) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, kind, "not a ledger's".into())
}

pub fn timestamp(row: &Row<'_>, index: usize) -> Result<Timestamp> {
    let at = u64::try_from(row.get::<_, i64>(index)?);
    at.map(Timestamp).map_err(|_| bad(index, Type::Integer))
}

pub fn text<T: FromStr>(row: &Row<'_>, index: usize) -> Result<T> {
    let text = row.get_ref(index)?.as_str()?;
    text.parse().map_err(|_| bad(index, Type::Text))
}
