//! The guard in the kernel: installed, checked, and repaired where another program has changed
//! it.

use super::Daemon;
use crate::kernel::{GuardMode, KernelError, Monitor, OptionalPart, can_be_exclusive};
use crate::observers::{self, Level};

impl Daemon {
    /// Installs the guard as the settings and the engine want it. What the kernel holds
    /// besides follows: selectors, steps of rolling sequences.
    pub(super) fn install(&mut self) -> Result<(), KernelError> {
        let trial = self.trial_remaining();
        let installed = self.server.install(trial)?;
        self.follow_mode();
        for (part, why) in &installed.skipped {
            let event = match part {
                OptionalPart::Prefilter => "no-prefilter",
                OptionalPart::Sequence => "no-port-sequence",
            };
            observers::say(Level::Warning, event, why);
        }
        self.restore_trial(trial);
        self.refill_prefilter();
        self.roll_again();
        Ok(())
    }

    /// In monitored mode other programs' changes wake the loop; in exclusive mode there are
    /// none. Where they cannot be listened for, the look once a second finds them.
    fn follow_mode(&mut self) {
        if self.server.kernel.is_exclusive() {
            self.monitor = None;
        } else if self.monitor.is_none() {
            match Monitor::start(self.server.kernel.port()) {
                Ok(monitor) => self.monitor = Some(monitor),
                Err(error) => observers::say(Level::Error, "guard-not-monitored", error),
            }
        }
    }

    /// Looks whether another program has changed the guard; if so, repairs it. It costs
    /// nothing in exclusive mode, and one question where no program has changed any table.
    pub(super) fn check_guard(&mut self) {
        let start = self.server.clock.now().mono;
        let what = match self.server.kernel.check_tampering() {
            Ok(None) => return,
            Ok(Some(what)) => what,
            Err(error) => error.to_string(),
        };
        let was_exclusive = self.server.kernel.is_exclusive();
        let result = self.install();
        let took = self.server.clock.now().mono.saturating_sub(start);
        match result {
            Ok(()) => {
                self.repair_error = None;
                let ms = took.as_millis();
                let line = format_args!("guard-repaired ms={ms} msg=\"{what}\"");
                observers::write(Level::Warning, line);
                if !was_exclusive {
                    self.end_gap_connections();
                }
            }
            Err(error) => {
                let error = Some(format!("another program changed it ({what}): {error}"));
                if self.repair_error != error {
                    observers::say(
                        Level::Error,
                        "guard-not-repaired",
                        error.as_deref().unwrap_or_default(),
                    );
                    self.repair_error = error;
                }
            }
        }
    }

    /// How the guard is kept from other programs, as the configuration calls it.
    pub(super) fn guard_mode(&self) -> &'static str {
        if self.server.kernel.is_exclusive() {
            "exclusive"
        } else {
            "monitored"
        }
    }

    /// Whether the guard is monitored although it is to be exclusive, and could be: a table
    /// becomes one that can be exclusive only when it is made.
    pub(super) fn exclusive_pending(&self) -> bool {
        let is_wanted = self.server.settings.config.guard == GuardMode::Exclusive;
        is_wanted && !self.server.kernel.is_exclusive() && can_be_exclusive()
    }

    /// Looks which default gateways there are: an interface or a route may have come since.
    pub(super) fn see_routes(&mut self) {
        match self.routes.take() {
            None => {}
            Some(Ok(gateways)) => self.server.set_gateways(gateways),
            // An error comes once; the gateways that were known stay.
            Some(Err(unknown)) => {
                let what = format_args!("a new default gateway may be admitted: {unknown}");
                observers::say(Level::Error, "gateways-unknown", what);
                let mut gateways = self.server.engine.gateways().to_vec();
                gateways.extend(unknown.known);
                gateways.sort_unstable();
                gateways.dedup();
                self.server.set_gateways(gateways);
            }
        }
    }
}
