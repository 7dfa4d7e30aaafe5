//! What a running daemon says is wrong, and that none runs.

use super::{Check, DaemonAnswer, Finding, Subject};
use crate::config::Paths;
use crate::control::answers::Status;

/// See the module.
pub struct Daemon;

impl Check for Daemon {
    fn code(&self) -> &'static str {
        "E-DAEMON"
    }

    fn run(&self, subject: &Subject<'_>) -> Vec<Finding> {
        let guard = subject.guard;
        match subject.daemon {
            None => Vec::new(),
            Some(DaemonAnswer::Status(status)) => of_status(status, subject.paths),
            Some(DaemonAnswer::NotRunning) => {
                if guard.is_some_and(|guard| !guard.is_guarding) {
                    let hint = format!("{} enable --confirm 10m", subject.paths.ctl());
                    return vec![Finding::error("oneknockd is not running").hint(hint)];
                }
                let but = if guard.is_some_and(|guard| guard.has_fixed_sequence) {
                    "only the port sequence opens anything new"
                } else {
                    "nothing new is opened"
                };
                let hint = "systemctl start oneknockd; if it ends at once, its log says why";
                vec![Finding::error(format!("oneknockd is not running: {but}")).hint(hint)]
            }
            Some(DaemonAnswer::Unknown(why)) => {
                let hint = "systemctl restart oneknockd; its log may say why";
                vec![Finding::error(format!("oneknockd does not answer: {why}")).hint(hint)]
            }
        }
    }
}

/// What is wrong with a daemon that runs.
#[must_use]
pub fn of_status(status: &Status, paths: &Paths) -> Vec<Finding> {
    let ctl = paths.ctl();
    let fix = format!("{ctl} check, fix the file, then: {ctl} reload");
    let mut found = Vec::new();
    if status.waits_for_clock {
        found.push(waits_for_clock(paths));
    }
    if let Some(error) = &status.sync_error {
        let what = format!("the kernel does not hold every grant: {error}");
        found.push(Finding::error(what).hint("the daemon tries again; its log may say more"));
    }
    if status.using_last_good_config {
        let what = "oneknockd.toml is invalid; running on the last good configuration";
        found.push(Finding::warning(what).hint(&fix));
    }
    found.extend(skipped_keys(&status.skipped_keys, paths));
    if status.exclusive_pending {
        let what = "the guard is monitored, and exclusive as configured once it is made again";
        found.push(Finding::warning(what).hint(format!(
            "{ctl} disable --until-reboot, then start oneknockd: the ports are open meanwhile"
        )));
    }
    found
}

/// Nothing is accepted until the clock is synchronized.
#[must_use]
pub fn waits_for_clock(paths: &Paths) -> Finding {
    let what = "all knocks are rejected until the clock is synchronized (the replay log was lost)";
    Finding::error(what).hint(format!(
        "timedatectl set-ntp true; or if the clock is right: systemctl stop oneknockd, then: {} debug reset-state",
        paths.ctl()
    ))
}

/// Keys whose files are invalid, where there are any.
#[must_use]
pub fn skipped_keys(files: &[String], paths: &Paths) -> Option<Finding> {
    if files.is_empty() {
        return None;
    }
    let ctl = paths.ctl();
    let files = files.join(", ");
    let what = format!("keys are not loaded, since their files are invalid: {files}");
    Some(Finding::error(what).hint(format!("{ctl} check, fix the file, then: {ctl} reload")))
}
