//! A guard on trial: begun and confirmed from outside, ended by the kernel.

use super::Daemon;
use crate::config::enabled;
use crate::control::answers::{Enforced, ErrorBody, TrialStarted, TrialStatus, whole_seconds};
use crate::engine::Now;
use crate::observers::{self, Level};
use std::time::Duration;

/// Until when a trial goes on, since boot; the kernel ends it by itself.
#[derive(Debug, Default)]
pub(super) struct Trial(Option<Duration>);

impl Daemon {
    /// Enforces for so long, where the guard has the form of a trial.
    pub(super) fn start_trial(
        &mut self,
        time: Duration,
        uid: u32,
    ) -> Result<TrialStarted, ErrorBody> {
        let is_enabled = enabled::is_set(&self.server.paths);
        if self.server.settings.enforcing && is_enabled {
            return Err(ErrorBody::new("the guard enforces already"));
        }
        if self.server.settings.enforcing {
            self.try_again(time)?;
        }
        // What is connected now was let in by no guard, and is never ended for it.
        self.snapshot_connections();
        let begun = self.server.kernel.begin_trial(time);
        begun
            .map_err(|error| ErrorBody::new(format_args!("the guard is not enforcing: {error}")))?;
        self.trial = Trial(Some(self.server.clock.now().mono.saturating_add(time)));
        let seconds = time.as_secs();
        observers::write(
            Level::Info,
            format_args!("trial-started seconds={seconds} uid={uid}"),
        );
        Ok(TrialStarted {})
    }

    /// Puts a guard on trial that enforces, and whose marker was removed for it.
    fn try_again(&mut self, time: Duration) -> Result<(), ErrorBody> {
        self.check_guard();
        self.server.settings.enforcing = false;
        // The guard in its other form is installed with the trial.
        let until = self.server.clock.now().mono.saturating_add(time);
        self.trial = Trial(Some(until));
        self.install().map_err(|error| {
            (self.server.settings.enforcing, self.trial) = (true, Trial(None));
            ErrorBody::new(format_args!("not on trial: {error}"))
        })
    }

    /// Has the guard enforce, now that the marker says so.
    pub(super) fn enforce(&mut self, uid: u32) -> Result<Enforced, ErrorBody> {
        if !enabled::is_set(&self.server.paths) {
            let marker = self.server.paths.enabled();
            let what = format_args!("not enforcing: {} is missing", marker.display());
            return Err(ErrorBody::new(what));
        }
        if self.server.settings.enforcing {
            return Ok(Enforced {});
        }
        // What others did is repaired as it was.
        self.check_guard();
        self.server.settings.enforcing = true;
        if let Err(error) = self.install() {
            self.server.settings.enforcing = false;
            return Err(ErrorBody::new(format_args!("not enforcing: {error}")));
        }
        // All that are connected were let in by the guard as it was.
        self.snapshot_connections();
        self.trial = Trial(None);
        observers::write(Level::Info, format_args!("enforcing uid={uid}"));
        Ok(Enforced {})
    }

    /// Takes over a trial that an earlier run has left in the kernel.
    pub(super) fn load_trial(&mut self) {
        if self.server.settings.enforcing {
            self.trial = Trial(None);
            return;
        }
        let now = self.server.clock.now().mono;
        match self.server.kernel.trial() {
            Ok(Some(trial)) => {
                self.trial = Trial(Some(now.saturating_add(trial.remaining)));
                let seconds = whole_seconds(trial.remaining);
                observers::write(Level::Info, format_args!("on-trial seconds={seconds}"));
            }
            Ok(None) => {
                self.trial = Trial(None);
                let ctl = self.server.paths.ctl();
                let what =
                    format_args!("the guard drops nothing; hint: {ctl} enable --confirm 10m");
                observers::say(Level::Warning, "not-enforcing", what);
            }
            Err(error) => observers::say(Level::Error, "trial-unknown", error),
        }
    }

    /// What remains of a trial that goes on, for a guard that does not enforce for good.
    pub(super) fn trial_remaining(&self) -> Option<Duration> {
        let Trial(Some(until)) = self.trial else {
            return None;
        };
        let remaining = until.saturating_sub(self.server.clock.now().mono);
        (!self.server.settings.enforcing && !remaining.is_zero()).then_some(remaining)
    }

    /// Another program may have ended it in the kernel, in a set that has stayed.
    pub(super) fn restore_trial(&mut self, remaining: Option<Duration>) {
        let Some(remaining) = remaining else { return };
        let kernel = &mut self.server.kernel;
        let restored = match kernel.trial() {
            Ok(None) => kernel.begin_trial(remaining),
            other => other.map(drop),
        };
        if let Err(error) = restored {
            observers::say(Level::Error, "trial-not-restored", error);
        }
    }

    /// Logs once that a trial has ended.
    pub(super) fn report_trial_end(&mut self, now: Now) {
        if self.trial.0.is_some_and(|until| until <= now.mono) {
            self.trial = Trial(None);
            let what = "the trial has ended without a confirmation; the guard drops nothing";
            observers::say(Level::Warning, "not-enforcing", what);
        }
    }

    /// The trial, where one goes on.
    pub(super) fn trial_status(&self, now: Now) -> Option<TrialStatus> {
        let left = self.trial.0?.checked_sub(now.mono)?;
        (!self.server.settings.enforcing).then(|| TrialStatus {
            left_seconds: whole_seconds(left),
        })
    }
}
