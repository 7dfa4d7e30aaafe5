//! `oneknockctl reload`.

use super::ask::{NoAnswer, ask};
use super::output::{say, warn};
use super::{Exit, Failure, check, enable};
use crate::config::{self, Config, Paths, last_good};
use crate::control::answers::Reloaded;
use crate::control::protocol::Command;
use crate::doctor;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Reload {
    /// On trial, for changes that clients must know of: the guarded ports open after this time,
    /// from 10s to 1h, unless "oneknockctl confirm" was called
    #[arg(long, value_name = "TIME", value_parser = enable::trial_time)]
    confirm: Option<Duration>,
    /// Also if existing clients can not knock any more without a new invitation
    #[arg(long, conflicts_with = "confirm")]
    yes: bool,
}

impl Reload {
    pub fn run(&self, paths: &Paths) -> Result<(), Failure> {
        // Known to those who can read the files.
        let before = last_good::load(paths).map(|main| main.config);
        let after = config::load_main(paths).ok().map(|main| main.config);
        let changed = before.zip(after);
        let changed = changed.map_or(Vec::new(), |(before, after)| changes(&before, &after));
        if !changed.is_empty() && self.confirm.is_none() && !self.yes {
            let what = format!(
                "not reloaded: {} changed: existing clients need a new invitation",
                changed.join(", ")
            );
            let ctl = paths.ctl();
            let hint = format!("{ctl} reload --confirm 10m, or: {ctl} reload --yes");
            return Err(Failure::Refused(what, Some(hint)));
        }
        let reloaded = match self.confirm {
            Some(time) => enable::reload_on_trial(paths, time, || reload(paths))?,
            None => reload(paths)?,
        };
        say(format_args!(
            "reloaded: services {}, keys {}",
            reloaded.services, reloaded.keys
        ));
        if !changed.is_empty() {
            let what = format!(
                "{} changed: existing clients need a new invitation",
                changed.join(", ")
            );
            warn(what, Some(&format!("{} key invite NAME", paths.ctl())));
        }
        if let Some(finding) = doctor::skipped_keys(&reloaded.skipped_keys, paths) {
            say(finding);
            return Err(Failure::Ended(Exit::InvalidConfig));
        }
        check::warn_of_findings(paths);
        Ok(())
    }
}

/// What clients know, and is different.
fn changes(before: &Config, after: &Config) -> Vec<&'static str> {
    let mut changed = after.changed_for_clients(before);
    if before.listen != after.listen && !changed.contains(&"port") {
        changed.push("listen");
    }
    changed
}

fn reload(paths: &Paths) -> Result<Reloaded, NoAnswer> {
    let mut answer = ask(paths, &Command::Reload);
    if let Err(NoAnswer::Refused(error)) = &mut answer {
        error.message.insert_str(0, "not reloaded: ");
    }
    answer
}
