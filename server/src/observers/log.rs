//! The log as an observer: each event is one line. What others can cause without end is
//! limited, each key by a budget of its own, so that nobody hides another key's lines.

use super::budget::Budget;
use super::lines;
use super::writer::{self, Level};
use crate::engine::{EndReason, Event, Now};
use oneknock_shared::name::KeyName;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Lines about rejected packets of one key in a minute.
const REJECTIONS: u32 = 30;
/// Lines in a minute about grants that were restored or ended in bulk.
const BULK: u32 = 100;

/// What was written lately.
#[derive(Debug, Default)]
pub struct EventLog {
    is_off: bool,
    keys: BTreeMap<Arc<KeyName>, Budget>,
    bulk: Budget,
}

impl EventLog {
    /// One that writes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self {
            is_off: true,
            ..Self::default()
        }
    }

    /// Writes the event's line, within its budget.
    pub fn on(&mut self, now: Now, event: &Event) {
        if self.is_off {
            return;
        }
        if let Some((level, line)) = self.line(now.mono, event) {
            writer::write(level, line);
        }
    }

    fn line(&mut self, mono: Duration, event: &Event) -> Option<(Level, String)> {
        let may = match event {
            Event::Rejected(rejection) => {
                let budget = self.keys.entry(Arc::clone(&rejection.key)).or_default();
                budget.take(mono, REJECTIONS)
            }
            Event::Restored(_)
            | Event::Ended {
                why: EndReason::Revoked | EndReason::KeyChanged | EndReason::Reboot,
                ..
            } => self.bulk.take(mono, BULK),
            _ => true,
        };
        lines::line(event, mono).filter(|_| may)
    }

    /// Says how many lines were suppressed in the minute that is over. To be called about
    /// once a second.
    pub fn tick(&mut self, now: Now) {
        for line in self.suppressed(now.mono) {
            writer::write(Level::Notice, line);
        }
    }

    fn suppressed(&mut self, mono: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, budget) in &mut self.keys {
            let suppressed = budget.take_suppressed(mono);
            lines.extend(suppressed.map(|count| format!("suppressed key={key} lines={count}")));
        }
        self.keys.retain(|_, budget| !budget.is_idle(mono));
        let suppressed = self.bulk.take_suppressed(mono);
        lines.extend(suppressed.map(|count| format!("suppressed lines={count}")));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Reason, Rejection};

    fn replayed(key: &str) -> Event {
        Event::Rejected(Rejection {
            key: Arc::new(key.parse().unwrap()),
            source: [192, 0, 2, 7].into(),
            service: None,
            authenticated: false,
            reason: Reason::Replayed,
        })
    }

    #[test]
    fn replayed_packet_of_one_key_hides_no_line_of_another() {
        let (mut log, now) = (EventLog::default(), Duration::from_secs(60));
        let lines = (0..1000).filter_map(|_| log.line(now, &replayed("laptop")));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 30);
        assert_eq!(
            lines[0],
            (
                Level::Notice,
                "ignored source=192.0.2.7 key=laptop reason=replayed".into()
            )
        );
        assert!(log.line(now, &replayed("phone")).is_some());
        let later = now + Duration::from_secs(60);
        assert_eq!(log.suppressed(later), ["suppressed key=laptop lines=970"]);
        assert!(log.keys.is_empty());
    }
}
