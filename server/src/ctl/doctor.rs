//! `oneknockctl doctor`.

use super::ask::{NoAnswer, ask, walks_in};
use super::key::Folder;
use super::{Failure, check, print, say, words};
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
    let mut findings = Vec::new();
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
    // In this order: without a key the guard does not go up, and it goes up with the daemon.
    let is_down = is_down();
    findings.extend(guard(dir, &config, is_down));
    findings.extend(daemon(dir, is_down));
    findings.extend(doctor::examine(&config));
    for finding in &findings {
        print(&finding.to_string())?;
    }
    if !mistakes.is_empty() {
        check::warn_of_next_start(dir);
        return Err(Failure::Mistakes(mistakes));
    }
    let troubles = findings.iter().filter(|found| found.is_trouble).count();
    if troubles > 0 {
        return Err(Failure::Failed(format!("troubles found: {troubles}"), None));
    }
    say("no trouble found");
    Ok(())
}

fn daemon(dir: &Path, is_down: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match ask::<Status>(dir, &Command::Status) {
        Ok(status) => {
            say(format_args!(
                "the daemon runs, and its guard is {}",
                status.guard
            ));
            findings.extend(status.waits_for_clock.then(|| {
                let (what, mend) = words::WAITS.split_once("; ").unwrap_or_default();
                Finding::trouble(what, mend)
            }));
            findings.extend((!status.left_out.is_empty()).then(|| {
                let files = status.left_out.join(", ");
                Finding::trouble(
                    format!("nobody gets in by the keys of {files}: these had mistakes when the daemon started"),
                    "where \"oneknockctl check\" finds none any more: oneknockctl reload",
                )
            }));
            findings.extend(status.stays_watched.then(|| {
                Finding::trouble(
                    "the guard is watched, and not owned as configured: it was put up so, and stays so until it is taken down; another program's \"flush ruleset\" takes it down for a moment",
                    "when its ports may be open for a moment: oneknockctl teardown; systemctl start oneknockd",
                )
            }));
        }
        Err(NoAnswer::NoDaemon(_)) if is_down => findings.push(Finding::trouble(
            "no daemon runs: nobody could get in",
            format!("{} enable --confirm 10m", ctl_command(dir)),
        )),
        Err(NoAnswer::NoDaemon(_)) => findings.push(Finding::trouble(
            if walks_in() {
                "no daemon runs: nobody new gets in but by the port sequence"
            } else {
                "no daemon runs: nobody new gets in"
            },
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
            findings.push(Finding::trouble(
                format!("the daemon cannot be asked: {why}"),
                "systemctl restart oneknockd; its log may say why",
            ));
        }
    }
    findings
}

fn no_key(dir: &Path, settings: &Settings) -> Option<Finding> {
    (!settings.has_key_at(Folder::now())).then(|| {
        let mend = format!("{} key add laptop", ctl_command(dir));
        Finding::trouble(words::NO_KEY, mend)
    })
}

fn is_down() -> bool {
    let looked = Firewall::open().and_then(|mut firewall| firewall.is_in_force());
    matches!(looked, Ok(false))
}

fn guard(dir: &Path, config: &Config, is_down: bool) -> Option<Finding> {
    let ctl = ctl_command(dir);
    let down = "everybody gets to the guarded ports whom the machine's own rules let in";
    let enable = || format!("{ctl} enable --confirm 10m");
    match (config.on_trial, is_down) {
        (false, false) => None,
        (false, true) => {
            let what = format!("the guard is down: {down}");
            Some(Finding::trouble(what, enable()))
        }
        (true, true) => {
            let what =
                format!("no trial goes on, and none was confirmed: the guard is down: {down}");
            Some(Finding::trouble(what, enable()))
        }
        (true, false) => Some(Finding::note(
            "the guard is on trial, and not confirmed: it goes down by itself, and nothing is guarded after the machine's next start",
            format!("{ctl} confirm, in a session that knocked its way in meanwhile"),
        )),
    }
}
