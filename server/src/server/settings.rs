//! What a server goes by: the configuration and the keys that are valid, and what is not.

use crate::config::{Config, ConfigError, Key, Loaded, Paths, Settings, SkippedKey, enabled};
use crate::engine::Rules;
use crate::kernel::Guard;
use oneknock_shared::name::KeyName;
use std::net::IpAddr;
use std::path::Path;

/// Settings, and how they came about.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The main file.
    pub config: Config,
    /// The keys that are loaded, in the order of their names.
    pub keys: Vec<Key>,
    /// Whether the guard is enabled; else it guards only while a trial lasts.
    pub enforcing: bool,
    /// The main file's text; none where it is invalid, so that `config` is its last good copy.
    pub main_text: Option<String>,
    /// Keys that are not loaded, since their files are invalid.
    pub skipped_keys: Vec<SkippedKey>,
    /// What else is wrong with the files.
    pub errors: Vec<ConfigError>,
    /// Names in the files that have no meaning there.
    pub warnings: Vec<ConfigError>,
}

impl ServerSettings {
    /// For a start: see [`Loaded::at_start`].
    pub fn load_for_start(paths: &Paths) -> Result<Self, Vec<ConfigError>> {
        Ok(Self::of(paths, Loaded::at_start(paths)?))
    }

    /// For a reload: see [`Loaded::for_reload`].
    pub fn load_for_reload(paths: &Paths) -> Result<Self, Vec<ConfigError>> {
        Ok(Self::of(paths, Loaded::for_reload(paths)?))
    }

    fn of(paths: &Paths, loaded: Loaded) -> Self {
        let Settings { config, keys } = loaded.settings;
        Self {
            config,
            keys,
            enforcing: enabled::is_set(paths),
            main_text: loaded.main_text,
            skipped_keys: loaded.skipped,
            errors: loaded.errors,
            warnings: loaded.warnings,
        }
    }

    /// Everything that is wrong, of the main file first.
    pub fn all_errors(&self) -> impl Iterator<Item = &ConfigError> {
        let of_keys = self.skipped_keys.iter().flat_map(|key| &key.errors);
        self.errors.iter().chain(of_keys)
    }

    /// The files of the keys that are not loaded.
    #[must_use]
    pub fn skipped_files(&self) -> Vec<String> {
        let files = self.skipped_keys.iter().map(|key| key.file.clone());
        files.collect()
    }

    /// The rules by which the engine is to judge.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.config.rules(&self.keys)
    }

    /// The guard, on a machine with these default gateways.
    #[must_use]
    pub fn guard(&self, gateways: &[IpAddr]) -> Guard {
        self.config.guard(self.enforcing, gateways)
    }

    /// Loads this key, in the place of one of its name.
    pub fn put_key(&mut self, key: Key) {
        self.remove_key(&key.name);
        let at = self.keys.partition_point(|one| one.name < key.name);
        self.keys.insert(at, key);
    }

    /// Drops the key of this name: it is neither loaded nor skipped.
    pub fn remove_key(&mut self, name: &KeyName) {
        self.keys.retain(|one| one.name != *name);
        let file = format!("{name}.toml");
        self.skipped_keys.retain(|skipped| skipped.file != file);
    }

    /// Skips the key of this name, since its file is invalid.
    pub fn skip_key(&mut self, name: &KeyName, file: &Path, errors: Vec<ConfigError>) {
        self.remove_key(name);
        self.skipped_keys.push(SkippedKey::new(file, errors));
    }
}
