//! Reading a configuration: for a check, which wants every error; for a start, which makes do
//! with what is good; for a reload, which takes a main file that is good or nothing.

use super::key_files::{Against, KeyFiles, SkippedKey, UnknownNames};
use super::key_files::{check_directory, loose_directory};
use super::main_file::{self, MainFile};
use super::{Config, ConfigError, Paths, Settings, config_error, is_absent, last_good};
use crate::files::{self, Access, Owner, Unsafe};
use std::io;

/// Settings that can be applied, and what is not in them.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, with the keys whose files are valid.
    pub settings: Settings,
    /// The other keys.
    pub skipped: Vec<SkippedKey>,
    /// What else is wrong.
    pub errors: Vec<ConfigError>,
    /// Names in the files that have no meaning there.
    pub warnings: Vec<ConfigError>,
    /// The main file's text; none where the configuration is the last good one.
    pub main_text: Option<String>,
}

impl Loaded {
    /// For a start: with an error in the main file by the last good one, and without any key
    /// where others could write into their directory. An error only where there is nothing to
    /// start with.
    pub fn at_start(paths: &Paths) -> Result<Self, Vec<ConfigError>> {
        let owner = Owner::wanted();
        let (main, errors, text) = match valid_main(paths, owner) {
            Ok(main) => {
                let text = Some(main.text.clone());
                (main, Vec::new(), text)
            }
            Err(errors) => match last_good::load(paths) {
                Some(main) if check_group(paths, &main.config).is_none() => (main, errors, None),
                _ => return Err(errors),
            },
        };
        let mut loaded = match check_directory(paths, owner) {
            Ok(()) => Self::with_keys(paths, main.config, UnknownNames::Warn),
            Err(error) => {
                let mut none = Self::with(main.config, KeyFiles::default());
                none.errors.push(error);
                none
            }
        };
        loaded.main_text = text;
        loaded.errors.splice(0..0, errors);
        loaded.warnings.splice(0..0, main.unknown);
        Ok(loaded)
    }

    /// For a reload: an error in the main file, or a directory of keys that others could write
    /// into, is a reason to take nothing.
    pub fn for_reload(paths: &Paths) -> Result<Self, Vec<ConfigError>> {
        let owner = Owner::wanted();
        let main = valid_main(paths, owner)?;
        if !main.unknown.is_empty() {
            return Err(main.unknown);
        }
        check_directory(paths, owner).map_err(|error| vec![error])?;
        let mut loaded = Self::with_keys(paths, main.config, UnknownNames::Refuse);
        loaded.main_text = Some(main.text);
        Ok(loaded)
    }

    fn with_keys(paths: &Paths, config: Config, unknown: UnknownNames) -> Self {
        let owner = Owner::wanted();
        let against = Against {
            services: Some(config.services.iter().map(|s| s.name.to_string()).collect()),
            sequence: config.sequence.as_ref(),
            unknown,
        };
        let files = KeyFiles::read(paths, owner, &against);
        let mut loaded = Self::with(config, files);
        loaded.errors.extend(loose_directory(paths, owner));
        loaded
    }

    fn with(config: Config, files: KeyFiles) -> Self {
        Self {
            settings: Settings {
                config,
                keys: files.loaded,
            },
            skipped: files.skipped,
            errors: Vec::new(),
            warnings: files.warnings,
            main_text: None,
        }
    }

    /// Everything that is wrong, of the main file first.
    pub fn all_errors(&self) -> impl Iterator<Item = &ConfigError> {
        let of_keys = self.skipped.iter().flat_map(|key| &key.errors);
        self.errors.iter().chain(of_keys)
    }
}

impl Settings {
    /// Reads a configuration. Where anything is wrong, all that is wrong.
    pub fn load(paths: &Paths) -> Result<Self, Vec<ConfigError>> {
        Self::load_for(paths, Owner::wanted())
    }

    pub(super) fn load_for(paths: &Paths, owner: Owner) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let main = load_main_for(paths, owner).map_err(|found| errors.extend(found));
        let is_new = is_absent(&paths.main_file()) && is_absent(&paths.keys());
        if main.is_err() && (is_new || paths.unusable().is_some()) {
            // Before init there is one error, not several.
            return Err(errors);
        }
        let config = main.ok().map(|main| {
            errors.extend(main.unknown);
            errors.extend(check_group(paths, &main.config));
            main.config
        });
        let against = Against {
            services: services(paths, owner),
            sequence: config.as_ref().and_then(|c| c.sequence.as_ref()),
            unknown: UnknownNames::Refuse,
        };
        errors.extend(loose_directory(paths, owner));
        let files = KeyFiles::read(paths, owner, &against);
        errors.extend(files.skipped.into_iter().flat_map(|key| key.errors));
        match config {
            Some(config) if errors.is_empty() => Ok(Self {
                config,
                keys: files.loaded,
            }),
            _ => Err(errors),
        }
    }
}

/// Reads the main file alone.
pub fn load_main(paths: &Paths) -> Result<MainFile, Vec<ConfigError>> {
    load_main_for(paths, Owner::wanted())
}

/// The main file; where it is invalid the last good one, with what is wrong.
pub fn main_or_last_good(paths: &Paths) -> Result<(Config, Vec<ConfigError>), Vec<ConfigError>> {
    let errors = match load_main(paths) {
        Ok(main) => return Ok((main.config, Vec::new())),
        Err(errors) => errors,
    };
    match last_good::load(paths) {
        Some(main) => Ok((main.config, errors)),
        None => Err(errors),
    }
}

fn load_main_for(paths: &Paths, owner: Owner) -> Result<MainFile, Vec<ConfigError>> {
    if let Some(error) = paths.unusable() {
        return Err(vec![error]);
    }
    let path = paths.main_file();
    let text = files::read(&path, Access::WrittenOnlyBy(owner)).map_err(|error| {
        let ctl = paths.ctl();
        vec![if is_absent(&path) {
            let fix = match last_good::load(paths) {
                Some(_) => format!("the last good copy: {ctl} init --restore"),
                None => format!("make it with: {ctl} init --host HOST"),
            };
            config_error(&path, format!("is not there; {fix}"))
        } else if matches!(&error, Unsafe::Io(e) if e.kind() == io::ErrorKind::PermissionDenied) {
            config_error(
                &path,
                format!("{error}; as root \"{ctl} check\" says what to do"),
            )
        } else {
            config_error(&path, error)
        }]
    })?;
    main_file::read(&path, &text)
}

/// A main file that a daemon can go by.
fn valid_main(paths: &Paths, owner: Owner) -> Result<MainFile, Vec<ConfigError>> {
    let main = load_main_for(paths, owner)?;
    match check_group(paths, &main.config) {
        Some(error) => Err(vec![error]),
        None => Ok(main),
    }
}

/// The services of the main file, also where that is invalid, so that all errors are found at
/// once. What is wrong with the file itself has been said.
fn services(paths: &Paths, owner: Owner) -> Option<Vec<String>> {
    let text = files::read(&paths.main_file(), Access::WrittenOnlyBy(owner)).ok()?;
    let table = text.parse::<toml::Table>().ok()?;
    let services = table.get("service")?.as_array()?.iter();
    let names = services.filter_map(|service| service.get("name")?.as_str());
    Some(names.map(str::to_owned).collect())
}

fn check_group(paths: &Paths, config: &Config) -> Option<ConfigError> {
    let group = config.control_group.as_ref()?;
    let what = match files::group_id(group) {
        Ok(Some(_)) => return None,
        Ok(None) => format!(
            "control_group: there is no group {group}; make it with: groupadd --system {group}"
        ),
        Err(error) => format!("control_group: {group}: {error}"),
    };
    Some(config_error(&paths.main_file(), what))
}
