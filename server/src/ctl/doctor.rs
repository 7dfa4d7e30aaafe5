//! `oneknockctl doctor`.

use super::ask::{NoAnswer, ask};
use super::key::Folder;
use super::{Failure, print};
use crate::config::{self, Config, Settings, ctl_command};
use crate::control::answers::Status;
use crate::control::protocol::Command;
use crate::doctor::{self, Finding};
use crate::files::Owner;
use crate::firewall::Firewall;
use std::path::Path;

/// Says what is found; a trouble is a failure.
pub fn examine(dir: &Path) -> Result<(), Failure> {
    super::check_readable(dir)?;
    if !nix::unistd::geteuid().is_root() {
        let what = "a machine is examined by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    let mut findings = Vec::from_iter(daemon(dir));
    // With a mistake the machine is examined all the same, by what is in force.
    let (config, mut mistakes) = match Settings::load(dir) {
        Ok(settings) => {
            findings.extend(no_key(dir, &settings));
            (settings.config, Vec::new())
        }
        Err(mistakes) => {
            let read = config::load_config(dir, Owner::wanted());
            match read.ok().or_else(|| config::kept_config(dir)) {
                Some(config) => (config, mistakes),
                None => return Err(Failure::Mistakes(mistakes)),
            }
        }
    };
    mistakes.extend(config::unreachable(dir));
    for warning in config.warnings() {
        print(&format!("note: oneknockd.toml: {warning}"))?;
    }
    findings.extend(guard_is_down(dir, &config));
    findings.extend(doctor::examine(&config));
    for finding in &findings {
        print(&finding.to_string())?;
    }
    if !mistakes.is_empty() {
        return Err(Failure::Mistakes(mistakes));
    }
    let troubles = findings.iter().filter(|found| found.is_trouble).count();
    if troubles > 0 {
        return Err(Failure::Failed(format!("troubles found: {troubles}"), None));
    }
    eprintln!("no trouble found");
    Ok(())
}

fn daemon(dir: &Path) -> Option<Finding> {
    match ask::<Status>(dir, &Command::Status) {
        Ok(status) => {
            eprintln!("the daemon runs, and its guard is {}", status.guard);
            status.stays_watched.then(|| {
                Finding::trouble(
                    "the guard is watched, and not owned as configured: it was put up so, and stays so until it is taken down; another program's \"flush ruleset\" takes it down for a moment",
                    "when its ports may be open for a moment: oneknockctl teardown; systemctl start oneknockd",
                )
            })
        }
        Err(NoAnswer::NoDaemon(_)) => Some(Finding::trouble(
            "no daemon runs: nobody new gets in",
            "systemctl start oneknockd; where it ends at once, its log says why",
        )),
        // One that hangs says nothing of the rest of the machine.
        Err(no) => {
            let why = match no.into() {
                Failure::Failed(why, _) | Failure::Usage(why, _) => why,
                Failure::Mistakes(mistakes) | Failure::AsItWas(mistakes, _) => {
                    format!("{} mistakes", mistakes.len())
                }
            };
            Some(Finding::trouble(
                format!("the daemon cannot be asked: {why}"),
                "systemctl restart oneknockd; its log may say why",
            ))
        }
    }
}

fn no_key(dir: &Path, settings: &Settings) -> Option<Finding> {
    (!settings.has_key_at(Folder::now())).then(|| {
        let mend = format!("{} key add laptop", ctl_command(dir));
        Finding::trouble(
            "there is no key, or none whose time is not over: nobody can knock",
            mend,
        )
    })
}

fn guard_is_down(dir: &Path, config: &Config) -> Option<Finding> {
    // Of one on trial it is known.
    let looked = Firewall::open().and_then(|mut firewall| firewall.is_in_force());
    (matches!(looked, Ok(false)) && !config.on_trial).then(|| {
        let what = "the guard is down: everybody gets to the guarded ports whom the machine's own rules let in";
        Finding::trouble(what, format!("{} enable", ctl_command(dir)))
    })
}
