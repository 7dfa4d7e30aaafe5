//! What commands print: answers on standard output, messages on standard error.

use super::failure::{Exit, Failure};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, Write};

/// The version of what `--json` prints.
pub const VERSION: u64 = 1;

/// Writes a line to standard output. Where its reader is gone the command ends in silence.
pub fn print(text: &str) -> Result<(), Failure> {
    written(writeln!(io::stdout(), "{text}"))
}

/// What has become of a write to standard output.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Ended(Exit::Failed),
        _ => Failure::new("cannot write the answer", error),
    })
}

/// Writes lines to standard output.
pub fn print_lines(lines: &[String]) -> Result<(), Failure> {
    lines.iter().try_for_each(|line| print(line))
}

/// Writes a value as one JSON object, with its version.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let value = serde_json::to_value(value).map_err(|error| Failure::new("JSON", error))?;
    let mut object = serde_json::Map::from_iter([("version".to_owned(), VERSION.into())]);
    if let Value::Object(members) = value {
        object.extend(members);
    }
    print(&Value::Object(object).to_string())
}

/// Says a line on standard error. `eprintln!` would panic where it is closed, in the middle
/// of what is to be done.
pub fn say(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Warns on standard error, with what to do.
pub fn warn(text: impl Display, hint: Option<&str>) {
    say(format_args!("warning: {text}"));
    if let Some(hint) = hint {
        say(format_args!("hint: {hint}"));
    }
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
