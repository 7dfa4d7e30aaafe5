//! `oneknockctl history`.

use super::{Failure, print, say};
use crate::clock::{Clock, date};
use crate::config::{Loaded, Paths};
use crate::store::{self, HistoryRow};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct History {
    /// Of this key alone, also one that was removed.
    #[arg(long)]
    key: Option<KeyName>,
    /// Only what was open within this time, up to now, such as 12h or 7d [default: all].
    #[arg(long, value_name = "TIME", value_parser = super::span_of_time)]
    since: Option<Duration>,
    /// One JSON object a line.
    ///
    /// Its members: opened, ended, how, key, generation, service, address, knocks.
    #[arg(long)]
    json: bool,
}

impl History {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        super::check_readable(paths)?;
        let settings = Loaded::at_start(paths).map_err(Failure::Mistakes)?.settings;
        let now = Clock::start().now();
        let since = self.since.map_or(0, |since| {
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            now.wall.0.saturating_sub(since)
        });
        let folder = &paths.state();
        let read = |since| {
            store::history(folder, self.key.as_ref(), Timestamp(since), now)
                .map_err(|error| Failure::new(folder.join("journal.db").display(), error))
        };
        let entries = read(since)?;
        if let Some(key) = &self.key
            && entries.is_empty()
        {
            let is_key = settings.keys.iter().any(|known| known.name == *key);
            if !is_key && read(0)?.is_empty() {
                return Err(super::no_key(paths, key));
            }
            say(format_args!("key {key} opened nothing in that time"));
        }
        if self.json {
            let lines: Vec<String> = entries.iter().map(|e| json(e).to_string()).collect();
            return print_lines(&lines);
        }
        let head = [
            "OPENED",
            "ENDED",
            "HOW",
            "KEY",
            "GENERATION",
            "SERVICE",
            "ADDRESS",
            "KNOCKS",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(entries.iter().map(row));
        print_lines(&table(&rows))
    }
}

pub fn print_lines(lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    print(&lines.join("\n"))
}

fn row(entry: &HistoryRow) -> [String; 8] {
    [
        date(entry.opened),
        date(entry.ended),
        entry.how.to_owned(),
        entry.key.to_string(),
        entry.number.to_string(),
        entry.service.to_string(),
        entry.source.to_string(),
        entry.knocks.to_string(),
    ]
}

fn json(entry: &HistoryRow) -> serde_json::Value {
    serde_json::json!({
        "opened": date(entry.opened),
        "ended": date(entry.ended),
        "how": entry.how,
        "key": entry.key.as_str(),
        "generation": entry.number,
        "service": entry.service.as_str(),
        "address": entry.source.to_string(),
        "knocks": entry.knocks,
    })
}

/// Columns as wide as their widest cell.
pub fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |at: usize| rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
