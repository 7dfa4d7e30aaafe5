//! The files of keys: each is judged by itself, and beside the others. One that is invalid is
//! skipped, at a start and at a reload alike, and shuts out nobody but its own key's holder.

use super::key::{self, Key};
use super::sequence::{ROLLING_KEYS, Sequence, Steps};
use super::{Config, ConfigError, Paths, config_error, is_key_file, one_line};
use crate::files::{self, Access, KEY_FILE_MODE, KEY_FOLDER_MODE, Owner};
use oneknock_shared::name::KeyName;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What becomes of a name in a file that has no meaning there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownNames {
    /// The file is invalid: somebody has written it just now, and means something by it.
    Refuse,
    /// A warning: the file was good for an older program, or for a newer one.
    Warn,
}

/// A key that is not loaded, since its file is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedKey {
    /// The name of its file, as a word of a line.
    pub file: String,
    /// What is wrong with it; at least one.
    pub errors: Vec<ConfigError>,
}

impl SkippedKey {
    /// One that is skipped for these errors.
    #[must_use]
    pub fn new(path: &Path, errors: Vec<ConfigError>) -> Self {
        let name = path.file_name().unwrap_or_default();
        Self {
            file: one_line(&files::shell_word(name.as_ref())),
            errors,
        }
    }
}

/// All keys of a server, in the order of their names.
#[derive(Debug, Default)]
pub struct KeyFiles {
    /// Those that are valid.
    pub loaded: Vec<Key>,
    /// The others.
    pub skipped: Vec<SkippedKey>,
    /// Names that have no meaning in files that are valid all the same.
    pub warnings: Vec<ConfigError>,
}

/// What the keys are held against.
#[derive(Debug)]
pub struct Against<'c> {
    /// The names of the services that there are, where that is known.
    pub services: Option<Vec<String>>,
    /// The port sequence.
    pub sequence: Option<&'c Sequence>,
    /// What becomes of names without a meaning.
    pub unknown: UnknownNames,
}

/// A file, and what is known of it so far.
struct Candidate {
    path: PathBuf,
    key: Option<Key>,
    errors: Vec<ConfigError>,
}

impl Candidate {
    fn valid(&self) -> Option<&Key> {
        self.key.as_ref().filter(|_| self.errors.is_empty())
    }
}

impl KeyFiles {
    /// Reads every key's file.
    #[must_use]
    pub fn read(paths: &Paths, owner: Owner, against: &Against<'_>) -> Self {
        let mut files = Self::default();
        let mut all: Vec<Candidate> = Vec::new();
        for path in names(paths) {
            let (key, errors) = match read_one(&path, owner) {
                Err(errors) => (None, errors),
                Ok((key, unknown)) if against.unknown == UnknownNames::Warn => {
                    files.warnings.extend(unknown);
                    (Some(key), Vec::new())
                }
                Ok((key, unknown)) => (Some(key), unknown),
            };
            all.push(Candidate { path, key, errors });
        }
        if let Some(services) = &against.services {
            check_services(services, &mut all);
        }
        check_secrets(&mut all);
        if let Some(sequence) = against.sequence {
            check_rolling(sequence, &mut all);
        }
        for Candidate { path, key, errors } in all {
            match key.filter(|_| errors.is_empty()) {
                Some(key) => files.loaded.push(key),
                None => files.skipped.push(SkippedKey::new(&path, errors)),
            }
        }
        files
    }
}

fn names(paths: &Paths) -> Vec<PathBuf> {
    let entries = fs::read_dir(paths.keys()).into_iter().flatten();
    let names = entries.flatten().map(|entry| entry.path());
    let mut names: Vec<PathBuf> = names.filter(|path| is_key_file(path)).collect();
    names.sort_by(|a, b| a.file_stem().cmp(&b.file_stem()));
    names
}

/// Reads one key's file; its name without `.toml` is the key's. Names without a meaning in it
/// come second.
fn read_one(path: &Path, owner: Owner) -> Result<(Key, Vec<ConfigError>), Vec<ConfigError>> {
    let one = |what: String| vec![config_error(path, what)];
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".toml"))
        .ok_or_else(|| one("is not a key file: its name must end in .toml".into()))?
        .parse::<KeyName>()
        .map_err(|error| one(format!("{error}")))?;
    if is_address(&name) {
        let what =
            "a key cannot be named like an address, which commands take too: rename the file";
        return Err(one(what.into()));
    }
    let text = files::read(path, Access::Exactly(owner, KEY_FILE_MODE))
        .map_err(|error| one(error.to_string()))?;
    let read = key::read(path, name, &text)?;
    Ok((read.value, read.unknown))
}

fn is_address(name: &KeyName) -> bool {
    name.as_str().parse::<IpAddr>().is_ok()
}

/// Reads one key's file by itself; a name without a meaning is an error.
pub fn load_key(path: &Path, owner: Owner) -> Result<Key, Vec<ConfigError>> {
    match read_one(path, owner)? {
        (key, unknown) if unknown.is_empty() => Ok(key),
        (_, unknown) => Err(unknown),
    }
}

/// Reads one key's file by itself, for a daemon that loads this key alone. Where others could
/// write into the directory of keys, none is loaded.
pub fn load_one(paths: &Paths, name: &KeyName) -> Result<Key, Vec<ConfigError>> {
    check_directory(paths, Owner::wanted()).map_err(|error| vec![error])?;
    load_key(&paths.key_file(name.as_str()), Owner::wanted())
}

/// Judges a key beside the configuration and the other keys that are loaded. Where it has a
/// secret of one of these, nothing says which of the two is meant, and so it is not loaded.
pub fn check_beside(
    path: &Path,
    key: &Key,
    config: &Config,
    keys: &[Key],
) -> Result<(), Vec<ConfigError>> {
    let others = keys.iter().filter(|other| other.name != key.name);
    let services = config.services.iter();
    let services: Vec<String> = services.map(|s| s.name.to_string()).collect();
    let mut errors = unknown_services(path, key, &services);
    let shares = |other: &&Key| {
        let mut secrets = other.generations.iter().map(|g| &g.secret);
        secrets.any(|secret| key.generations.iter().any(|g| g.secret == *secret))
    };
    if let Some(other) = others.clone().find(shares) {
        let what = format!("has the same secret as key {}", other.name);
        errors.push(config_error(path, what));
    }
    if let Some(sequence) = rolling(config.sequence.as_ref())
        && sequence.is_for(&key.policy)
        && others.filter(|key| sequence.is_for(&key.policy)).count() >= ROLLING_KEYS
    {
        errors.push(too_many(path, sequence));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// Refuses a directory of keys that cannot be read, or that others could write into.
pub fn check_directory(paths: &Paths, owner: Owner) -> Result<(), ConfigError> {
    let keys = paths.keys();
    let checked = files::check_folder(&keys, Access::WrittenOnlyBy(owner));
    checked
        .and_then(|()| Ok(fs::read_dir(&keys).map(drop)?))
        .map_err(|error| config_error(&keys, error))
}

/// What is wrong with the mode of a directory of keys that [`check_directory`] lets pass.
#[must_use]
pub fn loose_directory(paths: &Paths, owner: Owner) -> Option<ConfigError> {
    let keys = paths.keys();
    let checked = files::check_folder(&keys, Access::Exactly(owner, KEY_FOLDER_MODE));
    checked.err().map(|error| config_error(&keys, error))
}

/// Every service that a key names must be in the main file.
fn check_services(services: &[String], all: &mut [Candidate]) {
    for candidate in all {
        if let Some(key) = candidate.key.as_ref() {
            let errors = unknown_services(&candidate.path, key, services);
            candidate.errors.extend(errors);
        }
    }
}

fn unknown_services(path: &Path, key: &Key, services: &[String]) -> Vec<ConfigError> {
    let named = key.policy.services.iter();
    let unknown = named.filter(|name| !services.iter().any(|s| s == name.as_str()));
    let what = |name| format!("services: {name} is not a service of oneknockd.toml");
    unknown.map(|name| config_error(path, what(name))).collect()
}

/// One secret in two files would make the log and every policy ambiguous: nobody can know which
/// is meant, and by one of them its time may be over. None of them is loaded; but where they say
/// the same, as a mere copy does, the first is.
fn check_secrets(all: &mut [Candidate]) {
    let mut holders: HashMap<_, Vec<(usize, u32)>> = HashMap::new();
    for (at, candidate) in all.iter().enumerate() {
        for generation in candidate
            .key
            .as_ref()
            .iter()
            .flat_map(|key| &key.generations)
        {
            let of = holders.entry(generation.secret.clone()).or_default();
            of.push((at, generation.number));
        }
    }
    let mut errors: BTreeSet<(usize, u32, KeyName)> = BTreeSet::new();
    for holders in holders.into_values() {
        let Some((&(first, number), others)) = holders.split_first() else {
            continue;
        };
        let Some(of_first) = all[first].key.as_ref() else {
            continue;
        };
        for &(at, its_number) in others.iter().filter(|(at, _)| *at != first) {
            let Some(key) = all[at].key.as_ref() else {
                continue;
            };
            errors.insert((at, its_number, of_first.name.clone()));
            let says_the_same =
                key.policy == of_first.policy && key.generations == of_first.generations;
            if !says_the_same {
                errors.insert((first, number, key.name.clone()));
            }
        }
    }
    for (at, number, other) in errors {
        let what = format!("generation {number}: has the same secret as key {other}");
        let found = config_error(&all[at].path, what);
        all[at].errors.push(found);
    }
}

fn rolling(sequence: Option<&Sequence>) -> Option<&Sequence> {
    sequence.filter(|sequence| sequence.steps == Steps::Rolling)
}

/// Those that come first in the order of their names have the sequence.
fn check_rolling(sequence: &Sequence, all: &mut [Candidate]) {
    if rolling(Some(sequence)).is_none() {
        return;
    }
    let has = |c: &&mut Candidate| c.valid().is_some_and(|key| sequence.is_for(&key.policy));
    for candidate in all.iter_mut().filter(has).skip(ROLLING_KEYS) {
        let found = too_many(&candidate.path, sequence);
        candidate.errors.push(found);
    }
}

fn too_many(path: &Path, sequence: &Sequence) -> ConfigError {
    let service = sequence.service;
    let what = format!(
        "services: at most {ROLLING_KEYS} keys can have the rolling sequence of {service}, and as many have it"
    );
    config_error(path, what)
}
