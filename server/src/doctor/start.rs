//! What happens at the machine's start, and who takes the guard down at other times.

use super::{Finding, said};
use crate::config::Config;
use crate::kernel::{GuardMode, can_be_exclusive};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What nftables.service loads; as Debian ships it, it begins by flushing every ruleset.
const NFTABLES_CONF: &str = "/etc/nftables.conf";
/// Files include others, and these others, no deeper than this.
const DEPTH: usize = 8;

/// What is found. That a guard that is not `enforcing` does not come up is not amiss.
pub fn examine(config: &Config, enforcing: bool) -> Vec<Finding> {
    if !enforcing {
        return Vec::new();
    }
    if !Path::new("/run/systemd/system").exists() {
        return Vec::new();
    }
    enabled(config).unwrap_or_else(|why| {
        vec![Finding::trouble(
            format!("what comes up at the machine's start cannot be asked: systemctl: {why}"),
            "systemctl is-enabled oneknock-guard oneknockd",
        )]
    })
}

fn enabled(config: &Config) -> io::Result<Vec<Finding>> {
    let is_enabled = |unit: &str| -> io::Result<bool> {
        Ok(said("systemctl", &["is-enabled", unit])?.starts_with("enabled"))
    };
    let flushes = flushes(Path::new(NFTABLES_CONF), DEPTH) && is_enabled("nftables.service")?;
    let mut findings = start(
        is_enabled("oneknock-guard.service")?,
        is_enabled("oneknockd.service")?,
        flushes,
    );
    let is_watched = config.guard == GuardMode::Monitored || !can_be_exclusive();
    findings.extend((flushes && is_watched).then(|| {
        Finding::note(
            "nftables.service flushes every ruleset when it is reloaded, and the guard is only watched: it is back within a second, and till then there is none",
            format!("let {NFTABLES_CONF} delete its own tables in place of \"flush ruleset\", or use guard = \"owned\" and Linux 6.9 or later"),
        )
    }));
    Ok(findings)
}

/// Whether a file of nft's, or one that it includes, takes everybody's rules down.
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

/// The files that a path means, whose last part may have a star in it.
fn matching(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some((before, after)) = name.and_then(|name| name.split_once('*')) else {
        return vec![path.into()];
    };
    let is_one = |file: &PathBuf| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(before) && name.ends_with(after))
    };
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let files = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    files.filter(is_one).collect()
}

fn start(guard: bool, daemon: bool, flushes: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !guard {
        let what = if flushes {
            "nothing puts the guard up at the machine's start, and nftables.service takes it down whenever it starts while no daemon runs"
        } else {
            "nothing puts the guard up at the machine's start before the network"
        };
        findings.push(Finding::trouble(what, "systemctl enable oneknock-guard"));
    }
    if guard && !daemon {
        findings.push(Finding::trouble(
            "after the machine's next start the guard is up and no daemon runs: nobody gets in",
            "systemctl enable oneknockd",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_flushes_is_known_by_its_command_and_not_by_a_comment() {
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
    fn a_start_that_locks_out_and_one_that_leaves_open_are_both_troubles() {
        assert_eq!(start(true, true, true), []);
        assert!(start(true, false, false)[0].what.contains("nobody gets in"));
        assert!(
            start(false, true, true)[0]
                .what
                .contains("nftables.service")
        );
        assert_eq!(start(false, false, false).len(), 1);
    }
}
