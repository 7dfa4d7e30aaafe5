//! Events, as watchers get them.

use super::time::{rfc3339, whole_seconds};
use crate::engine::{EndReason, Event, Grant, Now, ReasonKind};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

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
    Expired,
    /// An administrator closed it, or its key lost the right to it.
    Revoked,
    /// A packet was refused.
    Refused,
    /// A packet was too old, too new, or seen before.
    Ignored,
    /// A packet was authentic, and this machine could not grant it.
    Failed,
    /// A key's newer generation was used, and an older one ends soon.
    Retiring,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// When, in milliseconds since 1970-01-01 UTC.
    #[serde(rename = "at", with = "rfc3339")]
    pub at_ms: u64,
    /// What.
    pub event: Happened,
    /// Whose key it was.
    pub key: String,
    /// Who was admitted, or where a rejected packet came from; none of a retiring generation.
    pub address: Option<IpAddr>,
    /// Whether that address is the key holder's for sure; else who captured the packet may
    /// have sent it.
    pub authenticated: bool,
    /// What was asked for; all that the key may open where there is none.
    pub service: Option<String>,
    /// For how long it was granted, or for how much longer it is open or a retiring generation works.
    pub seconds: Option<u64>,
    /// Which generation retires.
    pub generation: Option<u32>,
    /// Why it was rejected, as the log says it.
    pub reason: Option<String>,
    /// How far the packet's clock is ahead of this machine's, in seconds; behind where it is
    /// negative.
    pub ahead_seconds: Option<i64>,
}

impl WatchEvent {
    /// One that tells nothing more than this.
    #[must_use]
    pub fn new(at_ms: u64, event: Happened, key: impl Display, address: Option<IpAddr>) -> Self {
        Self {
            at_ms,
            event,
            key: key.to_string(),
            address,
            authenticated: false,
            service: None,
            seconds: None,
            generation: None,
            reason: None,
            ahead_seconds: None,
        }
    }

    fn of_grant(now: Now, event: Happened, grant: &Grant) -> Self {
        let address = grant.target.source.address();
        Self {
            service: Some(grant.target.service.to_string()),
            ..Self::new(now.wall.0, event, &grant.key, Some(address))
        }
    }

    /// A grant that is open when the watching begins.
    #[must_use]
    pub fn open(now: Now, grant: &Grant) -> Self {
        let left = grant.until.saturating_sub(now.mono);
        Self {
            seconds: Some(whole_seconds(left)),
            ..Self::of_grant(now, Happened::Open, grant)
        }
    }

    /// An event as watchers get it; none of junk.
    #[must_use]
    pub fn of(now: Now, event: &Event) -> Option<Self> {
        let at_ms = now.wall.0;
        Some(match event {
            Event::Junk(_)
            | Event::Accepted { .. }
            | Event::Restored(_)
            | Event::Closed {
                redundant: true, ..
            } => return None,
            Event::Rejected(rejection) => {
                let happened = match rejection.reason.kind() {
                    ReasonKind::Ignored => Happened::Ignored,
                    ReasonKind::Refused => Happened::Refused,
                    ReasonKind::Failed => Happened::Failed,
                };
                Self {
                    authenticated: rejection.authenticated,
                    service: rejection.service.map(|service| service.to_string()),
                    reason: Some(rejection.reason.name().into()),
                    ahead_seconds: rejection.reason.ahead(),
                    ..Self::new(at_ms, happened, &rejection.key, Some(rejection.source))
                }
            }
            Event::Granted { grant, time, .. } => Self {
                seconds: Some(time.as_secs()),
                ..Self::of_grant(now, Happened::Granted, grant)
            },
            Event::Closed { key, target, .. } => Self {
                service: Some(target.service.to_string()),
                ..Self::new(at_ms, Happened::Closed, key, Some(target.source.address()))
            },
            Event::Ended { grant, why } => {
                let happened = match why {
                    EndReason::Expired => Happened::Expired,
                    _ => Happened::Revoked,
                };
                Self::of_grant(now, happened, grant)
            }
            Event::Retiring {
                key, number, ends, ..
            } => Self {
                generation: Some(*number),
                seconds: Some(Duration::from_millis(ends.0.saturating_sub(at_ms)).as_secs()),
                ..Self::new(at_ms, Happened::Retiring, key, None)
            },
        })
    }
}

/// A line for who watches: an event, or how many were dropped because the reader was slow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WatchMessage {
    /// Dropped before the next one, or of those that were open when the watching began.
    Dropped {
        /// How many.
        dropped: u64,
    },
    /// One.
    Event(WatchEvent),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_events_are_told_from_one_that_came() {
        let dropped: WatchMessage = serde_json::from_str(r#"{"dropped":3}"#).unwrap();
        assert_eq!(dropped, WatchMessage::Dropped { dropped: 3 });
        let event = r#"{"at":"1970-01-01T00:00:00.001Z","event":"granted","key":"a","address":"192.0.2.7","authenticated":true,"service":"ssh","seconds":30,"generation":null,"reason":null,"ahead_seconds":null}"#;
        let read: WatchMessage = serde_json::from_str(event).unwrap();
        assert!(matches!(&read, WatchMessage::Event(e) if e.seconds == Some(30)));
        assert_eq!(serde_json::to_string(&read).unwrap(), event);
    }
}
