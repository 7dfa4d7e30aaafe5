//! `oneknockctl check` and `oneknockctl doctor`: findings, printed as text or as JSON.

use super::ask::{NoAnswer, ask};
use super::output::{print, print_json, say};
use super::{Exit, Failure, check_readable, look};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Paths, Settings};
use crate::control::answers::Status;
use crate::control::protocol::Command;
use crate::doctor::{
    self, DaemonAnswer, FILES, Finding, GuardFacts, Listeners, MACHINE, Severity, Subject,
};
use serde_json::json;

/// What the files say.
struct Files {
    errors: Vec<ConfigError>,
    config: Option<Config>,
    settings: Option<Settings>,
    listeners: Listeners,
}

impl Files {
    fn read(paths: &Paths) -> Self {
        // Where the kernel does not say what listens, nothing does.
        let listeners = Listeners::read().unwrap_or_default();
        match Settings::load(paths) {
            Ok(settings) => Self {
                errors: Vec::new(),
                config: Some(settings.config.clone()),
                settings: Some(settings),
                listeners,
            },
            Err(errors) => Self {
                errors,
                config: config::main_or_last_good(paths)
                    .ok()
                    .map(|(config, _)| config),
                settings: None,
                listeners,
            },
        }
    }

    fn subject<'a>(&'a self, paths: &'a Paths) -> Subject<'a> {
        Subject {
            paths,
            errors: &self.errors,
            config: self.config.as_ref(),
            settings: self.settings.as_ref(),
            listeners: &self.listeners,
            now: Clock::start().now().wall,
            guard: None,
            daemon: None,
        }
    }
}

/// Looks at configuration, keys and state.
pub fn check(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    check_readable(paths)?;
    let loaded = Files::read(paths);
    report(&doctor::run(FILES, &loaded.subject(paths)), as_json)
}

/// Looks at the machine too.
pub fn doctor(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    check_readable(paths)?;
    if !nix::unistd::geteuid().is_root() {
        let what = "only root can examine a machine";
        return Err(Failure::needs_root(what.into()));
    }
    let loaded = Files::read(paths);
    let daemon = match ask::<Status>(paths, &Command::Status) {
        Ok(status) => DaemonAnswer::Status(Box::new(status)),
        Err(NoAnswer::NoDaemon(_)) => DaemonAnswer::NotRunning,
        Err(no) => DaemonAnswer::Unknown(Failure::from(no).to_string()),
    };
    let facts = look::look().ok().map(|look| GuardFacts {
        is_enforcing: look.is_enforcing(),
        is_guarding: look.is_guarding(),
        has_fixed_sequence: look.has_fixed_sequence(),
    });
    let subject = Subject {
        guard: facts,
        daemon: Some(&daemon),
        ..loaded.subject(paths)
    };
    report(&doctor::run(&[FILES, MACHINE].concat(), &subject), as_json)
}

/// After a reload: what `check` finds in what was loaded, for those who may read it.
pub fn warn_of_findings(paths: &Paths) {
    let loaded = Files::read(paths);
    if loaded.settings.is_some() {
        let found = doctor::run(FILES, &loaded.subject(paths));
        found.iter().for_each(say);
    }
}

/// Findings are the answer.
fn report(found: &[Finding], as_json: bool) -> Result<(), Failure> {
    let errors = found.iter().filter(|finding| finding.is_error());
    let is_invalid = errors.clone().any(|finding| finding.code == "E-CONFIG");
    if as_json {
        print_json(&json!({ "findings": found }))?;
    } else {
        for finding in found {
            print(&finding.to_string())?;
        }
        let count = |severity| found.iter().filter(|one| one.severity == severity).count();
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        print(&format!("errors: {errors}, warnings: {warnings}"))?;
    }
    match errors.count() {
        0 => Ok(()),
        _ if is_invalid => Err(Failure::Ended(Exit::InvalidConfig)),
        _ => Err(Failure::Ended(Exit::Failed)),
    }
}
