//! `oneknockctl check`: every mistake at once, and what is no mistake and unwise.

use super::listening::{self, Listening};
use super::output::say;
use super::status::State;
use super::{Exit, Failure, check_readable, words};
use crate::clock::Clock;
use crate::config::{self, Config, Key, Mistake, Paths, Settings, Usable, enabled};
use crate::files;
use crate::store;
use std::path::Path;

/// Looks at configuration, keys and state; changes nothing.
pub fn check(paths: &Paths, _as_json: bool) -> Result<(), Failure> {
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
    say(format_args!("errors found: {count}"));
    Err(Failure::Ended(Exit::InvalidConfig))
}

/// With a mistake in oneknockd.toml alone a daemon starts as it was, as far as that was kept;
/// with one in a key's file without that key: what was in force of it is kept nowhere.
pub fn warn_of_next_start(paths: &Paths) {
    let Ok(usable) = Usable::load(paths) else {
        return say("warning: the next start of oneknockd fails, as long as this is not mended");
    };
    if usable.as_before {
        say(
            "warning: the next start of oneknockd goes by what was last in force, as long as oneknockd.toml is not mended",
        );
    }
    if !usable.left_out.is_empty() {
        say(format_args!(
            "warning: the next start of oneknockd leaves these keys out, and nobody gets in by them, as long as they are not mended: {}",
            usable.left_out.join(", ")
        ));
    }
}

/// Steps of the sequence that a service of this machine has.
fn taken(file: &Path, config: &Config, listening: &Listening) -> Vec<Mistake> {
    let sequence = config.sequence.as_ref();
    let taken = sequence.map(|s| listening.mistakes(s)).unwrap_or_default();
    let mistake = |what| Mistake {
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
        let (state, _) = State::NotEnforcing.text(paths);
        say(format_args!("warning: {state}"));
    }
    for stray in config::strays(paths) {
        let name = config::one_line(&stray.display().to_string());
        say(format_args!(
            "warning: {name}: is never read: a key file's name ends in .toml; it may hold a secret"
        ));
    }
    for loose in store::insecure_paths(&paths.state()) {
        let mend = format!(
            "chmod {:04o} {}",
            loose.wanted,
            files::shell_word(&loose.path)
        );
        let (path, what) = (loose.path.display(), loose.what());
        say(format_args!(
            "warning: {path}: {what}; mend it with: {mend}"
        ));
    }
}
