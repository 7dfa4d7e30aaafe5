//! Whether nft is there, and new enough to show the guard and to load others' rules.

use super::kernel::numbers;
use super::{Check, Finding, Subject, output_of};
use std::io;

/// Older ones do not understand all of the ruleset.
const OLDEST: [u32; 3] = [1, 0, 6];

/// See the module.
pub struct NftVersion;

impl Check for NftVersion {
    fn code(&self) -> &'static str {
        "E-NFT"
    }

    fn run(&self, _: &Subject<'_>) -> Vec<Finding> {
        let found = match output_of("nft", &["--version"]) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                let what = format!("the version of nft is not known: {why}");
                Some(Finding::error(what).hint("nft --version"))
            }
            version => of(&version.unwrap_or_default()),
        };
        found.into_iter().collect()
    }
}

fn of(version: &str) -> Option<Finding> {
    let [major, minor, patch] = OLDEST;
    let hint = format!("install nftables {major}.{minor}.{patch} or later");
    let found = numbers(version);
    if found.is_empty() {
        let what = "nft is not installed: the rules of others cannot be examined";
        return Some(Finding::warning(what).hint(hint));
    }
    let version = version.trim();
    let what = || format!("nft is too old to show the guard's ruleset: {version}");
    (found[..] < OLDEST[..]).then(|| Finding::warning(what()).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(of("nftables v1.0.6 (Lester Gooch #5)").is_none());
        assert!(of("nftables v1.1.1 (Commodore Bullmoose #2)").is_none());
        assert!(of("nftables v0.9.8 (E.D.S.)").is_some());
        assert!(of("").unwrap().message.contains("not installed"));
    }
}
