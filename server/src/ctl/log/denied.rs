//! Knocks that were denied since the daemon started: it remembers the last ones.

use super::{clock_skew, text};
use crate::config::{Loaded, Paths};
use crate::control::answers::{MOST_LISTED, Rejected, Rejections, Status};
use crate::control::protocol::{Command, Selection};
use crate::ctl::Failure;
use crate::ctl::ask::{NoAnswer, ask};
use crate::ctl::output::{say, warn};
use crate::doctor;
use serde_json::{Value, json};

/// What the daemon remembers.
#[derive(Debug, Default)]
pub struct Denied {
    /// None where no daemon runs.
    answer: Option<Rejections>,
    /// Those of keys, with those whose key was found out here.
    of_keys: Vec<Rejected>,
    /// How many packets were of no key of this server, as far as this user can tell.
    strangers: usize,
    /// Whether this user can read the keys, and so find out whose clock is off.
    reads_keys: bool,
    /// Files of keys that the daemon has skipped.
    skipped_keys: Vec<String>,
}

impl Denied {
    /// Asks the daemon; where none runs, that is a failure only if these are what was asked for.
    pub fn ask(
        paths: &Paths,
        of: &Selection,
        since_ms: u64,
        is_wanted: bool,
    ) -> Result<Self, Failure> {
        let answer = match ask(paths, &Command::Rejections { of: of.clone() }) {
            Ok(answer) => Some(answer),
            Err(NoAnswer::NoDaemon(_)) if !is_wanted => None,
            Err(no) => return Err(no.into()),
        };
        let Some(mut answer): Option<Rejections> = answer else {
            return Ok(Self::default());
        };
        answer.rejections.retain(|one| one.last.at_ms >= since_ms);
        answer.unknown.retain(|one| one.at_ms >= since_ms);
        let mut of_keys = answer.rejections.clone();
        let mut strangers = answer.unknown.len();
        let settings = Loaded::at_start(paths).map(|loaded| loaded.settings).ok();
        if let Some(settings) = &settings {
            let (found, left) = clock_skew::find(settings, &answer.unknown);
            let is_meant = |key: &str| of.key().is_none_or(|of| of.as_str() == key);
            of_keys.extend(found.into_iter().filter(|one| is_meant(&one.last.key)));
            strangers = left;
        }
        let status = ask::<Status>(paths, &Command::Status);
        Ok(Self {
            answer: Some(answer),
            of_keys,
            strangers,
            reads_keys: settings.is_some(),
            skipped_keys: status.map_or(Vec::new(), |status| status.skipped_keys),
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.of_keys.is_empty()
    }

    /// A line each, with its time.
    pub fn lines(&self) -> impl Iterator<Item = (u64, String)> {
        let lines = self.of_keys.iter();
        lines.map(|one| (one.last.at_ms, text::rejected(one)))
    }

    /// The members of an object.
    pub fn json(&self) -> Result<Value, Failure> {
        let answer = self.answer.as_ref();
        let denied = self.of_keys.iter().map(|one| {
            let mut event = serde_json::to_value(&one.last)?;
            event["times"] = one.times.into();
            Ok(event)
        });
        let denied: serde_json::Result<Vec<Value>> = denied.collect();
        let denied = denied.map_err(|error| Failure::new("JSON", error))?;
        Ok(json!({
            "denied": denied,
            "unknown": answer.map_or(&[][..], |answer| &answer.unknown),
            "denied_is_known": answer.is_some(),
            "denied_truncated": answer.is_some_and(|answer| answer.rejections.len() >= MOST_LISTED),
            "waits_for_clock": answer.is_some_and(|answer| answer.waits_for_clock),
        }))
    }

    /// Says what the lines do not.
    pub fn say_what_is_missing(&self, paths: &Paths, of: &Selection) {
        let ctl = paths.ctl();
        let Some(answer) = &self.answer else {
            return say("note: oneknockd is not running: which knocks were denied is not known");
        };
        if answer.waits_for_clock {
            say(doctor::waits_for_clock(paths));
        }
        if let Some(finding) = doctor::skipped_keys(&self.skipped_keys, paths) {
            say(finding);
        }
        if self.strangers > 0 && of.key().is_none() {
            let count = self.strangers;
            say(format_args!(
                "note: {count} packets of no key of this server came too"
            ));
            if self.reads_keys {
                let hint = format!(
                    "if a client's key was removed or rotated with --now: {ctl} key invite NAME, and there: oneknock import --replace"
                );
                say(format_args!("hint: {hint}"));
            } else {
                let hint = "as root this command says which of them have a clock that is off";
                say(format_args!("hint: {hint}"));
            }
        }
        if self.is_empty() && !answer.waits_for_clock && self.skipped_keys.is_empty() {
            let what = "a knock that is neither granted nor denied did not arrive, or its key is not this server's";
            say(format_args!("note: {what}"));
        }
        if answer.rejections.len() >= MOST_LISTED {
            warn("older knocks that were denied are not listed", None);
        }
    }
}
