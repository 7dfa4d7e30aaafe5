//! What happens at boot, and what removes the guard at other times.

use super::{Check, Finding, Subject, output_of};
use crate::config::{Config, enabled};
use crate::kernel::{GuardMode, can_be_exclusive};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What nftables.service loads; as Debian ships it, it begins by flushing every ruleset.
const NFTABLES_CONF: &str = "/etc/nftables.conf";
/// Files include others, and these others, no deeper than this.
const DEPTH: usize = 8;

/// See the module.
pub struct Boot;

impl Check for Boot {
    fn code(&self) -> &'static str {
        "E-BOOT"
    }

    /// A guard that does not enforce need not be installed at boot.
    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let Some(config) = subject.config else {
            return Vec::new();
        };
        if !enabled::is_set(subject.paths) || !Path::new("/run/systemd/system").exists() {
            return Vec::new();
        }
        of_units(config).unwrap_or_else(|why| {
            let what = format!("what is started at boot is not known: systemctl: {why}");
            let hint = "systemctl is-enabled oneknock-guard oneknockd";
            vec![Finding::error(what).hint(hint)]
        })
    }
}

fn of_units(config: &Config) -> io::Result<Vec<Finding>> {
    let is_enabled = |unit: &str| -> io::Result<bool> {
        Ok(output_of("systemctl", &["is-enabled", unit])?.starts_with("enabled"))
    };
    let flushes = flushes(Path::new(NFTABLES_CONF), DEPTH) && is_enabled("nftables.service")?;
    let mut found = at_boot(
        is_enabled("oneknock-guard.service")?,
        is_enabled("oneknockd.service")?,
        flushes,
    );
    let is_monitored = config.guard == GuardMode::Monitored || !can_be_exclusive();
    if flushes && is_monitored {
        let what = "reloading nftables.service removes all rules, also the guard, which is repaired within a second: the ports are open until then";
        let hint = format!(
            "let {NFTABLES_CONF} delete its own tables instead of \"flush ruleset\", or use guard = \"exclusive\" and Linux 6.9 or later"
        );
        found.push(Finding::warning(what).hint(hint));
    }
    Ok(found)
}

/// Whether a file of nft's, or one that it includes, flushes every ruleset.
fn flushes(file: &Path, depth: usize) -> bool {
    // What nft cannot read it does not load.
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines();
    let mut lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.any(|line| {
        let included = line
            .strip_prefix("include")
            .map(|rest| rest.trim().trim_matches('"'));
        line.starts_with("flush ruleset")
            || included.is_some_and(|pattern| {
                let files = matching(&file.with_file_name(pattern));
                depth > 0 && files.iter().any(|file| flushes(file, depth - 1))
            })
    })
}

/// The files of a path whose last part may have a star in it.
fn matching(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some((before, after)) = name.and_then(|name| name.split_once('*')) else {
        return vec![path.into()];
    };
    let is_one = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(before) && name.ends_with(after))
    };
    let entries = path.parent().and_then(|dir| fs::read_dir(dir).ok());
    let files = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    files.filter(is_one).collect()
}

fn at_boot(guard: bool, daemon: bool, flushes: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if !guard {
        let what = if flushes {
            "nothing installs the guard at boot, and nftables.service removes it when it is started while no daemon runs"
        } else {
            "nothing installs the guard at boot before the network"
        };
        found.push(Finding::error(what).hint("systemctl enable oneknock-guard"));
    }
    if guard && !daemon {
        let what = "after the next boot the guard enforces and no daemon runs: no one can knock";
        found.push(Finding::error(what).hint("systemctl enable oneknockd"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_that_flushes_is_known_by_command_not_by_comment() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("nftables.conf");
        let is_known = |text: &str| {
            fs::write(&main, text).unwrap();
            flushes(&main, DEPTH)
        };
        assert!(is_known("#!/usr/sbin/nft -f\n\nflush ruleset\n"));
        assert!(!is_known("# flush ruleset\ntable inet filter { }\n"));
        fs::create_dir(dir.path().join("more")).unwrap();
        let includes = "include \"more/*.nft\"\n";
        fs::write(dir.path().join("more/10.conf"), "flush ruleset\n").unwrap();
        assert!(!is_known(includes));
        fs::write(dir.path().join("more/10.nft"), "flush ruleset\n").unwrap();
        assert!(is_known(includes));
        // One that includes itself ends too.
        assert!(!is_known("include \"nftables.conf\"\n"));
    }

    #[test]
    fn boot_that_locks_out_and_one_that_leaves_open_are_errors() {
        assert_eq!(at_boot(true, true, true), []);
        assert!(
            at_boot(true, false, false)[0]
                .message
                .contains("no one can knock")
        );
        assert!(
            at_boot(false, true, true)[0]
                .message
                .contains("nftables.service")
        );
        assert_eq!(at_boot(false, false, false).len(), 1);
    }
}
