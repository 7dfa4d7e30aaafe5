//! What the administrator wrote: `oneknockd.toml` and one file for each key. Every error is
//! found at once, with its file and line.
//!
//! An invalid main file changes nothing: a reload takes nothing, and a start goes by the last
//! good one. A key whose file is invalid is skipped; the others are loaded. See [`load`].

pub mod enabled;
mod guard;
mod key;
mod key_files;
pub mod last_good;
mod load;
mod main_file;
mod paths;
mod reach;
mod reader;
mod rules;
mod sequence;
mod service;
mod steps;
mod trusted;

pub use key::{Generation, Key, Policy, key_text, parse as parse_key};
pub use key_files::{SkippedKey, check_beside, load_key, load_one};
pub use load::{Loaded, load_main, main_or_last_good};
pub use main_file::{Config, main_text, parse as parse_config};
pub use paths::Paths;
pub use reach::unreachable;
pub use sequence::{ROLLING_KEYS, Sequence, Steps, ports_text};
pub use service::Service;
pub use steps::propose as propose_sequence;

use crate::files;
use oneknock_shared::knock::Timestamp;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", one_line(&self.file.display().to_string()))?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", one_line(&self.what))
    }
}

/// A text with its control characters spelt out: a file's name or content can neither
/// begin a line of its own in the log nor move a terminal's cursor.
#[must_use]
pub fn one_line(text: &str) -> String {
    // Marks that turn the direction of what follows, or are not seen, are not controls.
    let is_hidden = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let spelt = |c: char| match c {
        c if c.is_control() || is_hidden(c) => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(spelt).collect()
}

fn config_error(file: &Path, what: impl fmt::Display) -> ConfigError {
    ConfigError {
        file: file.into(),
        line: None,
        what: what.to_string(),
    }
}

/// A configuration and keys that are valid: the only form in which they reach the engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The main file.
    pub config: Config,
    /// The keys, in the order of their names.
    pub keys: Vec<Key>,
}

impl Settings {
    /// Whether there is a key whose time is not over.
    #[must_use]
    pub fn has_key_at(&self, now: Timestamp) -> bool {
        let mut generations = self.keys.iter().flat_map(|key| &key.generations);
        generations.any(|g| g.end().is_none_or(|end| now <= end))
    }
}

fn is_absent(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether a file in the folder of keys is read at all: an editor's backup is not, nor one
/// that was given another ending to put it out of force.
#[must_use]
pub fn is_key_file(path: &Path) -> bool {
    !files::is_hidden(path) && path.extension().is_some_and(|ending| ending == "toml")
}

/// What lies in the folder of keys and is never read.
#[must_use]
pub fn strays(paths: &Paths) -> Vec<PathBuf> {
    let entries = fs::read_dir(paths.keys()).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let mut strays: Vec<PathBuf> = paths
        .filter(|path| !is_key_file(path) && !files::is_unfinished(path))
        .collect();
    strays.sort();
    strays
}

#[cfg(test)]
mod tests;
