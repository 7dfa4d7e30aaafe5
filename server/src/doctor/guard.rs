//! Whether the guard enforces, and will after the next boot.

use super::{Check, Finding, Subject};
use crate::config::enabled;

/// What the kernel has of the guard.
#[derive(Debug, Clone, Copy)]
pub struct GuardFacts {
    /// Whether it enforces for good.
    pub is_enforcing: bool,
    /// Whether it enforces now: for good, or on trial.
    pub is_guarding: bool,
    /// Whether a port sequence works that needs no daemon.
    pub has_fixed_sequence: bool,
}

/// See the module.
pub struct Guard;

impl Check for Guard {
    fn code(&self) -> &'static str {
        "E-GUARD"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        if subject.config.is_none() {
            return Vec::new();
        }
        let (paths, ctl) = (subject.paths, subject.paths.ctl());
        let trial = format!("{ctl} enable --confirm 10m");
        let finding = match (enabled::is_set(paths), subject.guard) {
            (true, None) => None,
            (true, Some(guard)) if guard.is_guarding => None,
            (true, Some(_)) => Some(
                Finding::error("the guard is not installed: anyone can reach the guarded ports")
                    .hint(format!("{ctl} enable")),
            ),
            (false, None) => Some(
                Finding::warning("not enforcing: anyone can reach the guarded ports").hint(trial),
            ),
            (false, Some(guard)) if guard.is_enforcing => Some(
                Finding::error(format!(
                    "{} is missing: after a restart the guard does not enforce",
                    paths.enabled().display()
                ))
                .hint(format!("{ctl} enable")),
            ),
            (false, Some(guard)) if guard.is_guarding => Some(
                Finding::note("on trial: the guarded ports open again unless it is confirmed")
                    .hint(format!("in a new session from the client: {ctl} confirm")),
            ),
            (false, Some(_)) => Some(
                Finding::error("not enforcing: anyone can reach the guarded ports").hint(trial),
            ),
        };
        finding.into_iter().collect()
    }
}
