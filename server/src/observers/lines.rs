//! What an event reads like in the log: pure.
//!
//! `address=` stands only where it is the key holder's own; a source that may be forged is
//! `source=`, so that no filter bans an address for what a thief sent.

use super::writer::Level;
use crate::clock::date;
use crate::engine::{EndReason, Event, Grant, Reason, ReasonKind, Rejection, Target};
use oneknock_shared::name::KeyName;
use std::time::Duration;

/// The line of an event, with its severity; junk has none.
#[must_use]
pub fn line(event: &Event, mono: Duration) -> Option<(Level, String)> {
    let info = |line| Some((Level::Info, line));
    match event {
        Event::Junk(_)
        | Event::Accepted { .. }
        | Event::Closed {
            redundant: true, ..
        } => None,
        Event::Rejected(rejection) => Some(rejected(rejection)),
        Event::Granted { grant, time, .. } => {
            let seconds = time.as_secs();
            info(format!("granted {} seconds={seconds}", of(grant)))
        }
        Event::Closed { key, target, .. } => info(format!("closed {}", fields(target, key))),
        Event::Ended { grant, why } => {
            let fields = of(grant);
            info(match why {
                EndReason::Expired => format!("expired {fields}"),
                EndReason::Revoked => format!("revoked {fields} by=administrator"),
                EndReason::KeyChanged => format!("revoked {fields} by=key-change"),
                EndReason::Reboot => format!("ended {fields} by=reboot"),
            })
        }
        Event::Restored(grant) => {
            let seconds = grant.until.saturating_sub(mono).as_secs();
            info(format!("restored {} seconds={seconds}", of(grant)))
        }
        Event::Retiring {
            key,
            number,
            ends,
            newer,
            ..
        } => {
            let until = date(*ends);
            info(format!(
                "retiring key={key} generation={number} until={until} newer={newer}"
            ))
        }
    }
}

fn of(grant: &Grant) -> String {
    fields(&grant.target, &grant.key)
}

fn fields(target: &Target, key: &KeyName) -> String {
    let Target { service, source } = target;
    format!("address={source} key={key} service={service}")
}

fn rejected(rejection: &Rejection) -> (Level, String) {
    let Rejection {
        key,
        source,
        service,
        authenticated,
        reason,
    } = rejection;
    let (level, word) = match reason.kind() {
        ReasonKind::Ignored => (Level::Notice, "ignored"),
        ReasonKind::Refused => (Level::Notice, "refused"),
        ReasonKind::Failed => (Level::Error, "failed"),
    };
    let is = if *authenticated { "address" } else { "source" };
    let mut line = format!("{word} {is}={source} key={key}");
    if reason.kind() != ReasonKind::Ignored {
        let service = service.map_or("all".to_owned(), |service| service.to_string());
        line = format!("{line} service={service}");
    }
    line = format!("{line} reason={}{}", reason.name(), apart(*reason));
    (level, line)
}

/// How far the clocks are apart, where that is the reason.
fn apart(reason: Reason) -> String {
    match reason.ahead() {
        Some(ahead) if ahead > 0 => format!(" ahead={ahead}"),
        Some(ahead) => format!(" behind={}", ahead.unsigned_abs()),
        None => String::new(),
    }
}
