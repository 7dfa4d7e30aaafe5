//! `oneknockctl doctor`.

use super::ask::{NoAnswer, ask};
use super::{Failure, print};
use crate::config::Settings;
use crate::control::answers::Status;
use crate::control::protocol::Command;
use crate::doctor;
use std::path::Path;

/// Says what is found; a trouble is a failure.
pub fn examine(dir: &Path) -> Result<(), Failure> {
    super::check_readable(dir)?;
    if !nix::unistd::geteuid().is_root() {
        let what = "a machine is examined by root alone";
        return Err(Failure::needs_root(what.into()));
    }
    let settings = Settings::load(dir).map_err(Failure::Mistakes)?;
    for warning in settings.config.warnings() {
        print(&format!("note: oneknockd.toml: {warning}"))?;
    }
    let mut troubles = 0;
    match ask::<Status>(dir, &Command::Status) {
        Ok(status) => eprintln!("the daemon runs, and its guard is {}", status.guard),
        Err(NoAnswer::NoDaemon(_)) => {
            troubles += 1;
            print(
                "trouble: no daemon runs: nobody new gets in\n  do: systemctl start oneknockd; where it ends at once, its log says why",
            )?;
        }
        Err(no) => return Err(no.into()),
    }
    if settings.keys.is_empty() {
        troubles += 1;
        print("trouble: there is no key: nobody can knock\n  do: oneknockctl key add laptop")?;
    }
    for finding in doctor::examine(&settings.config) {
        troubles += usize::from(finding.is_trouble);
        print(&finding.to_string())?;
    }
    if troubles > 0 {
        return Err(Failure::Failed(format!("troubles found: {troubles}"), None));
    }
    eprintln!("no trouble found");
    Ok(())
}
