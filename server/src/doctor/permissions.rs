//! Files that the daemon cannot read, that it never reads, or that others can.

use super::{Check, Finding, Subject};
use crate::{config, store};

/// See the module.
pub struct Permissions;

impl Check for Permissions {
    fn code(&self) -> &'static str {
        "E-PERMISSIONS"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let mut found: Vec<Finding> = config::unreachable(subject.paths)
            .iter()
            .map(Finding::error)
            .collect();
        found.extend(config::strays(subject.paths).iter().map(|stray| {
            let name = stray.display();
            Finding::warning(format!(
                "{name} is never read, and may hold a secret: the name of a key's file ends in .toml"
            ))
        }));
        // No command for root to copy: the daemon's user owns the directory.
        let insecure = store::insecure_paths(&subject.paths.state());
        found.extend(insecure.iter().map(|one| {
            let (path, what) = (one.path.display(), one.what());
            Finding::warning(format!(
                "{path}: {what}, and should have mode {:04o}",
                one.wanted
            ))
        }));
        found
    }
}
