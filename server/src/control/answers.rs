//! What the daemon answers and tells on the control socket, as JSON.

use super::protocol::{After, VERSION};
use crate::gate::{Change, Held, Place};
use oneknock_shared::name::{KeyName, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// An answer: `ok` with what was asked for, or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub v: u64,
    /// The command's own answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is none, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The mistakes in configuration or keys that are the reason, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<String>,
    /// Of a reload: whether the keys were taken all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keys_taken: bool,
}

/// A command could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Why, in one line.
    pub error: String,
    /// The mistakes in configuration or keys that are the reason, a line each.
    pub mistakes: Vec<String>,
    /// Of a reload: whether the keys were taken all the same.
    pub keys_taken: bool,
}

impl Failed {
    /// A failure with its reason.
    pub fn new(error: impl fmt::Display) -> Self {
        Self {
            error: error.to_string(),
            mistakes: Vec::new(),
            keys_taken: false,
        }
    }
}

impl Answer {
    /// The answer to a command that gave this.
    #[must_use]
    pub fn of<T: Serialize>(result: Result<T, Failed>) -> Self {
        let result = result.and_then(|ok| serde_json::to_value(ok).map_err(Failed::new));
        let answer = |ok, error, mistakes, keys_taken| Self {
            v: VERSION,
            ok,
            error,
            mistakes,
            keys_taken,
        };
        match result {
            Ok(ok) => answer(Some(ok), None, Vec::new(), false),
            Err(Failed {
                error,
                mistakes,
                keys_taken,
            }) => answer(None, Some(error), mistakes, keys_taken),
        }
    }
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// For how long it has run, in seconds.
    pub up_seconds: u64,
    /// This machine's clock, in milliseconds since 1970-01-01 UTC.
    pub clock_ms: u64,
    /// How far a packet's timestamp may be from it, in seconds.
    pub skew_seconds: u64,
    /// The UDP port that invitations name.
    pub port: u16,
    /// Where it listens.
    pub listen: Vec<String>,
    /// How the guard is kept from other programs: `owned` or `watched`.
    pub guard: String,
    /// Whether it is watched although it is to be owned, and could be: [`STAYS_WATCHED`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays_watched: bool,
    /// Where the guard is on trial, and not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_trial: Option<OnTrial>,
    /// What it guards.
    pub services: Vec<Guarded>,
    /// How many keys there are.
    pub keys: usize,
    /// How many claims are live, of all keys: one for each service, address and key.
    pub grants: usize,
    /// Whether nothing is accepted until the clock is synchronised, since the state was
    /// lost.
    pub waits_for_clock: bool,
    /// Whether the main file had mistakes when it was read last, so that what was in force
    /// before is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub as_before: bool,
    /// Keys that are not in force since their files have had mistakes from the daemon's start
    /// on; by these files' names, at most [`MOST_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// When configuration and keys were last read and taken, by the clock of files; in
    /// milliseconds since 1970-01-01 UTC.
    #[serde(default)]
    pub read_ms: u64,
    /// What was counted since the start.
    pub counters: Counted,
}

/// What to know and do about a guard that was watched before it was to be owned.
pub const STAYS_WATCHED: &str = "guard = \"owned\" is not in force: the guard was put up as a watched one, which other programs can flush, and stays one until it is taken down; when its ports may be open for a moment: oneknockctl teardown, then start oneknockd";

/// A guard that is on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnTrial {
    /// For how long it is up still; 0 where the trial has ended, and the guard is down.
    pub left_seconds: u64,
}

/// A trial has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedOut {}

/// A service, and how many are admitted to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<String>,
    /// How many claims on it are live.
    pub grants: usize,
}

/// Datagrams by outcome and reason.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Accepted.
    pub accepted: u64,
    /// Anybody can send these: of another length, of no key, forged (with a wrong HMAC).
    /// Those of `kernel` did not reach the daemon; counted since the guard was put up last.
    pub junk: BTreeMap<String, u64>,
    /// Not looked at, since nothing is accepted until the clock is synchronised.
    #[serde(default)]
    pub waiting: u64,
    /// Made with a key, but too old, too new or seen before.
    pub ignored: BTreeMap<String, u64>,
    /// Made with a key, and refused.
    pub refused: BTreeMap<String, u64>,
    /// Accepted, and then not granted because this machine could not.
    pub failed: BTreeMap<String, u64>,
}

/// A part of the list of grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// In the order of [`After`].
    pub grants: Vec<Grant>,
    /// Whether there are more after the last of these.
    pub more: bool,
    /// Who is admitted by the port sequence, in the first part of the list alone; at most
    /// [`MOST_LISTED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequence: Vec<Walked>,
}

/// Somebody whom the port sequence has admitted; nobody knows who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walked {
    /// Who is admitted.
    pub address: IpAddr,
    /// To what.
    pub service: String,
    /// For how many more seconds, rounded up.
    pub seconds: u64,
}

/// One key's claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who opened it.
    pub key: String,
    /// Who is admitted.
    pub address: IpAddr,
    /// To what.
    pub service: String,
    /// For how many more seconds, rounded up.
    pub seconds: u64,
}

impl Walked {
    /// Somebody with the time that the kernel says is left.
    #[must_use]
    pub fn new(service: ServiceName, (address, left): (IpAddr, Duration)) -> Self {
        Self {
            address,
            service: service.to_string(),
            seconds: whole_seconds(left),
        }
    }
}

/// Rounded up.
#[must_use]
pub fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Grant {
    /// A live claim.
    #[must_use]
    pub fn of(held: &Held) -> Self {
        Self {
            key: held.key.to_string(),
            address: held.place.address,
            service: held.place.service.to_string(),
            seconds: whole_seconds(held.left),
        }
    }

    /// Its place in the list; none where its names are not names.
    #[must_use]
    pub fn place(&self) -> Option<After> {
        Some(After {
            place: Place {
                service: self.service.parse().ok()?,
                address: self.address,
            },
            key: self.key.parse().ok()?,
        })
    }
}

/// What is on disk is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// How many services there are.
    pub services: usize,
    /// How many keys there are.
    pub keys: usize,
}

/// Grants were ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// How many.
    pub closed: usize,
    /// Through whom the same addresses are admitted to the same services all the same;
    /// at most [`MOST_LISTED`].
    pub still: Vec<Grant>,
}

impl Revoked {
    /// So many, with what had to be changed for it.
    #[must_use]
    pub fn of(closed: usize, changes: Vec<Change>) -> Self {
        let still = changes.into_iter().filter_map(|change| match change {
            Change::Admit { place, key, time } => {
                let left = time;
                Some(Grant::of(&Held { key, place, left }))
            }
            Change::Shut { .. } => None,
        });
        Self {
            closed,
            still: still.take(MOST_LISTED).collect(),
        }
    }
}

/// Connections were ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// How many; those that were closing anyway count too.
    pub ended: usize,
}

/// An answer lists no more than this of anything.
pub const MOST_LISTED: usize = 256;

/// The last refusals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// The latest first; at most [`MOST_LISTED`].
    pub refusals: Vec<Refused>,
    /// Packets of nobody, as far as the daemon can tell; the latest first.
    pub unknown: Vec<Unknown>,
    /// Whether nothing is accepted until the clock is synchronised, since the state was
    /// lost.
    #[serde(default)]
    pub waits_for_clock: bool,
}

/// A packet with a selector that was nobody's in the minutes in force, and how often the
/// like of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// When the last one came, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Where it came from, which may be forged.
    pub address: IpAddr,
    /// Its selector, in 16 hexadecimal digits.
    pub selector: String,
    /// How many there were of the same selector and source.
    pub times: u64,
}

/// Events follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {}

/// A refusal, and how often the like of it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The last one.
    pub last: Event,
    /// How many there were of the same key, reason and source.
    pub times: u64,
}

/// The guard is down, and the daemon ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Whether there was a guard.
    pub was_up: bool,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Happened {
    /// It was open when the watching began.
    Open,
    /// A key opened a service for an address.
    Granted,
    /// A key closed it again.
    Closed,
    /// Its time was over.
    Ended,
    /// Somebody at this machine closed it.
    Revoked,
    /// A packet was refused.
    Refused,
    /// A packet was too old, too new, or seen before.
    Ignored,
    /// A packet was accepted, and this machine could not grant it.
    Failed,
    /// A key's newer generation was used, and an older one ends soon.
    Retiring,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What.
    pub event: Happened,
    /// Whose key it was.
    pub key: String,
    /// Who was admitted, or where a refused packet came from.
    pub address: IpAddr,
    /// Whether that address is the key holder's for sure; else whoever caught the packet
    /// may have sent it.
    pub proven: bool,
    /// What was asked for; all that the key may open where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// For how long it was granted, or is open still, or a retiring generation works still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Which generation retires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Why it was refused, as the log says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How far the packet's clock is ahead of this machine's, in seconds; behind where it
    /// is negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_seconds: Option<i64>,
}

impl Event {
    /// A grant that was open when the watching began.
    #[must_use]
    pub fn open(at_ms: u64, held: &Held) -> Self {
        Self {
            service: Some(held.place.service.to_string()),
            seconds: Some(whole_seconds(held.left)),
            ..Self::new(at_ms, Happened::Open, &held.key, held.place.address)
        }
    }

    /// One that tells nothing more than this.
    #[must_use]
    pub fn new(at_ms: u64, event: Happened, key: &KeyName, address: IpAddr) -> Self {
        Self {
            at_ms,
            event,
            key: key.to_string(),
            address,
            proven: false,
            service: None,
            seconds: None,
            generation: None,
            reason: None,
            ahead_seconds: None,
        }
    }
}

/// A line of `watch`: an event, or how many were left out because the reader was slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Watched {
    /// Left out before the next one, or of those that were open when the watching began.
    Lost {
        /// How many.
        lost: u64,
    },
    /// One.
    Event(Event),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_was_left_out_is_told_from_one_that_came() {
        let lost: Watched = serde_json::from_str(r#"{"lost":3}"#).unwrap();
        assert_eq!(lost, Watched::Lost { lost: 3 });
        let event = r#"{"at_ms":1,"event":"granted","key":"a","address":"192.0.2.7","proven":true,"service":"ssh","seconds":30}"#;
        let read: Watched = serde_json::from_str(event).unwrap();
        assert!(matches!(&read, Watched::Event(e) if e.seconds == Some(30)));
        assert_eq!(serde_json::to_string(&read).unwrap(), event);
    }
}
