//! Grants of the past, and those that last: the journal has them, with or without a daemon.

use crate::clock::{Clock, date};
use crate::config::Paths;
use crate::control::protocol::Selection;
use crate::ctl::Failure;
use crate::store::{self, HistoryRow};
use oneknock_shared::knock::Timestamp;
use serde_json::{Value, json};

/// Those of a selection that lasted at this time or later, the oldest first.
pub fn read(paths: &Paths, of: &Selection, since: Timestamp) -> Result<Vec<HistoryRow>, Failure> {
    let (state, now) = (paths.state(), Clock::start().now());
    let rows = store::history(&state, of.key(), since, now)
        .map_err(|error| Failure::new(state.join("journal.db").display(), error))?;
    let is_meant = |row: &HistoryRow| match of.address() {
        Some(address) => row.source.contains(address),
        None => true,
    };
    Ok(rows.into_iter().filter(is_meant).collect())
}

/// One line.
pub fn line(row: &HistoryRow) -> String {
    let HistoryRow {
        key,
        service,
        source,
        opened,
        ended,
        how,
        knocks,
        ..
    } = row;
    let (opened, ended) = (date(*opened), date(*ended));
    let knocks = match knocks {
        1 => String::new(),
        knocks => format!(", {knocks} knocks"),
    };
    format!("{opened} granted {key} {source} {service} until {ended} ({how}{knocks})")
}

/// The members of an object.
pub fn json(row: &HistoryRow) -> Value {
    json!({
        "opened": date(row.opened),
        "ended": date(row.ended),
        "how": row.how,
        "key": row.key.as_str(),
        "generation": row.number,
        "service": row.service.as_str(),
        "address": row.source.to_string(),
        "knocks": row.knocks,
    })
}
