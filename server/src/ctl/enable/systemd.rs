//! The units, where systemd runs this machine and they are this configuration's.

use crate::config;
use crate::ctl::{Failure, say};
use std::path::Path;
use std::process::Command;

const DAEMON: &str = "oneknockd.service";
const GUARD: &str = "oneknock-guard.service";

/// Whether the units are of this configuration, and systemd is there to run them.
pub fn is_in_charge(dir: &Path) -> bool {
    config::is_default(dir) && Path::new("/run/systemd/system").is_dir()
}

/// Starts the daemon, and returns when it is ready; where it fails, `what` is so.
pub fn start(what: &str) -> Result<(), Failure> {
    call(&["start", DAEMON], what)
}

/// Whether the guard goes up at the machine's next start.
pub fn is_enabled(dir: &Path) -> bool {
    let asked = || {
        let mut ask = Command::new("systemctl");
        ask.args(["is-enabled", "--quiet", GUARD]).status()
    };
    is_in_charge(dir) && asked().is_ok_and(|status| status.success())
}

/// Has the guard go up, and the daemon start, at each start of the machine.
pub fn enable(dir: &Path) -> Result<(), Failure> {
    if !is_in_charge(dir) {
        say("hint: at the machine's start: oneknockctl guard, then oneknockd");
        return Ok(());
    }
    let what = "the guard is up, and will not be after the machine's next start";
    call(&["enable", "--quiet", DAEMON, GUARD], what)
}

/// Ends the daemon, and has neither come back at the machine's next start.
pub fn disable(dir: &Path) -> Result<(), Failure> {
    if !is_in_charge(dir) {
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
