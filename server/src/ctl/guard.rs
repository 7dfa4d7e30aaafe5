//! `oneknockctl guard`: the guard without the daemon.

use super::ask::ask;
use super::words;
use super::{Failure, say};
use crate::config::{self, Config};
use crate::control::answers::{OnTrial, Status, whole_seconds};
use crate::control::protocol::Command;
use crate::files::Owner;
use crate::firewall::{self, Firewall, FirewallError};
use std::fmt::Display;
use std::path::Path;

/// Puts the guard up as the configuration wants it; grants that stand in it stay. A daemon
/// that runs keeps it up itself. With mistakes in the configuration it is as it was last in
/// force.
pub fn put_up(dir: &Path) -> Result<(), Failure> {
    if !firewall::has_net_admin() {
        let what = "the guard can be put up by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    // A file that cannot be read is a mistake like others: it must leave nothing open.
    let mistakes = match config::load_config(dir, Owner::wanted()) {
        Ok(config) => return put_up_as(dir, &config),
        Err(mistakes) => mistakes,
    };
    let Some(kept) = config::kept_config(dir) else {
        return Err(Failure::Mistakes(mistakes));
    };
    put_up_as(dir, &kept)?;
    let hint = format!("mend them, then: {} guard", config::ctl_command(dir));
    Err(Failure::AsItWas(mistakes, hint))
}

fn put_up_as(dir: &Path, config: &Config) -> Result<(), Failure> {
    // One that does not answer may hang: then the kernel says below whether it has the guard.
    if let Ok(status) = ask::<Status>(dir, &Command::Status) {
        match status.on_trial {
            Some(trial) => say(format_args!("{}", words::on_trial(&trial))),
            None => say("a running oneknockd keeps the guard up"),
        }
        return Ok(());
    }
    let failed = |error| Failure::new("the guard is not up as configured", error);
    let mut firewall = Firewall::open().map_err(failed)?;
    firewall.check_free(config).map_err(failed)?;
    let before = match firewall.put_up(config, true) {
        Ok(before) => Some(before),
        Err(FirewallError::Owned) => None,
        Err(error) => return Err(failed(error)),
    };
    match before {
        // Nobody else can have taken it down; by itself it goes down where it is on trial.
        None if firewall.stays_up().map_err(failed)? => {
            say("a running oneknockd owns the guard: it is up");
        }
        None if !config.on_trial => {
            return Err(on_trial_still(
                "a running oneknockd owns it, and cannot be asked",
            ));
        }
        _ if config.on_trial => {
            let left = firewall.trial().map_err(failed)?;
            let left_seconds = left.map_or(0, |trial| whole_seconds(trial.left));
            say(format_args!(
                "{}",
                words::on_trial(&OnTrial { left_seconds })
            ));
        }
        Some(before) if before.was_up => say("the guard was up, and is as configured"),
        _ => say("the guard is up"),
    }
    Ok(())
}

/// A daemon that cannot be told keeps the guard on trial, whatever is configured.
pub fn on_trial_still(why: impl Display) -> Failure {
    let what = format!("the guard is on trial still: {why}");
    let hint =
        "restart oneknockd, and confirm again; where the trial is over by then, enable again";
    Failure::Failed(what, Some(hint.into()))
}
