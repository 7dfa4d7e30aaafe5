//! `oneknockctl history`.

use super::{Failure, print};
use crate::clock::Clock;
use crate::config::Settings;
use crate::ledger::{self, Entry};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub struct History {
    /// Of this key alone, also one that was removed.
    #[arg(long)]
    key: Option<KeyName>,
    /// What had not ended so long ago, such as 12h or 7d [default: all].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

impl History {
    pub fn run(&self, dir: &Path) -> Result<(), Failure> {
        super::check_readable(dir)?;
        let settings = Settings::load(dir).map_err(Failure::Mistakes)?;
        let since = self.since.map_or(0, |since| {
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            Clock::start().now().wall.0.saturating_sub(since)
        });
        let folder = &settings.config.state;
        let entries = ledger::history(folder, self.key.as_ref(), Timestamp(since))
            .map_err(|error| Failure::new(folder.join("ledger.db").display(), error))?;
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

fn print_lines(lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    print(&lines.join("\n"))
}

/// Where a clock was beyond all calendars, the seconds since 1970.
fn date(at: Timestamp) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(at.0));
    let last = Duration::from_secs(253_402_300_799);
    match time.filter(|_| Duration::from_millis(at.0) <= last) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => (at.0 / 1000).to_string(),
    }
}

fn row(entry: &Entry) -> [String; 8] {
    [
        date(entry.opened),
        date(entry.ended),
        entry.how.clone(),
        entry.key.to_string(),
        entry.generation.to_string(),
        entry.service.to_string(),
        entry.address.to_string(),
        entry.knocks.to_string(),
    ]
}

fn json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "opened": date(entry.opened),
        "ended": date(entry.ended),
        "how": entry.how,
        "key": entry.key.as_str(),
        "generation": entry.generation,
        "service": entry.service.as_str(),
        "address": entry.address.to_string(),
        "knocks": entry.knocks,
    })
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_also_at_the_ends_of_time() {
        assert_eq!(date(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(date(Timestamp(1_800_000_000_999)), "2027-01-15T08:00:00Z");
        assert_eq!(date(Timestamp(u64::MAX)), "18446744073709551");
    }
}
