//! What the daemon answers and tells on the control socket, as JSON.

use super::protocol::VERSION;
use super::time::rfc3339;
pub use super::time::whole_seconds;
use super::watch::WatchEvent;
use crate::engine::Grant;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// An answer lists no more than this of anything.
pub const MOST_LISTED: usize = 256;

/// An answer: `ok` with what was asked for, or `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub v: u64,
    /// The command's own answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// A command could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// Why, in one line.
    pub message: String,
    /// The errors in configuration or keys that are the reason, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// What kind of failure it is: what programs go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorCode {
    /// It failed.
    #[serde(rename = "E-FAILED")]
    Failed,
    /// The configuration or a key's file is invalid.
    #[serde(rename = "E-CONFIG")]
    Config,
    /// There is no such key.
    #[serde(rename = "E-NO-KEY")]
    NoKey,
}

impl ErrorBody {
    /// A failure with its reason.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::with(ErrorCode::Failed, message)
    }

    /// A failure of this kind.
    pub fn with(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            errors: Vec::new(),
        }
    }
}

impl Answer {
    /// The answer to a command that gave this.
    #[must_use]
    pub fn of<T: Serialize>(result: Result<T, ErrorBody>) -> Self {
        let result = result.and_then(|ok| serde_json::to_value(ok).map_err(ErrorBody::new));
        let (ok, error) = match result {
            Ok(ok) => (Some(ok), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            v: VERSION,
            ok,
            error,
        }
    }
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Status {
    /// The daemon's version.
    #[serde(rename = "daemon_version")]
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// For how long it has run, in seconds.
    pub up_seconds: u64,
    /// This machine's clock, in milliseconds since 1970-01-01 UTC.
    #[serde(rename = "clock", with = "rfc3339")]
    pub clock_ms: u64,
    /// How far a packet's timestamp may be from it, in seconds.
    pub skew_seconds: u64,
    /// The UDP port that invitations name.
    pub port: u16,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Whether the guard enforces, for good.
    pub enforcing: bool,
    /// The trial, where the guard enforces while one goes on.
    pub trial: Option<TrialStatus>,
    /// How the guard is kept from other programs: `exclusive` or `monitored`.
    pub guard: String,
    /// Whether it is monitored although it is to be exclusive, and could be.
    pub exclusive_pending: bool,
    /// What differs between the desired state and the kernel, where it could not be written.
    pub sync_error: Option<String>,
    /// What it guards.
    pub services: Vec<ServiceStatus>,
    /// How many keys are loaded.
    pub keys: usize,
    /// How many grants are live, of all keys: one for each service, source and key.
    pub grants: usize,
    /// Whether nothing is accepted until the clock is synchronized, since the state was lost.
    pub waits_for_clock: bool,
    /// Whether the main file was invalid when it was read last, so that the last good
    /// configuration is used.
    pub using_last_good_config: bool,
    /// Keys that are not loaded, since their files are invalid; by these files' names, at
    /// most [`MOST_LISTED`].
    pub skipped_keys: Vec<String>,
    /// What was counted since the start.
    pub counters: CounterValues,
}

/// A trial of the guard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// For how many more seconds the guard enforces.
    pub left_seconds: u64,
}

/// A trial was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStarted {}

/// A service, and how many are admitted to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<String>,
    /// How many grants of it are live.
    pub grants: usize,
}

/// Datagrams by outcome and reason.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterValues {
    /// Accepted.
    pub accepted: u64,
    /// Anybody can send these: of another length, of no key, forged (with a wrong HMAC).
    /// Those of `kernel` did not reach the daemon; counted since the rules were loaded.
    pub junk: BTreeMap<String, u64>,
    /// Not looked at, since nothing is accepted until the clock is synchronized.
    pub waiting: u64,
    /// Made with a key, but too old, too new or seen before.
    pub ignored: BTreeMap<String, u64>,
    /// Made with a key, and refused.
    pub refused: BTreeMap<String, u64>,
    /// Made with a key, and not granted because this machine could not.
    pub failed: BTreeMap<String, u64>,
}

/// A part of the list of grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantList {
    /// In the order of service, source and key.
    pub grants: Vec<ListedGrant>,
    /// Whether there are more after the last of these.
    pub more: bool,
    /// Who is admitted by the port sequence, in the first part of the list alone; at most
    /// [`MOST_LISTED`].
    pub sequence: Vec<SequenceGrant>,
}

/// An address that the port sequence has admitted; nothing tells whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceGrant {
    /// Who is admitted.
    pub address: IpAddr,
    /// To what.
    pub service: String,
    /// For how many more seconds, rounded up.
    pub seconds: u64,
}

/// One key's grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedGrant {
    /// Who opened it.
    pub key: String,
    /// Who is admitted.
    pub address: IpAddr,
    /// To what.
    pub service: String,
    /// For how many more seconds, rounded up.
    pub seconds: u64,
}

impl ListedGrant {
    /// A live grant.
    #[must_use]
    pub fn of(grant: &Grant, mono: Duration) -> Self {
        Self {
            key: grant.key.to_string(),
            address: grant.target.source.address(),
            service: grant.target.service.to_string(),
            seconds: whole_seconds(grant.until.saturating_sub(mono)),
        }
    }

    /// Its position in the list; none where its names are not names.
    #[must_use]
    pub fn cursor(&self) -> Option<super::protocol::Cursor> {
        Some(super::protocol::Cursor {
            service: self.service.parse().ok()?,
            source: crate::engine::Source::of(self.address),
            key: self.key.parse().ok()?,
        })
    }
}

/// What is on disk is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The files of keys that are not loaded, since these are invalid.
    pub skipped_keys: Vec<String>,
    /// How many services there are.
    pub services: usize,
    /// How many keys are loaded.
    pub keys: usize,
}

/// The keys that are loaded, and those that are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedKeys {
    /// The fingerprint of what was loaded of each key, by the key's name.
    pub keys: BTreeMap<String, String>,
    /// The files of keys that are not loaded, since they are invalid.
    pub skipped: Vec<String>,
}

/// A key is as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReloaded {
    /// Whether it is loaded; not where it has no file.
    pub loaded: bool,
}

/// The guard enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {}

/// Grants were ended.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// How many.
    pub revoked: usize,
    /// Grants of other keys by which the same addresses have access to the same services; at most
    /// [`MOST_LISTED`].
    pub still: Vec<ListedGrant>,
    /// What became of connections, where that was asked.
    pub disconnected: Option<Disconnected>,
}

/// Connections were ended.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnected {
    /// How many; those that were closing anyway count too.
    pub ended: usize,
    /// Other connections on guarded ports that go on, but for those of trusted networks.
    pub remaining: usize,
}

/// The last rejected packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejections {
    /// The latest first; at most [`MOST_LISTED`].
    pub rejections: Vec<Rejected>,
    /// Packets of no known key; the latest first.
    pub unknown: Vec<UnknownPacket>,
    /// Whether nothing is accepted until the clock is synchronized, since the state was lost.
    pub waits_for_clock: bool,
}

/// A packet with a selector that was no key's in the current minutes, and how often its like
/// has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownPacket {
    /// When the last one came, in milliseconds since 1970-01-01 UTC.
    #[serde(rename = "at", with = "rfc3339")]
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

/// A rejected packet, and how often its like has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The last one.
    pub last: WatchEvent,
    /// How many there were of the same key, reason and source.
    pub times: u64,
}

/// The guard is removed, and the daemon ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornDown {
    /// Whether there was a guard.
    pub was_up: bool,
}
