//! Changes to key files: one at a time, each of them entirely or not at all.

use crate::clock::Clock;
use crate::config::{self, Config, Generation, Key, Paths, Policy, key_text};
use crate::ctl::edit_lock::EditLock;
use crate::ctl::{Failure, say};
use crate::files::{self, Existing, KEY_FILE_MODE, Owner};
use crate::store::{self, GenerationUse};
use oneknock_shared::knock::Timestamp;
use oneknock_shared::name::KeyName;
use oneknock_shared::secret::GenerationId;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// The key by which "enable" knocks at this machine itself; nobody else's has its name.
pub const OWN_KEY: &str = "oneknockctl-enable";

/// A configuration directory and the keys in it.
#[derive(Debug)]
pub struct KeyDirectory<'d> {
    /// The configuration directory.
    pub paths: &'d Paths,
    /// The main file.
    pub config: Config,
    /// What is wrong with it, where this is the last good one.
    pub errors: Vec<config::ConfigError>,
    owner: Owner,
}

impl<'d> KeyDirectory<'d> {
    /// Reads the main file.
    pub fn open(paths: &'d Paths) -> Result<Self, Failure> {
        crate::ctl::check_readable(paths)?;
        let main = config::load_main(paths).map_err(Failure::Config)?;
        Ok(Self {
            paths,
            config: main.config,
            errors: Vec::new(),
            owner: Owner::wanted(),
        })
    }

    /// As [`KeyDirectory::open`], to end something: an error in the main file, which is said, is
    /// no reason to leave a key as it is.
    pub fn open_to_end(paths: &'d Paths) -> Result<Self, Failure> {
        crate::ctl::check_readable(paths)?;
        let loaded = config::main_or_last_good(paths);
        let (config, errors) = loaded.map_err(Failure::Config)?;
        for error in &errors {
            say(format_args!("oneknockctl: {error}"));
        }
        Ok(Self {
            paths,
            config,
            errors,
            owner: Owner::wanted(),
        })
    }

    /// What this machine's clock says.
    #[must_use]
    pub fn now() -> Timestamp {
        Clock::start().now().wall
    }

    /// A key's file.
    #[must_use]
    pub fn path(&self, name: &KeyName) -> PathBuf {
        self.paths.key_file(name.as_str())
    }

    /// Reads a key.
    pub fn load(&self, name: &KeyName) -> Result<Key, Failure> {
        let path = self.path(name);
        if path.symlink_metadata().is_err() {
            return Err(self.no_key(name));
        }
        config::load_key(&path, self.owner).map_err(Failure::Config)
    }

    /// Reads every key, in the order of their names, and says what is wrong with others.
    pub fn load_all(&self) -> Result<(Vec<Key>, Vec<config::ConfigError>), Failure> {
        let directory = self.paths.keys();
        let entries = fs::read_dir(&directory).map_err(|e| Failure::io(&directory, &e))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let (mut keys, mut errors) = (Vec::new(), Vec::new());
        for path in paths.iter().filter(|path| config::is_key_file(path)) {
            match config::load_key(path, self.owner) {
                Ok(key) => keys.push(key),
                Err(found) => errors.extend(found),
            }
        }
        Ok((keys, errors))
    }

    /// Other keys in whose files a secret of this one stands too, as in a copy.
    #[must_use]
    pub fn copies_of(&self, key: &Key) -> Vec<KeyName> {
        let is_in = |generation: &Generation| {
            let mut own = key.generations.iter();
            own.any(|own| own.secret == generation.secret)
        };
        let (keys, _) = self.load_all().unwrap_or_default();
        let others = keys.into_iter().filter(|other| other.name != key.name);
        let copies = others.filter(|other| other.generations.iter().any(is_in));
        copies.map(|other| other.name).collect()
    }

    /// Writes a key's file: a new one, or in the place of the old one.
    pub fn write(
        &self,
        _lock: &EditLock,
        name: &KeyName,
        (policy, generations): (&Policy, &[Generation]),
        existing: Existing,
    ) -> io::Result<()> {
        let text = key_text(policy, generations);
        let path = self.path(name);
        files::write(&path, &text, self.owner, KEY_FILE_MODE, existing)
    }

    /// Removes a key's file.
    pub fn remove(&self, _lock: &EditLock, name: &KeyName) -> Result<(), Failure> {
        let path = self.path(name);
        match files::remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.no_key(name)),
            Err(error) => Err(Failure::io(&path, &error)),
        }
    }

    /// What the state knows of the use of generations.
    pub fn uses(&self) -> Result<BTreeMap<GenerationId, GenerationUse>, Failure> {
        let state = &self.paths.state();
        store::uses(state).map_err(|error| {
            let what = format!("cannot see in {} which keys are in use", state.display());
            Failure::new(what, error)
        })
    }

    /// There is no such key.
    pub fn no_key(&self, name: &KeyName) -> Failure {
        crate::ctl::no_key(self.paths, name)
    }
}
