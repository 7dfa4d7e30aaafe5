//! `oneknockctl status`.

use super::ask::{NoAnswer, ask, stands_alone};
use super::output::{print_json, say, warn};
use super::words::{self, span};
use super::{Exit, Failure, print};
use crate::clock::date;
use crate::config::{Paths, enabled};
use crate::control::answers::{MOST_LISTED, Status, TrialStatus};
use crate::control::protocol::Command;
use crate::doctor;
use oneknock_shared::knock::Timestamp;
use std::fmt::Write;

pub fn status(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    let answer = ask(paths, &Command::Status);
    if matches!(answer, Err(NoAnswer::NoDaemon(_))) {
        note_standalone_sequence();
    }
    let status: Status = answer?;
    let state = State::of(status.enforcing, status.trial.as_ref());
    if as_json {
        let value = serde_json::to_value(&status);
        let mut value = value.map_err(|error| Failure::new("JSON", error))?;
        let truncated = status.skipped_keys.len() >= MOST_LISTED;
        value["skipped_keys_truncated"] = truncated.into();
        print_json(&value)?;
    } else {
        print(&text(&status, paths))?;
        warn_of_marker(paths, status.enforcing);
        note_standalone_sequence();
    }
    match state.exit() {
        Exit::Done => Ok(()),
        exit => Err(Failure::Ended(exit)),
    }
}

/// What the daemon does after it is started again follows from the marker alone.
fn warn_of_marker(paths: &Paths, enforcing: bool) {
    let (marker, ctl) = (paths.enabled(), paths.ctl());
    let marker = marker.display();
    if enforcing && !enabled::is_set(paths) {
        let what = format!("{marker} is missing: after a restart the daemon does not enforce");
        warn(what, Some(&format!("{ctl} enable")));
    } else if !enforcing && enabled::is_set(paths) {
        let what = format!("{marker} exists: after a restart the daemon enforces");
        warn(what, Some(&format!("{ctl} enable, or: {ctl} disable")));
    }
}

/// Other rules of this program that no daemon manages: root can see them.
pub fn note_standalone_sequence() {
    if stands_alone() {
        say(format_args!("note: {}", words::standalone_sequence()));
    }
}

/// What a guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It enforces for good.
    Enforcing,
    /// It enforces for so many more seconds.
    OnTrial(u64),
    /// The guarded ports are open.
    NotEnforcing,
}

impl State {
    /// That of a guard that enforces for good or not, with a trial where one goes on.
    #[must_use]
    pub fn of(enforcing: bool, trial: Option<&TrialStatus>) -> Self {
        match trial {
            _ if enforcing => Self::Enforcing,
            Some(trial) => Self::OnTrial(trial.left_seconds),
            None => Self::NotEnforcing,
        }
    }

    /// The exit status that says it.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Enforcing => Exit::Done,
            Self::OnTrial(_) => Exit::OnTrial,
            Self::NotEnforcing => Exit::NotEnforcing,
        }
    }

    /// The state in one line, and what to do about it.
    #[must_use]
    pub fn text(self, paths: &Paths) -> (String, Option<String>) {
        let ctl = paths.ctl();
        match self {
            Self::Enforcing => ("enforcing".into(), None),
            Self::OnTrial(left) => (
                format!(
                    "on trial: the guarded ports open again in {} unless it is confirmed",
                    span(left)
                ),
                Some(format!("in a new session from the client: {ctl} confirm")),
            ),
            Self::NotEnforcing => (
                "not enforcing: anyone can reach the guarded ports".into(),
                Some(format!("{ctl} enable --confirm 10m")),
            ),
        }
    }
}

/// Several lines, without the last one's end.
fn text(status: &Status, paths: &Paths) -> String {
    let (state, hint) = State::of(status.enforcing, status.trial.as_ref()).text(paths);
    let mut text = state;
    // Writing to a String cannot fail.
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = write!(text, "\n{args}");
    };
    if let Some(hint) = hint {
        line(format_args!("hint: {hint}"));
    }
    for finding in doctor::of_status(status, paths) {
        line(format_args!("{finding}"));
    }
    line(format_args!(
        "oneknockd {}, process {}, running for {}",
        status.version,
        status.pid,
        span(status.up_seconds)
    ));
    line(format_args!(
        "listens on {}; clients knock on udp/{}",
        status.listen.join(", "),
        status.port
    ));
    line(format_args!(
        "clock {}, knocks may be off by {}",
        date(Timestamp(status.clock_ms)),
        span(status.skew_seconds)
    ));
    line(format_args!(
        "keys {}, active grants {}, guard {}",
        status.keys, status.grants, status.guard
    ));
    for service in &status.services {
        let ports = service.ports.join(", ");
        line(format_args!(
            "service {}: {ports}, grants {}",
            service.name, service.grants
        ));
    }
    let counters = &status.counters;
    line(format_args!("packets accepted: {}", counters.accepted));
    for (name, counts) in [
        ("accepted and not granted", &counters.failed),
        ("refused", &counters.refused),
        ("ignored", &counters.ignored),
        ("invalid", &counters.junk),
    ] {
        let counts = counts.iter().filter(|(_, count)| **count > 0);
        let counts: Vec<String> = counts.map(|(word, n)| format!("{word} {n}")).collect();
        if !counts.is_empty() {
            line(format_args!("packets {name}: {}", counts.join(", ")));
        }
    }
    if counters.waiting > 0 {
        line(format_args!("packets not examined: {}", counters.waiting));
    }
    text
}
