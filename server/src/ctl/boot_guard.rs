//! `oneknockctl debug boot-guard`: the guard without the daemon.

use super::ask::ask;
use super::offline::kernel_failure;
use super::output::{say, warn};
use super::status::State;
use super::{Failure, look};
use crate::clock::Clock;
use crate::config::{self, Config, Paths, enabled};
use crate::control::answers::{Status, TrialStatus, whole_seconds};
use crate::control::protocol::Command;
use crate::kernel::{Kernel, KernelError, default_gateways, has_net_admin};
use std::fmt::Display;

/// Installs the guard as it is configured, enforcing where the marker says so; grants stay. A
/// daemon that runs keeps it installed itself. If the configuration is invalid, it is the last
/// good one.
pub fn install(paths: &Paths) -> Result<(), Failure> {
    if !has_net_admin() {
        let what = "only root can install the guard";
        return Err(Failure::needs_root(what.into()));
    }
    // A file that cannot be read is an error like others: it must leave nothing open.
    let (config, errors) = config::main_or_last_good(paths).map_err(Failure::Config)?;
    let done = install_as(paths, &config);
    if errors.is_empty() {
        return done;
    }
    for error in errors {
        say(format_args!("error: {error}"));
    }
    let hint = format!("{} check", paths.ctl());
    warn(
        "the guard is that of the last good configuration",
        Some(&hint),
    );
    done
}

fn install_as(paths: &Paths, config: &Config) -> Result<(), Failure> {
    // One that does not answer may hang: the kernel says below whether it has the guard.
    if let Ok(status) = ask::<Status>(paths, &Command::Status) {
        let state = State::of(status.enforcing, status.trial.as_ref());
        return report(paths, "oneknockd is running", state);
    }
    let is_enabled = enabled::is_set(paths);
    let failed = |error| kernel_failure("the guard is not installed as configured", error);
    // Without its gateways the guard is installed all the same.
    let gateways = default_gateways().unwrap_or_else(|error| {
        warn(
            format_args!("the default gateways are unknown: {error}"),
            None,
        );
        error.known
    });
    let mut kernel = Kernel::open().map_err(failed)?;
    let guard = config.guard(is_enabled, &gateways);
    let now = Clock::start().now();
    let by = match kernel.install(&guard, None, now, true) {
        Ok(_) => "installed the guard",
        // No other program can change it then; on trial it opens the ports by itself.
        Err(KernelError::OwnedByAnother) => "oneknockd is running",
        Err(error) => return Err(failed(error)),
    };
    let look = look::look().map_err(failed)?;
    let trial = look.trial.as_ref().map(|trial| TrialStatus {
        left_seconds: whole_seconds(trial.remaining),
    });
    match State::of(look.is_enforcing(), trial.as_ref()) {
        State::Enforcing => report(paths, by, State::Enforcing),
        _ if is_enabled => Err(on_trial_still("oneknockd owns it, and does not answer")),
        state => report(paths, by, state),
    }
}

fn report(paths: &Paths, by: &str, state: State) -> Result<(), Failure> {
    let (what, hint) = state.text(paths);
    if state == State::Enforcing {
        say(format_args!("{by}: {what}"));
        return Ok(());
    }
    warn(what, hint.as_deref());
    Err(Failure::Ended(state.exit()))
}

/// A daemon that does not answer keeps the guard on trial, whatever is configured.
pub fn on_trial_still(why: impl Display) -> Failure {
    let what = format!("the guard is still on trial: {why}");
    let hint = "systemctl restart oneknockd; then confirm again, or enable if the trial has ended";
    Failure::Failed(what, Some(hint.into()))
}
