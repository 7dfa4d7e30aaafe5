//! Events in words, a line each. Pure.

use crate::clock::date;
use crate::control::answers::Rejected;
use crate::control::watch::{Happened, WatchEvent, WatchMessage};
use crate::ctl::words::span;
use crate::reasons;
use oneknock_shared::knock::Timestamp;

fn time(at_ms: u64) -> String {
    date(Timestamp(at_ms))
}

/// Why a packet was rejected, and what to do.
fn advice(event: &WatchEvent) -> String {
    let word = event.reason.as_deref().unwrap_or("");
    let Some(reason) = reasons::of(word) else {
        return word.into();
    };
    let means = match event.ahead_seconds {
        Some(ahead) => format!(
            "its clock is {} {} this machine's, or an old packet was sent again",
            span(ahead.unsigned_abs()),
            if ahead < 0 { "behind" } else { "ahead of" },
        ),
        None => reason.means.into(),
    };
    format!("{means}; hint: {} [{word}]", reason.act)
}

fn address(event: &WatchEvent) -> String {
    event
        .address
        .map_or("-".into(), |address| address.to_string())
}

/// A rejected packet.
fn denied(event: &WatchEvent, times: u64) -> String {
    let word = match event.event {
        Happened::Ignored => "ignored",
        Happened::Failed => "failed",
        _ => "refused",
    };
    let service = event.service.as_ref().map(|name| format!(" for {name}"));
    let forged = if event.authenticated {
        ""
    } else {
        " (may be forged)"
    };
    let times = match times {
        1 => String::new(),
        times => format!(", {times} times"),
    };
    format!(
        "{} {word} {} from {}{forged}{}{times}: {}",
        time(event.at_ms),
        event.key,
        address(event),
        service.unwrap_or_default(),
        advice(event)
    )
}

/// A rejected packet and its like.
pub fn rejected(rejected: &Rejected) -> String {
    denied(&rejected.last, rejected.times)
}

/// An event, or how many were dropped.
pub fn message(message: &WatchMessage) -> String {
    match message {
        WatchMessage::Event(one) => event(one),
        WatchMessage::Dropped { dropped } => format!("({dropped} events dropped)"),
    }
}

fn event(event: &WatchEvent) -> String {
    let (at, key) = (time(event.at_ms), &event.key);
    let seconds = span(event.seconds.unwrap_or(0));
    let word = match event.event {
        Happened::Granted => "granted",
        Happened::Open => "open",
        Happened::Closed => "closed",
        Happened::Expired => "expired",
        Happened::Revoked => "revoked",
        Happened::Refused | Happened::Ignored | Happened::Failed => return denied(event, 1),
        Happened::Retiring => {
            let generation = event.generation.unwrap_or(0);
            return format!(
                "{at} retiring {key} generation {generation}: it works for another {seconds}, since a newer one was used"
            );
        }
    };
    let service = event.service.as_deref().unwrap_or("all");
    let line = format!("{at} {word} {key} {} {service}", address(event));
    match event.event {
        Happened::Granted | Happened::Open => format!("{line} {seconds}"),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skewed(ahead: i64) -> WatchEvent {
        let address = Some([192, 0, 2, 7].into());
        WatchEvent {
            reason: Some("clock-skew".into()),
            ahead_seconds: Some(ahead),
            ..WatchEvent::new(1_800_000_000_000, Happened::Ignored, "laptop", address)
        }
    }

    #[test]
    fn clock_that_is_off_is_said_with_by_how_much() {
        let rejected = Rejected {
            last: skewed(-14_520),
            times: 3,
        };
        let text = super::rejected(&rejected);
        let start = "2027-01-15T08:00:00Z ignored laptop from 192.0.2.7";
        assert!(text.starts_with(start), "{text}");
        for part in [
            "3 times",
            "clock is 4h 2m behind",
            "hint: set the clock",
            "[clock-skew]",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let ahead = event(&skewed(61));
        assert!(ahead.contains("1m 1s ahead of"), "{ahead}");
    }

    #[test]
    fn reason_of_a_newer_daemon_is_passed_on() {
        let mut newer = skewed(0);
        newer.reason = Some("moon-phase".into());
        assert!(event(&newer).ends_with(": moon-phase"));
        newer.at_ms = u64::MAX;
        assert!(event(&newer).contains("moon-phase"));
    }
}
