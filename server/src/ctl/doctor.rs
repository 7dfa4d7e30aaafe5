//! `oneknockctl doctor`.

use super::ask::{NoAnswer, ask};
use super::key::Folder;
use super::look;
use super::{Failure, check, print, say, words};
use crate::config::{self, Paths, Settings, enabled};
use crate::control::answers::Status;
use crate::control::protocol::Command;
use crate::doctor::{self, Finding};
use crate::files::Owner;

/// Says what is found; a trouble is a failure.
pub fn examine(paths: &Paths, _as_json: bool) -> Result<(), Failure> {
    super::check_readable(paths)?;
    if !nix::unistd::geteuid().is_root() {
        let what = "a machine is examined by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    let mut findings = Vec::new();
    // With a mistake the machine is examined all the same, by what is in force.
    let (config, mut mistakes) = match Settings::load(paths) {
        Ok(settings) => {
            findings.extend(no_key(paths, &settings));
            (settings.config, Vec::new())
        }
        Err(mistakes) => {
            let read = config::load_config(paths, Owner::wanted());
            match read.ok().or_else(|| config::kept_config(paths)) {
                Some(config) => (config, mistakes),
                None => return Err(Failure::Mistakes(mistakes)),
            }
        }
    };
    mistakes.extend(config::unreachable(paths));
    for warning in config.warnings() {
        print(&format!("note: oneknockd.toml: {warning}"))?;
    }
    // In this order: without a key the guard does not go up, and it goes up with the daemon.
    let is_down = is_down();
    let enforcing = enabled::is_set(paths);
    findings.extend(guard(paths, enforcing, is_down));
    findings.extend(daemon(paths, is_down));
    findings.extend(doctor::examine(&config, enforcing));
    for finding in &findings {
        print(&finding.to_string())?;
    }
    if !mistakes.is_empty() {
        check::warn_of_next_start(paths);
        return Err(Failure::Mistakes(mistakes));
    }
    let troubles = findings.iter().filter(|found| found.is_trouble).count();
    if troubles > 0 {
        return Err(Failure::Failed(format!("troubles found: {troubles}"), None));
    }
    say("no trouble found");
    Ok(())
}

fn daemon(paths: &Paths, is_down: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    match ask::<Status>(paths, &Command::Status) {
        Ok(status) => {
            say(format_args!(
                "the daemon runs, and its guard is {}",
                status.guard
            ));
            findings.extend(
                status
                    .waits_for_clock
                    .then(|| Finding::trouble(words::WAITS, words::waits_hint(paths))),
            );
            findings.extend((!status.skipped_keys.is_empty()).then(|| {
                let files = status.skipped_keys.join(", ");
                Finding::trouble(
                    format!("keys are not loaded, since their files are invalid: {files}"),
                    "oneknockctl check, then oneknockctl reload",
                )
            }));
            findings.extend(status.sync_error.map(|error| {
                Finding::trouble(
                    format!("the kernel does not hold every grant: {error}"),
                    "the daemon tries again; its log may say more",
                )
            }));
            findings.extend(status.exclusive_pending.then(|| {
                Finding::trouble(
                    "the guard is watched, and not owned as configured: it was put up so, and stays so until it is taken down; another program's \"flush ruleset\" takes it down for a moment",
                    "when its ports may be open for a moment: oneknockctl disable --until-reboot; systemctl start oneknockd",
                )
            }));
        }
        Err(NoAnswer::NoDaemon(_)) if is_down => findings.push(Finding::trouble(
            "no daemon runs: nobody could get in",
            format!("{} enable --confirm 10m", paths.ctl()),
        )),
        Err(NoAnswer::NoDaemon(_)) => findings.push(Finding::trouble(
            if look::look().is_ok_and(|look| look.has_fixed_sequence()) {
                "no daemon runs: nobody new gets in but by the port sequence"
            } else {
                "no daemon runs: nobody new gets in"
            },
            "systemctl start oneknockd; where it ends at once, its log says why",
        )),
        // One that hangs says nothing of the rest of the machine.
        Err(no) => {
            let why = match no.into() {
                Failure::Failed(why, _) => why,
                other => format!("{other:?}"),
            };
            findings.push(Finding::trouble(
                format!("the daemon cannot be asked: {why}"),
                "systemctl restart oneknockd; its log may say why",
            ));
        }
    }
    findings
}

fn no_key(paths: &Paths, settings: &Settings) -> Option<Finding> {
    (!settings.has_key_at(Folder::now())).then(|| {
        let mend = format!("{} key add laptop", paths.ctl());
        Finding::trouble(words::NO_KEY, mend)
    })
}

fn is_down() -> bool {
    look::look().is_ok_and(|look| !look.is_guarding())
}

fn guard(paths: &Paths, enforcing: bool, is_down: bool) -> Option<Finding> {
    let ctl = paths.ctl();
    let down = "everybody gets to the guarded ports whom the machine's own rules let in";
    let enable = || format!("{ctl} enable --confirm 10m");
    match (enforcing, is_down) {
        (true, false) => None,
        (true, true) => {
            let what = format!("the guard is down: {down}");
            Some(Finding::trouble(what, format!("{ctl} enable")))
        }
        (false, true) => {
            let what = format!("the guard does not enforce, and no trial goes on: {down}");
            Some(Finding::trouble(what, enable()))
        }
        (false, false) if stays_up() => {
            let what = format!(
                "the guard is up, and {} is missing: after the daemon's next start nothing is guarded",
                paths.enabled().display()
            );
            Some(Finding::trouble(what, format!("{ctl} enable")))
        }
        (false, false) => Some(Finding::note(
            "the guard is on trial, and not confirmed: it goes down by itself, and nothing is guarded after the machine's next start",
            format!("{ctl} confirm, in a session that knocked its way in meanwhile"),
        )),
    }
}

fn stays_up() -> bool {
    look::look().is_ok_and(|look| look.is_enforcing())
}
