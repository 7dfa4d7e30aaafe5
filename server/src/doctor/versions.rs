//! The kernel and nft: whether they are new enough, and for what.

use super::{Finding, said};
use nix::sys::utsname::uname;
use std::io;

/// Older ones have no sets of port ranges, which the guard's ruleset is made of.
const KERNEL: (u32, u32) = (5, 6);
/// From here on the kernel can give a table to the daemon alone.
const OWNING_KERNEL: (u32, u32) = (6, 9);
/// Older ones do not understand all of the ruleset.
const NFT: [u32; 3] = [1, 0, 6];

/// What is found.
pub fn examine() -> Vec<Finding> {
    let kernel = old_kernel(&release());
    let nft = match said("nft", &["--version"]) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Some(Finding::trouble(
            format!("nft cannot be asked for its version: {why}"),
            "nft --version",
        )),
        said => old_nft(&said.unwrap_or_default()),
    };
    kernel.into_iter().chain(nft).collect()
}

fn release() -> String {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    // One that does not say is not called old.
    release.unwrap_or_default()
}

fn kernel(release: &str) -> Option<(u32, u32)> {
    let found = numbers(release);
    Some((*found.first()?, *found.get(1)?))
}

/// The numbers that a version begins with.
fn numbers(version: &str) -> Vec<u32> {
    let from = version
        .find(|c: char| c.is_ascii_digit())
        .unwrap_or(version.len());
    let end = |c: char| !c.is_ascii_digit() && c != '.';
    let text = version[from..].split(end).next().unwrap_or_default();
    text.split('.').map_while(|n| n.parse().ok()).collect()
}

fn old_kernel(release: &str) -> Option<Finding> {
    let found = kernel(release)?;
    if found < KERNEL {
        let (major, minor) = KERNEL;
        return Some(Finding::trouble(
            format!("the kernel is too old for the guard's ruleset: {release}"),
            format!("use Linux {major}.{minor} or later"),
        ));
    }
    (found < OWNING_KERNEL).then(|| {
        let (major, minor) = OWNING_KERNEL;
        Finding::note(
            format!("the kernel is {release}: other programs can change the guard, which is then put right within a second"),
            format!("Linux {major}.{minor} or later keeps them from it"),
        )
    })
}

fn old_nft(version: &str) -> Option<Finding> {
    let [major, minor, patch] = NFT;
    let mend = format!("install nftables {major}.{minor}.{patch} or later");
    let found = numbers(version);
    if found.is_empty() {
        let what = "there is no nft: the guard cannot be put up";
        return Some(Finding::trouble(what, mend));
    }
    (found[..] < NFT[..]).then(|| {
        let version = version.trim();
        Finding::trouble(
            format!("nft is too old for the guard's ruleset: {version}"),
            mend,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(!old_kernel("6.1.0-30-amd64").unwrap().is_trouble);
        assert!(!old_kernel("5.6.0").unwrap().is_trouble);
        assert!(old_kernel("5.4.0-190-generic").unwrap().is_trouble);
        assert!(old_kernel("6.9.0").is_none());
        assert!(old_kernel("6.18.3+deb14").is_none());
        assert!(old_kernel("garbage").is_none());
        assert!(old_nft("nftables v1.0.6 (Lester Gooch #5)").is_none());
        assert!(old_nft("nftables v1.1.1 (Commodore Bullmoose #2)").is_none());
        assert!(old_nft("nftables v0.9.8 (E.D.S.)").is_some());
        assert!(old_nft("").unwrap().what.contains("there is no nft"));
    }
}
