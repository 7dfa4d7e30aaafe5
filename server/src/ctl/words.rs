//! Sentences that several commands say.

use crate::config::Paths;
use crate::control::answers::Status;
use crate::kernel::STANDALONE_TABLE;
use humantime::format_duration;
use std::time::Duration;

/// A span of time, in words.
pub fn span(seconds: u64) -> String {
    format_duration(Duration::from_secs(seconds)).to_string()
}

/// What is wrong while the daemon waits for the clock.
pub const WAITS: &str =
    "all knocks are rejected until the clock is synchronized (the replay log was lost)";

/// What to do while the daemon waits for the clock.
pub fn waits_hint(paths: &Paths) -> String {
    format!(
        "timedatectl set-ntp true; or if the clock is right: systemctl stop oneknockd, then: {} debug reset-state",
        paths.ctl()
    )
}

/// Of keys whose files are invalid.
pub fn skipped(files: &[String]) -> String {
    format!(
        "error: keys are not loaded, since their files are invalid: {}",
        files.join(", ")
    )
}

/// What to do about an invalid file while the daemon runs.
pub fn fix_and_reload(paths: &Paths) -> String {
    let ctl = paths.ctl();
    format!("{ctl} check, fix the file, then: {ctl} reload")
}

/// What is wrong with a daemon that runs, each with what to do.
pub fn of_status(status: &Status, paths: &Paths) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if status.exclusive_pending {
        found.push((
            "warning: the guard is monitored, not exclusive as configured, until it is made again"
                .into(),
            format!(
                "this opens the ports for a moment: {} disable --until-reboot; then start oneknockd",
                paths.ctl()
            ),
        ));
    }
    if let Some(error) = &status.sync_error {
        found.push((
            format!("error: the kernel does not hold every grant: {error}"),
            "the daemon tries again; its log may say more".into(),
        ));
    }
    if status.waits_for_clock {
        found.push((format!("error: {WAITS}"), waits_hint(paths)));
    }
    if status.using_last_good_config {
        found.push((
            "warning: oneknockd.toml is invalid; running on the last good configuration".into(),
            fix_and_reload(paths),
        ));
    }
    if !status.skipped_keys.is_empty() {
        found.push((skipped(&status.skipped_keys), fix_and_reload(paths)));
    }
    found
}

/// The rules that need no daemon are loaded; with the command that removes them.
pub fn standalone_sequence() -> String {
    format!(
        "the rules of \"debug rules --sequence-only\" are loaded: their service opens by the port sequence alone (nft delete table inet {STANDALONE_TABLE})"
    )
}

/// Of a key that may open what the port sequence opens, and does not have it.
pub const NO_SEQUENCE: &str = "has no port sequence: it must sign its address, or may not open for as long as [sequence] does";

/// Of a server without a key that opens.
pub const NO_KEY: &str = "there is no valid key: no one can knock";
