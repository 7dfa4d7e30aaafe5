//! Translates times and names to columns, and back.

use super::database::not_ours;
use oneknock_shared::knock::Timestamp;
use rusqlite::{Result, Row};
use std::str::FromStr;
use std::time::Duration;

/// Times that no clock shows are cut to the greatest that a row can hold.
pub(super) fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// Milliseconds since boot.
pub(super) fn mono_ms(at: Duration) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn timestamp(row: &Row<'_>, index: usize) -> Result<Timestamp> {
    let at = u64::try_from(row.get::<_, i64>(index)?);
    at.map(Timestamp)
        .map_err(|_| not_ours("a time is before 1970"))
}

pub(super) fn text<T: FromStr>(row: &Row<'_>, index: usize) -> Result<T> {
    let text = row.get_ref(index)?.as_str()?;
    text.parse()
        .map_err(|_| not_ours("a name or an address is none"))
}

/// Reads a column; none where it is NULL.
pub(super) fn optional<T>(
    row: &Row<'_>,
    index: usize,
    read: impl FnOnce(&Row<'_>, usize) -> Result<T>,
) -> Result<Option<T>> {
    match row.get_ref(index)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => read(row, index).map(Some),
    }
}
