//! Whether the kernel is new enough.

use super::{Check, Finding, Subject};
use nix::sys::utsname::uname;

/// Older ones have no sets of port ranges, which the guard's ruleset is made of.
const OLDEST: (u32, u32) = (5, 6);
/// From here on the kernel can keep other programs off a table.
const EXCLUSIVE: (u32, u32) = (6, 9);

/// See the module.
pub struct KernelVersion;

impl Check for KernelVersion {
    fn code(&self) -> &'static str {
        "E-KERNEL"
    }

    fn run(&self, _: &Subject<'_>) -> Vec<Finding> {
        let release = uname().map(|name| name.release().to_string_lossy().into_owned());
        // One that does not say is not called old.
        of(&release.unwrap_or_default()).into_iter().collect()
    }
}

fn of(release: &str) -> Option<Finding> {
    let found = numbers(release);
    let found = (*found.first()?, *found.get(1)?);
    let wanted = |(major, minor)| format!("Linux {major}.{minor} or later");
    if found < OLDEST {
        let what = format!("the kernel is too old for the guard: {release}");
        return Some(Finding::error(what).hint(wanted(OLDEST)));
    }
    (found < EXCLUSIVE).then(|| {
        let what = format!(
            "the guard is monitored: other programs can change it, and it is repaired within a second (kernel {release})"
        );
        Finding::note(what).hint(format!("{} keeps them from it", wanted(EXCLUSIVE)))
    })
}

/// The numbers that a version begins with.
pub fn numbers(version: &str) -> Vec<u32> {
    let from = version
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(version.len());
    let end = |c: char| !c.is_ascii_digit() && c != '.';
    let text = version[from..].split(end).next().unwrap_or_default();
    text.split('.').map_while(|n| n.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_number_by_number() {
        assert!(!of("6.1.0-30-amd64").unwrap().is_error());
        assert!(!of("5.6.0").unwrap().is_error());
        assert!(of("5.4.0-190-generic").unwrap().is_error());
        assert!(of("6.9.0").is_none());
        assert!(of("6.18.3+deb14").is_none());
        assert!(of("garbage").is_none());
    }
}
