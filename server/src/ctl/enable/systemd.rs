//! The units, where systemd runs this machine and they are this configuration's.

use crate::config::Paths;
use crate::ctl::{Failure, say};
use std::path::Path;
use std::process::Command;

const DAEMON: &str = "oneknockd.service";
const GUARD: &str = "oneknock-guard.service";

/// Whether the units are of this configuration, and systemd is there to run them.
pub fn is_in_charge(paths: &Paths) -> bool {
    paths.is_default() && Path::new("/run/systemd/system").is_dir()
}

/// Starts the daemon, and returns when it is ready; where it fails, `what` is so.
pub fn start(what: &str) -> Result<(), Failure> {
    call(&["start", DAEMON], what)
}

/// Has the guard go up, and the daemon start, at each start of the machine.
pub fn enable(paths: &Paths) -> Result<(), Failure> {
    if !is_in_charge(paths) {
        let (ctl, config) = (paths.ctl(), paths.option());
        say(format_args!(
            "hint: at the machine's start: {ctl} guard, then oneknockd{config}"
        ));
        return Ok(());
    }
    let what = "the guard is up, and will not be after the machine's next start";
    call(&["enable", "--quiet", DAEMON, GUARD], what)
}

/// Ends the daemon, and has neither come back at the machine's next start.
pub fn disable(paths: &Paths) -> Result<(), Failure> {
    if !is_in_charge(paths) {
        return Ok(());
    }
    let what = "the guard is down, and may be up after the machine's next start";
    call(&["disable", "--quiet", "--now", DAEMON, GUARD], what)
}

/// Calls systemctl; where it fails, `what` is so.
fn call(args: &[&str], what: &str) -> Result<(), Failure> {
    let output = Command::new("systemctl").args(args).output();
    let output = output.map_err(|e| Failure::new(format!("{what}: systemctl"), e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.split_whitespace().collect();
    let hint = format!("journalctl -u {DAEMON}");
    let what = format!("{what}: systemctl {}: {}", args.join(" "), said.join(" "));
    Err(Failure::Failed(what, Some(hint)))
}
