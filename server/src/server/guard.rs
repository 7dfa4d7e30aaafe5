//! The guard as the settings and the engine want it.

use super::{Server, Unwritten, note};
use crate::engine::Now;
use crate::kernel::{GuardForm, Installed, KernelError};
use std::net::IpAddr;
use std::time::Duration;

impl Server {
    /// Installs the guard with the grants that the engine knows, in one batch. On an error
    /// nothing of it is in the kernel. `trial` is what remains of a trial that goes on.
    pub fn install(&mut self, trial: Option<Duration>) -> Result<Installed, KernelError> {
        let now = self.clock.now();
        let mut guard = self.settings.guard(self.engine.gateways());
        guard.prefilter_open = self.prefilter_open;
        guard.trial = trial;
        let desired = Some(self.engine.desired_mut());
        let installed = self.kernel.install(&guard, desired, now, false)?;
        // A table that was made again lacks the blocked connections. The guard is in the
        // kernel whether they can be written or not: that is no failure of the install.
        self.unwritten = Unwritten {
            blocked: true,
            gateways: false,
        };
        self.write_unwritten(now);
        Ok(installed)
    }

    /// Has the port sequence never admit these default gateways, and the engine neither.
    pub fn set_gateways(&mut self, gateways: Vec<IpAddr>) {
        self.engine.set_gateways(gateways);
        self.unwritten.gateways = true;
        self.write_unwritten(self.clock.now());
    }

    /// Writes what the kernel lacks besides allow entries. What fails is logged once, and tried
    /// again with the next tick.
    pub(super) fn write_unwritten(&mut self, now: Now) {
        let mut failure = None;
        if self.unwritten.gateways {
            let config = &self.settings.config;
            let gateways = config.blocked_gateways(self.engine.gateways());
            let written = self.kernel.block_gateways(&gateways);
            self.unwritten.gateways = written.is_err();
            failure = written.err();
        }
        if self.unwritten.blocked {
            let written = self.blocked.write_all(now.mono, &mut self.kernel);
            self.unwritten.blocked = written.is_err();
            failure = failure.or(written.err());
        }
        note(&mut self.unwritten_error, "kernel-not-written", failure);
    }

    /// Whether the guard drops what is not admitted: it is enabled, or a trial goes on.
    pub fn is_enforcing(&mut self) -> Result<bool, KernelError> {
        let Some(table) = self.kernel.installed()? else {
            return Ok(false);
        };
        Ok(match table.form {
            None => false,
            Some(GuardForm::Enforcing) => true,
            Some(GuardForm::Trial) => self.kernel.trial()?.is_some(),
        })
    }
}
