//! What the administrator wrote: `oneknockd.toml` and one file for each key, read as a
//! whole or not at all, with every mistake at once. Only what goes on all the same, a start
//! first of all, makes do with what is without one: [`Usable`].

mod always;
pub mod enabled;
mod guard;
mod kept;
mod key;
mod main_file;
mod paths;
mod reach;
mod reader;
mod rules;
mod sequence;
mod service;
mod steps;
mod usable;

pub use always::Network;
pub use kept::{config as kept_config, forget as forget_kept, keep};
pub use key::{Generation, Key, Policy, key_text, parse as parse_key};
pub use main_file::{Config, main_text, parse as parse_config};
pub use paths::Paths;
pub use reach::unreachable;
pub use sequence::{ROLLING_KEYS, Sequence, Steps, ports_text};
pub use service::Service;
pub use steps::propose as propose_sequence;
pub use usable::Usable;

use crate::files::{self, Access, KEY_FILE_MODE, KEY_FOLDER_MODE, Owner, Unsafe};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::ServiceName;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub what: String,
}

impl fmt::Display for Mistake {
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

fn mistake(file: &Path, what: impl fmt::Display) -> Mistake {
    Mistake {
        file: file.into(),
        line: None,
        what: what.to_string(),
    }
}

/// A configuration and keys that are without a mistake: the only form in which they
/// reach the gate.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The main file.
    pub config: Config,
    /// The keys, in the order of their names.
    pub keys: Vec<Key>,
}

impl Settings {
    /// Reads a configuration folder. Where anything is wrong, all that is wrong.
    pub fn load(paths: &Paths) -> Result<Self, Vec<Mistake>> {
        Self::load_for(paths, Owner::wanted())
    }

    /// Whether there is a key whose time is not over.
    #[must_use]
    pub fn has_key_at(&self, now: Timestamp) -> bool {
        let mut generations = self.keys.iter().flat_map(|key| &key.generations);
        generations.any(|g| g.end().is_none_or(|end| now <= end))
    }

    fn load_for(paths: &Paths, owner: Owner) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let config = load_config(paths, owner)
            .map_err(|found| mistakes.extend(found))
            .ok();
        let is_new = is_absent(&paths.main_file()) && is_absent(&paths.keys());
        if config.is_none() && (is_new || paths.unusable().is_some()) {
            // Before init there is one mistake, not several.
            return Err(mistakes);
        }
        let keys = load_keys(paths, owner, &mut mistakes);
        if let Some(known) = services(paths, owner) {
            check_services(&known, &keys, &mut mistakes);
        }
        check_secrets(&keys, &mut mistakes);
        check_group(paths, config.as_ref(), &mut mistakes);
        check_rolling(paths, config.as_ref(), &keys, &mut mistakes);
        let keys = keys.into_iter().map(|(_, key)| key).collect();
        match config {
            Some(config) if mistakes.is_empty() => Ok(Self { config, keys }),
            _ => Err(mistakes),
        }
    }
}

/// The main file, to end something by: with mistakes, which are given too, the last good one.
pub fn load_config_or_kept(paths: &Paths) -> Result<(Config, Vec<Mistake>), Vec<Mistake>> {
    let mistakes = match load_config(paths, Owner::wanted()) {
        Ok(config) => return Ok((config, Vec::new())),
        Err(mistakes) => mistakes,
    };
    match kept::config(paths) {
        Some(kept) => Ok((kept, mistakes)),
        None => Err(mistakes),
    }
}

/// Reads the main file alone.
pub fn load_config(paths: &Paths, owner: Owner) -> Result<Config, Vec<Mistake>> {
    if let Some(mistake) = paths.unusable() {
        return Err(vec![mistake]);
    }
    let path = paths.main_file();
    let text = files::read(&path, Access::WrittenOnlyBy(owner)).map_err(|error| {
        vec![if is_absent(&path) {
            let make = || format!("make it with: {} init --host HOST", paths.ctl());
            let back = |mend| format!("bring back what was last in force with: {mend}");
            let mend = kept::mend(paths).map_or_else(make, back);
            mistake(&path, format!("is not there; {mend}"))
        } else if matches!(&error, Unsafe::Io(e) if e.kind() == io::ErrorKind::PermissionDenied) {
            let ask = format!("as root \"{} check\" says what to do", paths.ctl());
            mistake(&path, format!("{error}; {ask}"))
        } else {
            mistake(&path, error)
        }]
    })?;
    main_file::parse(&path, &text)
}

fn is_absent(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Looks for mistakes in a main file's text before it is written.
pub fn check_main_text(file: &Path, text: &str) -> Result<(), Vec<Mistake>> {
    main_file::parse(file, text).map(|_| ())
}

fn load_keys(paths: &Paths, owner: Owner, mistakes: &mut Vec<Mistake>) -> Vec<(PathBuf, Key)> {
    let folder = paths.keys();
    if let Err(error) = files::check_folder(&folder, Access::Exactly(owner, KEY_FOLDER_MODE)) {
        mistakes.push(mistake(&folder, error));
    }
    let mut names: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        // The check above has said so.
        Err(_) => Vec::new(),
    };
    names.sort();
    let mut keys = Vec::new();
    for path in names.into_iter().filter(|path| is_key_file(path)) {
        match load_key(&path, owner) {
            Ok(key) => keys.push((path, key)),
            Err(found) => mistakes.extend(found),
        }
    }
    keys
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

/// Reads one key file; its name without `.toml` is the key's.
pub fn load_key(path: &Path, owner: Owner) -> Result<Key, Vec<Mistake>> {
    let one = |what: String| vec![mistake(path, what)];
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".toml"))
        .ok_or_else(|| one("is not a key file: its name must end in .toml".into()))?
        .parse()
        .map_err(|error| one(format!("{error}")))?;
    let text = files::read(path, Access::Exactly(owner, KEY_FILE_MODE))
        .map_err(|error| one(error.to_string()))?;
    key::parse(path, name, &text)
}

/// The services of the main file, also where that has mistakes, so that all are found at
/// once. What is wrong with the file itself has been said.
fn services(paths: &Paths, owner: Owner) -> Option<Vec<String>> {
    let path = paths.main_file();
    let text = files::read(&path, Access::WrittenOnlyBy(owner)).ok()?;
    let table = text.parse::<toml::Table>().ok()?;
    let services = table.get("service")?.as_array()?.iter();
    let names = services.filter_map(|service| service.get("name")?.as_str());
    Some(names.map(str::to_owned).collect())
}

/// Every service that a key names must be in the main file.
fn check_services(known: &[String], keys: &[(PathBuf, Key)], mistakes: &mut Vec<Mistake>) {
    let is_known = |name: &&ServiceName| known.iter().any(|k| k == name.as_str());
    for (path, key) in keys {
        for name in key.policy.services.iter().filter(|name| !is_known(name)) {
            let what = format!("services: {name} is not a service of oneknockd.toml");
            mistakes.push(mistake(path, what));
        }
    }
}

fn check_group(paths: &Paths, config: Option<&Config>, mistakes: &mut Vec<Mistake>) {
    let Some(group) = config.and_then(|config| config.control_group.as_ref()) else {
        return;
    };
    let what = match files::group_id(group) {
        Ok(Some(_)) => return,
        Ok(None) => format!(
            "control_group: there is no group {group}; make it with: groupadd --system {group}"
        ),
        Err(error) => format!("control_group: {group}: {error}"),
    };
    mistakes.push(mistake(&paths.main_file(), what));
}

fn check_rolling(
    paths: &Paths,
    config: Option<&Config>,
    keys: &[(PathBuf, Key)],
    mistakes: &mut Vec<Mistake>,
) {
    let sequence = config.and_then(|config| config.sequence.as_ref());
    let Some(sequence) = sequence.filter(|s| s.steps == Steps::Rolling) else {
        return;
    };
    let has = |(_, key): &&(PathBuf, Key)| sequence.is_for(&key.policy);
    let count = keys.iter().filter(has).count();
    if count > ROLLING_KEYS {
        let service = sequence.service;
        let what = format!(
            "sequence.rolling: {count} keys may open {service}, and at most {ROLLING_KEYS} can have a rolling sequence"
        );
        mistakes.push(mistake(&paths.main_file(), what));
    }
}

/// One secret in two files would make the log and every policy ambiguous.
fn check_secrets(keys: &[(PathBuf, Key)], mistakes: &mut Vec<Mistake>) {
    let mut seen = HashMap::new();
    for (path, key) in keys {
        for generation in &key.generations {
            if let Some(first) = seen.insert(&generation.secret, &key.name) {
                let number = generation.number;
                let what = format!("generation {number}: has the same secret as key {first}");
                mistakes.push(mistake(path, what));
            }
        }
    }
}

#[cfg(test)]
mod tests;
