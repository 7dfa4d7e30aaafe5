//! What of the guard is in the kernel, for who may see it.

use crate::kernel::{GuardForm, InstalledTable, Kernel, KernelError, TrialState};

/// What is in the kernel.
#[derive(Debug)]
pub struct KernelLook {
    /// The table, where there is one.
    pub table: Option<InstalledTable>,
    /// The trial that goes on.
    pub trial: Option<TrialState>,
    /// Whether the rules of `rules --sequence-only` are loaded.
    pub has_standalone_sequence: bool,
}

/// Looks.
pub fn look() -> Result<KernelLook, KernelError> {
    let mut kernel = Kernel::open()?;
    let table = kernel.installed()?;
    let form = table.as_ref().and_then(|table| table.form);
    let trial = match form {
        Some(GuardForm::Trial) => kernel.trial()?,
        _ => None,
    };
    Ok(KernelLook {
        table,
        trial,
        has_standalone_sequence: kernel.has_standalone_sequence()?,
    })
}

impl KernelLook {
    /// Whether a guard is installed, this server's or another's.
    pub fn is_installed(&self) -> bool {
        self.form().is_some()
    }

    /// Whether the guard enforces for good.
    pub fn is_enforcing(&self) -> bool {
        self.form() == Some(GuardForm::Enforcing)
    }

    /// Whether the guard enforces now: for good, or while a trial goes on.
    pub fn is_guarding(&self) -> bool {
        self.is_enforcing() || self.trial.is_some()
    }

    /// Whether a port sequence works that needs no daemon.
    pub fn has_fixed_sequence(&self) -> bool {
        self.table
            .as_ref()
            .is_some_and(|table| table.has_fixed_sequence)
    }

    /// Refuses where the guard of another server is installed.
    pub fn check_not_foreign(&self, server: &str) -> Result<(), KernelError> {
        let id = self
            .table
            .as_ref()
            .and_then(|table| table.server.as_deref());
        match id {
            Some(id) if id != server => Err(KernelError::ForeignGuard),
            _ => Ok(()),
        }
    }

    fn form(&self) -> Option<GuardForm> {
        self.table.as_ref()?.form
    }
}
