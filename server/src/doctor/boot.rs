//! What happens at boot, and what removes the guard at other times.

use super::{Check, Finding, Subject, output_of};
use crate::config::{Config, enabled};
use crate::kernel::{GuardMode, TABLE, can_be_exclusive};
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
        let mut found = of_units(config).unwrap_or_else(|why| {
            let what = format!("what is started at boot is not known: systemctl: {why}");
            let hint = "systemctl is-enabled oneknock-guard oneknockd";
            vec![Finding::error(what).hint(hint)]
        });
        found.extend(saved_copy(Path::new(NFTABLES_CONF)));
        found
    }
}

fn of_units(config: &Config) -> io::Result<Vec<Finding>> {
    let is_enabled = |unit: &str| -> io::Result<bool> {
        Ok(output_of("systemctl", &["is-enabled", unit])?.starts_with("enabled"))
    };
    let flushes = flushes(Path::new(NFTABLES_CONF)) && is_enabled("nftables.service")?;
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

/// What is found where a file of nft's holds our table, as `nft list ruleset` prints it.
fn saved_copy(file: &Path) -> Option<Finding> {
    let file = file_with(file, DEPTH, &is_our_table)?;
    let file = file.display();
    let what = format!(
        "{file} holds a saved copy of the guard: while oneknockd owns the guard the file cannot be loaded, and this machine's own rules are missing then; at other times the copy replaces the guard, with grants that have ended"
    );
    let hint = format!("remove every \"table inet {TABLE}\" from {file}, up to its closing brace");
    Some(Finding::error(what).hint(hint))
}

/// Whether a line begins our table.
fn is_our_table(line: &str) -> bool {
    let line = line.replace('{', " ");
    let mut words = line
        .split_whitespace()
        .skip_while(|word| ["add", "create"].contains(word));
    [words.next(), words.next(), words.next()] == [Some("table"), Some("inet"), Some(TABLE)]
}

/// Whether a file of nft's, or one that it includes, flushes every ruleset.
fn flushes(file: &Path) -> bool {
    file_with(file, DEPTH, &|line| line.starts_with("flush ruleset")).is_some()
}

/// The file of nft's with a line that is so: this one, or one that it includes.
fn file_with(file: &Path, depth: usize, is_so: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    // What nft cannot read it does not load.
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines();
    let mut lines = lines.map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.find_map(|line| {
        if is_so(line) {
            return Some(file.into());
        }
        let included = line.strip_prefix("include").filter(|_| depth > 0)?;
        let pattern = file.with_file_name(included.trim().trim_matches('"'));
        matching(&pattern)
            .iter()
            .find_map(|file| file_with(file, depth - 1, is_so))
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
            flushes(&main)
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
    fn saved_copy_of_the_guard_is_known_by_its_table_also_in_a_file_that_is_included() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("nftables.conf");
        let found = |text: &str| {
            fs::write(&main, text).unwrap();
            saved_copy(&main)
        };
        for saved in [
            "table inet oneknock { # progname oneknockd\n\tflags owner\n}\n",
            "table inet mine {\n}\nadd table inet oneknock\n",
            "table inet oneknock{\n}\n",
        ] {
            let found = found(saved).unwrap();
            assert!(found.is_error(), "{found}");
            let file = main.display().to_string();
            assert!(found.message.starts_with(&file), "{found}");
            assert!(found.hint.as_ref().unwrap().contains(&file), "{found}");
        }
        for other in [
            "# table inet oneknock {\n",
            "table inet oneknock_sequence {\n}\n",
            "table ip oneknock {\n}\n",
            "delete table inet oneknock\n",
        ] {
            assert_eq!(found(other), None);
        }
        let copy = dir.path().join("saved.nft");
        fs::write(&copy, "table inet oneknock {\n}\n").unwrap();
        let found = found("include \"*.nft\"\n").unwrap();
        assert!(found.message.contains("saved.nft"), "{found}");
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
