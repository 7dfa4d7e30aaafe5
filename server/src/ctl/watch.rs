//! `oneknockctl watch`: on a terminal a view that is drawn anew each second, of who is
//! admitted and of what happened last; elsewhere a line for everything that happens.

use super::ask::{Asked, NoAnswer};
use super::{Failure, print, say, words};
use crate::config::Paths;
use crate::control::answers::{ListedGrant, Watching, whole_seconds};
use crate::control::protocol::{Command, VERSION};
use crate::control::watch::{Happened, WatchEvent, WatchMessage};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How many grants, and how many events, a view shows: together they fit a terminal of 24
/// lines.
const GRANTS: usize = 10;
const EVENTS: usize = 8;

/// Runs until the daemon ends, or Ctrl-C.
pub fn watch(paths: &Paths, as_json: bool) -> Result<(), Failure> {
    let mut asked = Asked::new(paths, &Command::Watch)?;
    asked.answer::<Watching>()?;
    asked.wait_for_ever()?;
    if as_json {
        print(&serde_json::json!({ "v": VERSION }).to_string())?;
    } else if is_drawn_on() {
        draw(asked)?;
        return Err(ended());
    } else {
        say("watching; Ctrl-C ends it");
    }
    while let Some(watched) = asked.line::<WatchMessage>()? {
        if as_json {
            let text = serde_json::to_string(&watched);
            print(&text.map_err(|error| Failure::new("answer", error))?)?;
        } else {
            print(&line(&watched))?;
        }
    }
    Err(ended())
}

fn ended() -> Failure {
    Failure::Failed("the daemon has ended".into(), None)
}

fn is_drawn_on() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

fn line(watched: &WatchMessage) -> String {
    match watched {
        WatchMessage::Event(event) => words::event(event),
        WatchMessage::Dropped { dropped } => format!("({dropped} events dropped)"),
    }
}

/// Draws the view when something has happened, and each second.
fn draw(mut asked: Asked) -> Result<(), Failure> {
    let start = Instant::now();
    let (tell, told) = channel::<Result<Option<WatchMessage>, NoAnswer>>();
    thread::spawn(move || {
        loop {
            let line = asked.line();
            let is_last = !matches!(line, Ok(Some(_)));
            if tell.send(line).is_err() || is_last {
                return;
            }
        }
    });
    let mut view = View::default();
    loop {
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => match line? {
                Some(watched) => view.note(start.elapsed(), &watched),
                None => return Ok(()),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        // What has come together is drawn together.
        for line in told.try_iter() {
            match line? {
                Some(watched) => view.note(start.elapsed(), &watched),
                None => return Ok(()),
            }
        }
        show(&view.lines(start.elapsed()))?;
    }
}

/// From the terminal's first line on; what was there before is written over.
fn show(lines: &[String]) -> Result<(), Failure> {
    let mut text = String::from("\x1b[H");
    for line in lines {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Failure::new("cannot write the answer", error))
}

/// What the events so far come to. Times are since the watching began.
#[derive(Debug, Default)]
struct View {
    grants: BTreeMap<(String, String, IpAddr), Duration>,
    /// The latest last.
    events: VecDeque<String>,
    /// Whether events were left out: some grants may be missing, or be over.
    is_incomplete: bool,
}

impl View {
    fn note(&mut self, now: Duration, watched: &WatchMessage) {
        if let WatchMessage::Event(event) = watched {
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
        self.events.push_back(line(watched));
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

    fn lines(&self, now: Duration) -> Vec<String> {
        let live = self.grants.iter().filter(|(_, until)| **until > now);
        let live: Vec<_> = live.collect();
        let mut lines = vec![format!(
            "grants now: {}{}; Ctrl-C ends it",
            live.len(),
            if self.is_incomplete {
                ", as far as was seen: \"oneknockctl grants\" lists all"
            } else {
                ""
            }
        )];
        lines.push(words::GRANTS_HEAD.into());
        for ((key, service, address), until) in live.iter().take(GRANTS) {
            lines.push(words::grant(&ListedGrant {
                key: key.clone(),
                address: *address,
                service: service.clone(),
                seconds: whole_seconds(until.saturating_sub(now)),
            }));
        }
        if live.len() > GRANTS {
            lines.push(format!("(and {} more)", live.len() - GRANTS));
        }
        lines.push(String::new());
        lines.push("lately:".into());
        lines.extend(self.events.iter().cloned());
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
    fn a_view_counts_down_and_knows_who_is_in() {
        let mut view = View::default();
        view.note(at(0), &event(Happened::Open, 7, 60));
        view.note(at(1), &event(Happened::Granted, 8, 30));
        // Renewed, for less than it has.
        view.note(at(2), &event(Happened::Granted, 7, 10));
        let text = view.lines(at(11)).join("\n");
        assert!(text.starts_with("grants now: 2; "), "{text}");
        for part in ["192.0.2.7", " 49s", "192.0.2.8", " 20s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        view.note(at(12), &event(Happened::Revoked, 7, 0));
        let text = view.lines(at(31)).join("\n");
        assert!(text.starts_with("grants now: 0; "), "{text}");
        assert!(text.ends_with("revoked laptop 192.0.2.7 ssh"), "{text}");
    }

    #[test]
    fn a_view_is_never_longer_than_a_terminal_and_says_what_it_lacks() {
        let mut view = View::default();
        for last in 0..200 {
            view.note(at(0), &event(Happened::Open, last, 60));
            view.note(at(0), &event(Happened::Refused, last, 0));
        }
        view.note(at(0), &WatchMessage::Dropped { dropped: 3 });
        let lines = view.lines(at(1));
        assert!(lines.len() < 24, "{}", lines.len());
        let text = lines.join("\n");
        for part in [
            "200, as far as was seen",
            "(and 190 more)",
            "(3 events dropped)",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
