//! The guard as the settings and the engine want it.

use super::Server;
use crate::kernel::{GuardForm, Installed, KernelError};
use std::net::IpAddr;

impl Server {
    /// Installs the guard with the grants that the engine knows, in one batch. On an error
    /// nothing of it is in the kernel.
    pub fn install(&mut self) -> Result<Installed, KernelError> {
        let now = self.clock.now();
        let mut guard = self.settings.guard(self.engine.gateways());
        guard.prefilter_open = self.prefilter_open;
        let desired = Some(self.engine.desired_mut());
        let installed = self.kernel.install(&guard, desired, now, false)?;
        // A table that was made again lacks them.
        self.blocked.write_all(now.mono, &mut self.kernel)?;
        Ok(installed)
    }

    /// Has the port sequence never admit these default gateways, and the engine neither.
    pub fn set_gateways(&mut self, gateways: Vec<IpAddr>) {
        self.engine.set_gateways(gateways);
        let blocked = self
            .settings
            .config
            .blocked_gateways(self.engine.gateways());
        let result = self.kernel.block_gateways(&blocked);
        self.note_sync(result);
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
