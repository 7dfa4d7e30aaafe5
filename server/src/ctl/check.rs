//! `oneknockctl check`: every mistake at once, and what is no mistake and unwise.

use super::listening::{self, Listening};
use super::{Failure, check_readable, say, words};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Key, Loaded, Paths, Settings, enabled};
use crate::store;
use std::path::Path;

/// Looks at configuration, keys and state; changes nothing.
pub fn check(paths: &Paths) -> Result<(), Failure> {
    check_readable(paths)?;
    let file = paths.main_file();
    let listening = Listening::read()?;
    let (settings, mut found) = match Settings::load(paths) {
        Ok(settings) => {
            let taken = taken(&file, &settings.config, &listening);
            (Some(settings), taken)
        }
        Err(mistakes) => (None, mistakes),
    };
    found.extend(config::unreachable(paths));
    if let Some(settings) = settings.filter(|_| found.is_empty()) {
        let (services, keys) = (settings.config.services.len(), settings.keys.len());
        warn(paths, &file, &settings);
        warn_of_missteps(&file, &settings.config, &listening);
        say(format_args!(
            "no mistake found: services {services}, keys {keys}"
        ));
        return Ok(());
    }
    for mistake in &found {
        say(format_args!("{mistake}"));
    }
    warn_of_next_start(paths);
    if found.iter().any(|m| m.what.starts_with("sequence."))
        && let Some(proposal) = listening::proposal(paths, &listening)
    {
        say(format_args!(
            "hint: a good sequence, drawn at random just now: {proposal}"
        ));
    }
    let count = found.len();
    let hint = "a running daemon goes on with what it last read without a mistake";
    Err(Failure::Failed(
        format!("mistakes found: {count}"),
        file.exists().then(|| hint.into()),
    ))
}

/// What the daemon would make of the files as they are.
pub fn warn_of_next_start(paths: &Paths) {
    let Ok(loaded) = Loaded::at_start(paths) else {
        return say("warning: the next start of oneknockd fails, as long as this is not fixed");
    };
    if loaded.main_text.is_none() {
        say(
            "warning: oneknockd.toml is invalid: it is not reloaded, and the next start of oneknockd runs on the last good configuration",
        );
    }
    let skipped = loaded.skipped.iter().map(|key| key.file.as_str());
    let skipped: Vec<&str> = skipped.collect();
    if !skipped.is_empty() {
        say(format_args!(
            "warning: the next reload or start of oneknockd skips these keys, and nobody gets in by them: {}",
            skipped.join(", ")
        ));
    }
    if loaded.settings.keys.is_empty() && loaded.all_errors().next().is_some() {
        say("warning: the next start of oneknockd finds no valid key: nobody new can get in");
    }
}

/// Steps of the sequence that a service of this machine has.
fn taken(file: &Path, config: &Config, listening: &Listening) -> Vec<ConfigError> {
    let sequence = config.sequence.as_ref();
    let taken = sequence.map(|s| listening.mistakes(s)).unwrap_or_default();
    let mistake = |what| ConfigError {
        file: file.into(),
        line: None,
        what,
    };
    taken.into_iter().map(mistake).collect()
}

/// Ports that many use cost each of them a penalty.
fn warn_of_missteps(file: &Path, config: &Config, listening: &Listening) {
    let missteps = listening.missteps(config, &listening::outgoing());
    if !missteps.is_empty() {
        say(format_args!(
            "warning: {}: sequence.public: something here listens on {}: whoever connects there cannot walk the sequence for a while after; what is for everybody belongs into public",
            file.display(),
            missteps.join(", ")
        ));
    }
}

/// After a reload: what `check` would say of what was taken. Who may reload need not be one
/// who may read the keys.
pub fn warn_of_what_is_in_force(paths: &Paths) {
    if let (Ok(settings), Ok(listening)) = (Settings::load(paths), Listening::read()) {
        let file = paths.main_file();
        warn(paths, &file, &settings);
        warn_of_missteps(&file, &settings.config, &listening);
    }
}

fn warn(paths: &Paths, file: &Path, settings: &Settings) {
    let config = &settings.config;
    for warning in config.warnings() {
        say(format_args!("warning: {}: {warning}", file.display()));
    }
    if let Some(sequence) = &config.sequence {
        let may = |key: &&Key| key.policy.services.contains(&sequence.service);
        for key in settings.keys.iter().filter(may) {
            if !sequence.is_for(&key.policy) {
                say(format_args!(
                    "warning: key {}: {}",
                    key.name,
                    words::NO_SEQUENCE
                ));
            }
        }
    }
    if !settings.has_key_at(Clock::start().now().wall) {
        say(format_args!("warning: {}", words::NO_KEY));
    }
    if !enabled::is_set(paths) {
        let state = words::State::NotEnforcing.text(paths);
        say(format_args!("warning: {state}"));
    }
    for stray in config::strays(paths) {
        let name = config::one_line(&stray.display().to_string());
        say(format_args!(
            "warning: {name}: is never read: a key file's name ends in .toml; it may hold a secret"
        ));
    }
    // No command for root: the daemon's user could put anything in their place meanwhile.
    for loose in store::insecure_paths(&paths.state()) {
        let (path, what) = (loose.path.display(), loose.what());
        say(format_args!(
            "warning: {path}: {what}; the next start of oneknockd gives it mode {:04o}",
            loose.wanted
        ));
    }
}
