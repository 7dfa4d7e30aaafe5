//! The units, where systemd runs this machine and they are this configuration's.

use crate::config::Paths;
use crate::ctl::Failure;
use crate::ctl::output::say;
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

/// Has the guard installed, and the daemon started, at every boot.
pub fn enable(paths: &Paths) -> Result<(), Failure> {
    if !is_in_charge(paths) {
        let (ctl, config) = (paths.ctl(), paths.option());
        say(format_args!(
            "hint: run at boot: {ctl} debug boot-guard, then: oneknockd{config}"
        ));
        return Ok(());
    }
    let what = "the guard enforces, and will not after the next boot";
    call(&["enable", "--quiet", DAEMON, GUARD], what)
}

/// Stops both units, so that they can be started again; nothing for a user who may not.
pub fn stop(paths: &Paths) -> Result<(), Failure> {
    if !is_in_charge(paths) || !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    call(&["stop", DAEMON, GUARD], "the guard is removed")
}

/// Stops the daemon, and has neither unit started at boot.
pub fn disable(paths: &Paths) -> Result<(), Failure> {
    if !is_in_charge(paths) {
        return Ok(());
    }
    let what = "the guard is removed, and may be installed again at the next boot";
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
