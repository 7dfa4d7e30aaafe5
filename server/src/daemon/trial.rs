//! The guard on trial: begun and confirmed from outside, ended by the kernel.

use super::Daemon;
use crate::control::answers::{Failed, OnTrial, TriedOut, whole_seconds};
use crate::firewall::FirewallError;
use crate::gate::Now;
use crate::log;
use std::time::Duration;

/// What to do about a guard that is not in force.
const AGAIN: &str = "the guard is down; \"oneknockctl enable\" puts it up";

impl Daemon {
    /// Shuts the doors for so long, where the guard is on trial.
    pub(super) fn try_out(&mut self, time: Duration, uid: u32) -> Result<TriedOut, Failed> {
        if !self.settings.config.on_trial {
            return Err(Failed::new("the guard is not on trial"));
        }
        // What is connected now was let in by no guard, and is never cut for it.
        self.remember(true);
        let begun = self.firewall.try_out(time);
        begun.map_err(|error| Failed::new(format_args!("the guard is down: {error}")))?;
        self.trial_until = Some(self.clock.now().mono.saturating_add(time));
        let seconds = time.as_secs();
        log::line(format_args!(
            "the guard is up for {seconds} s, on trial: asked for by uid={uid}"
        ));
        Ok(TriedOut {})
    }

    /// Takes up a trial that an earlier run has left in the kernel.
    pub(super) fn take_up_trial(&mut self) -> Result<(), FirewallError> {
        if !self.settings.config.on_trial {
            return Ok(());
        }
        let left = self.firewall.trial()?.map(|trial| trial.left);
        self.trial_until = left.map(|left| self.clock.now().mono.saturating_add(left));
        match left {
            Some(left) => log::line(format_args!(
                "the guard is on trial, for {} s still",
                whole_seconds(left)
            )),
            None => log::line(format_args!("on trial, and not confirmed: {AGAIN}")),
        }
        Ok(())
    }

    /// The guard was put up anew: a trial that goes on goes on in it.
    pub(super) fn go_on_with_trial(&mut self) -> Result<(), FirewallError> {
        if !self.settings.config.on_trial {
            self.trial_until = None;
        }
        let left = |until: Duration| until.checked_sub(self.clock.now().mono);
        match self.trial_until.and_then(left) {
            Some(left) if self.firewall.trial()?.is_none() => self.firewall.try_out(left),
            _ => Ok(()),
        }
    }

    /// Says once that a trial has ended.
    pub(super) fn see_trial(&mut self, now: Now) {
        if self.trial_until.is_some_and(|until| until <= now.mono) {
            self.trial_until = None;
            log::line(format_args!(
                "the trial has ended, and nobody has confirmed it: {AGAIN}"
            ));
        }
    }

    /// How the trial is, where there is one.
    pub(super) fn on_trial(&self, now: Now) -> Option<OnTrial> {
        let left = self.trial_until.and_then(|u| u.checked_sub(now.mono));
        let left_seconds = left.map_or(0, whole_seconds);
        self.settings
            .config
            .on_trial
            .then_some(OnTrial { left_seconds })
    }
}
