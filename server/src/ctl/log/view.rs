//! The live view: the active grants, counting down, and the last events. Pure.

use super::text;
use crate::control::answers::{ListedGrant, whole_seconds};
use crate::control::watch::{Happened, WatchEvent, WatchMessage};
use crate::ctl::grants::grant_table;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How many events are kept: more than terminals have lines.
const EVENTS: usize = 200;

/// What the events so far come to. Times are since the view began.
#[derive(Debug, Default)]
pub struct View {
    grants: BTreeMap<(String, String, IpAddr), Duration>,
    /// The latest last.
    events: VecDeque<String>,
    /// Whether events were dropped: some grants may be missing, or have ended.
    is_incomplete: bool,
}

impl View {
    /// Takes note of a message.
    pub fn note(&mut self, now: Duration, message: &WatchMessage) {
        if let WatchMessage::Event(event) = message {
            self.count(now, event);
            if event.event == Happened::Open {
                return;
            }
        } else {
            self.is_incomplete = true;
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(text::message(message));
    }

    fn count(&mut self, now: Duration, event: &WatchEvent) {
        let service = event.service.clone().unwrap_or_default();
        let Some(address) = event.address else {
            return;
        };
        let place = (event.key.clone(), service, address);
        match event.event {
            Happened::Open | Happened::Granted => {
                let left = Duration::from_secs(event.seconds.unwrap_or(0));
                let until = self.grants.entry(place).or_default();
                // To open again never shortens.
                *until = (*until).max(now.saturating_add(left));
            }
            Happened::Closed | Happened::Expired | Happened::Revoked => {
                self.grants.remove(&place);
            }
            Happened::Refused | Happened::Ignored | Happened::Failed | Happened::Retiring => {}
        }
    }

    /// The lines for a terminal of so many columns and lines: never more, and none longer.
    pub fn lines(&self, now: Duration, (width, height): (usize, usize)) -> Vec<String> {
        let live = self.grants.iter().filter(|(_, until)| **until > now);
        let live = live.map(|((key, service, address), until)| ListedGrant {
            key: key.clone(),
            address: *address,
            service: service.clone(),
            seconds: whole_seconds(until.saturating_sub(now)),
        });
        let live: Vec<ListedGrant> = live.collect();
        // The rest is what is left of half of it, for events.
        let room = (height / 2).saturating_sub(4).max(1);
        let count = live.len();
        let mut lines = vec![format!("active grants: {count}; Ctrl-C ends it")];
        if self.is_incomplete {
            lines[0].push_str("; some may be missing: oneknockctl grants");
        }
        lines.extend(grant_table(live.into_iter().take(room)));
        if count > room {
            lines.push(format!("({} more)", count - room));
        }
        lines.extend([String::new(), "last events:".into()]);
        let left = height.saturating_sub(lines.len());
        let skipped = self.events.len().saturating_sub(left);
        lines.extend(self.events.iter().skip(skipped).cloned());
        lines.truncate(height);
        for line in &mut lines {
            if let Some((end, _)) = line.char_indices().nth(width) {
                line.truncate(end);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: Happened, last: u8, seconds: u64) -> WatchMessage {
        WatchMessage::Event(WatchEvent {
            service: Some("ssh".into()),
            seconds: Some(seconds),
            ..WatchEvent::new(0, event, "laptop", Some([192, 0, 2, last].into()))
        })
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn view_counts_down_and_drops_what_has_ended() {
        let mut view = View::default();
        view.note(at(0), &event(Happened::Open, 7, 60));
        view.note(at(1), &event(Happened::Granted, 8, 30));
        // Renewed, for less than it has.
        view.note(at(2), &event(Happened::Granted, 7, 10));
        let text = view.lines(at(11), (80, 24)).join("\n");
        assert!(text.starts_with("active grants: 2; "), "{text}");
        for part in ["192.0.2.7", " 49s", "192.0.2.8", " 20s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        view.note(at(12), &event(Happened::Revoked, 7, 0));
        let text = view.lines(at(31), (80, 24)).join("\n");
        assert!(text.starts_with("active grants: 0; "), "{text}");
        assert!(text.ends_with("revoked laptop 192.0.2.7 ssh"), "{text}");
    }

    #[test]
    fn view_is_clipped_to_the_terminal_and_says_what_it_lacks() {
        let mut view = View::default();
        for last in 0..200 {
            view.note(at(0), &event(Happened::Open, last, 60));
            view.note(at(0), &event(Happened::Refused, last, 0));
        }
        view.note(at(0), &WatchMessage::Dropped { dropped: 3 });
        for (width, height) in [(80, 24), (40, 10), (20, 5), (200, 60), (1, 1)] {
            let lines = view.lines(at(1), (width, height));
            assert!(lines.len() <= height, "{}", lines.len());
            assert!(
                lines.iter().all(|line| line.chars().count() <= width),
                "{lines:?}"
            );
        }
        let text = view.lines(at(1), (80, 24)).join("\n");
        for part in [
            "active grants: 200",
            "some may be missing",
            "(192 more)",
            "(3 events dropped)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
