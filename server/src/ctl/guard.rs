//! `oneknockctl guard`: the guard without the daemon.

use super::ask::ask;
use super::offline::kernel_failure;
use super::words::State;
use super::{Failure, look, say};
use crate::clock::Clock;
use crate::config::{self, Config, Paths, enabled};
use crate::control::answers::{Status, TrialStatus, whole_seconds};
use crate::control::protocol::Command;
use crate::kernel::{Kernel, KernelError, default_gateways, has_net_admin};
use std::fmt::Display;

/// Puts the guard up as the configuration wants it, enforcing where the marker says so; grants
/// that stand in it stay. A daemon that runs keeps it up itself. With mistakes in the
/// configuration it is as it was last in force.
pub fn put_up(paths: &Paths) -> Result<(), Failure> {
    if !has_net_admin() {
        let what = "the guard can be put up by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    // A file that cannot be read is a mistake like others: it must leave nothing open.
    let (config, mistakes) = config::main_or_last_good(paths).map_err(Failure::Mistakes)?;
    put_up_as(paths, &config)?;
    if mistakes.is_empty() {
        return Ok(());
    }
    let hint = format!("mend them, then: {} guard", paths.ctl());
    Err(Failure::AsItWas(mistakes, hint))
}

fn put_up_as(paths: &Paths, config: &Config) -> Result<(), Failure> {
    // One that does not answer may hang: then the kernel says below whether it has the guard.
    if let Ok(status) = ask::<Status>(paths, &Command::Status) {
        if status.enforcing {
            say("a running oneknockd keeps the guard up");
            return Ok(());
        }
        return Err(not_for_good(paths, status.trial.as_ref()));
    }
    let enforcing = enabled::is_set(paths);
    let failed = |error| kernel_failure("the guard is not up as configured", error);
    // Without its gateways the guard is installed all the same.
    let gateways = default_gateways().unwrap_or_else(|error| {
        say(format_args!(
            "warning: the default gateways are unknown: {error}"
        ));
        Vec::new()
    });
    let mut kernel = Kernel::open().map_err(failed)?;
    let guard = config.guard(enforcing, &gateways);
    let now = Clock::start().now();
    let installed = match kernel.install(&guard, None, now, true) {
        Ok(installed) => Some(installed),
        Err(KernelError::OwnedByAnother) => None,
        Err(error) => return Err(failed(error)),
    };
    let now = look::look().map_err(failed)?;
    match installed {
        // Nobody else can have taken it down; by itself it goes down where it is on trial.
        None if now.is_enforcing() => {
            say("a running oneknockd owns the guard: it is up");
        }
        None if enforcing => {
            return Err(on_trial_still(
                "a running oneknockd owns it, and cannot be asked",
            ));
        }
        _ if !enforcing => {
            let trial = now.trial.map(|trial| TrialStatus {
                left_seconds: whole_seconds(trial.remaining),
            });
            return Err(not_for_good(paths, trial.as_ref()));
        }
        Some(done)
            if done
                .before
                .as_ref()
                .is_some_and(|table| table.form.is_some()) =>
        {
            say("the guard was up, and is as configured");
        }
        _ => say("the guard is up"),
    }
    Ok(())
}

/// What is up shuts nothing, or not for good.
fn not_for_good(paths: &Paths, trial: Option<&TrialStatus>) -> Failure {
    let state = State::of(false, trial);
    say(state.text(paths));
    Failure::Answered(state.code())
}

/// A daemon that cannot be told keeps the guard on trial, whatever is configured.
pub fn on_trial_still(why: impl Display) -> Failure {
    let what = format!("the guard is on trial still: {why}");
    let hint =
        "restart oneknockd, and confirm again; where the trial is over by then, enable again";
    Failure::Failed(what, Some(hint.into()))
}
