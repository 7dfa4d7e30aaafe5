//! What a server goes by: the configuration and the keys that are valid, and what is not.

use crate::config::{Config, Key, Mistake, Paths, Settings, Usable, enabled};
use crate::engine::Rules;
use crate::kernel::Guard;
use oneknock_shared::name::ServiceName;
use std::net::IpAddr;

/// Settings, and how they came about.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The main file.
    pub config: Config,
    /// The keys that are loaded, in the order of their names.
    pub keys: Vec<Key>,
    /// Whether the guard is enabled; else it guards only while a trial lasts.
    pub enforcing: bool,
    /// Whether the main file is invalid, so that `config` is its last good copy.
    pub is_last_good: bool,
    /// Keys whose files are invalid, by these files' names.
    pub skipped_keys: Vec<String>,
    /// Everything that is wrong with the files.
    pub problems: Vec<Mistake>,
}

impl ServerSettings {
    /// For a start: by the last good copy of the main file where that is invalid, without the
    /// keys whose files are.
    pub fn load_for_start(paths: &Paths) -> Result<Self, Vec<Mistake>> {
        let Usable {
            settings: Settings { config, keys },
            mistakes,
            as_before,
            left_out,
        } = Usable::load(paths)?;
        Ok(Self {
            config,
            keys,
            enforcing: enabled::is_set(paths),
            is_last_good: as_before,
            skipped_keys: left_out,
            problems: mistakes,
        })
    }

    /// For a reload: nothing where the main file is invalid; without the keys whose files
    /// are.
    pub fn load_for_reload(paths: &Paths) -> Result<Self, Vec<Mistake>> {
        let loaded = Self::load_for_start(paths)?;
        if loaded.is_last_good {
            return Err(loaded.problems);
        }
        Ok(loaded)
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

    /// Makes this key, as its file has it now, one of those that are loaded. Where a secret of
    /// it is another key's too it is skipped, as nothing says which of the two is meant.
    pub fn put_key(&mut self, key: Key) -> Result<(), String> {
        self.remove_key(key.name.as_str());
        let secrets = |key: &Key| -> Vec<_> {
            let generations = key.generations.iter();
            generations.map(|g| g.secret.clone()).collect()
        };
        let services = &self.config.services;
        let is_unknown = |name: &&ServiceName| !services.iter().any(|s| s.name == **name);
        if let Some(name) = key.policy.services.iter().find(is_unknown) {
            let why = format!(
                "services: {name} is not a service of the configuration that is loaded; reload it first"
            );
            self.skip_key(key.name.as_str());
            return Err(why);
        }
        let own = secrets(&key);
        let mut others = self.keys.iter();
        let other = others.find(|other| secrets(other).iter().any(|one| own.contains(one)));
        if let Some(other) = other {
            let why = format!("key {} has a secret of key {} too", key.name, other.name);
            self.skip_key(key.name.as_str());
            return Err(why);
        }
        let at = self.keys.partition_point(|one| one.name < key.name);
        self.keys.insert(at, key);
        Ok(())
    }

    /// Makes the key of this name none of those that are loaded, or skipped.
    pub fn remove_key(&mut self, name: &str) {
        self.keys.retain(|one| one.name.as_str() != name);
        let file = format!("{name}.toml");
        self.skipped_keys.retain(|skipped| *skipped != file);
    }

    /// Makes the key of this name one that is skipped, since its file is invalid.
    pub fn skip_key(&mut self, name: &str) {
        self.remove_key(name);
        self.skipped_keys.push(format!("{name}.toml"));
    }
}
