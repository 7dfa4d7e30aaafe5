//! `oneknockctl log --follow`: a line for each event, or on a terminal the live view.

use super::view::View;
use super::{Log, text};
use crate::config::Paths;
use crate::control::answers::Watching;
use crate::control::protocol::{Command, Selection};
use crate::control::watch::{Happened, WatchEvent, WatchMessage};
use crate::ctl::Failure;
use crate::ctl::ask::{Connection, NoAnswer};
use crate::ctl::output::{print, print_json, say, written};
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Runs until the daemon ends, or Ctrl-C.
pub fn follow(paths: &Paths, log: &Log) -> Result<(), Failure> {
    let mut connection = Connection::new(paths, &Command::Watch)?;
    connection.answer::<Watching>()?;
    connection.clear_timeout()?;
    if !log.json && is_drawn_on() {
        draw(connection, log)?;
        return Err(ended());
    }
    say("following; Ctrl-C ends it");
    while let Some(message) = connection.line::<WatchMessage>()? {
        match &message {
            one if !is_meant(log, one) => {}
            one if log.json => print_json(one)?,
            one => print(&text::message(one))?,
        }
    }
    Err(ended())
}

fn ended() -> Failure {
    Failure::NotRunning("the daemon has stopped".into(), None)
}

fn is_drawn_on() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb
}

/// Whether it was asked for.
fn is_meant(log: &Log, message: &WatchMessage) -> bool {
    let WatchMessage::Event(event) = message else {
        return true;
    };
    let is_denied = matches!(
        event.event,
        Happened::Refused | Happened::Ignored | Happened::Failed
    );
    let is_of = |of: &Selection, event: &WatchEvent| match of {
        Selection::All => true,
        Selection::Key(key) => event.key == key.as_str(),
        Selection::Address(address) => event.address == Some(*address),
    };
    (is_denied || !log.denied) && log.of.as_ref().is_none_or(|of| is_of(of, event))
}

/// Draws the view when something has happened, and each second.
fn draw(mut connection: Connection, log: &Log) -> Result<(), Failure> {
    let start = Instant::now();
    let (sender, messages) = channel::<Result<Option<WatchMessage>, NoAnswer>>();
    thread::spawn(move || {
        loop {
            let line = connection.line();
            let is_last = !matches!(line, Ok(Some(_)));
            if sender.send(line).is_err() || is_last {
                return;
            }
        }
    });
    let mut view = View::default();
    loop {
        let first = match messages.recv_timeout(Duration::from_secs(1)) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // What has come together is drawn together.
        for line in first.into_iter().chain(messages.try_iter()) {
            match line? {
                Some(message) if is_meant(log, &message) => view.note(start.elapsed(), &message),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        show(&view.lines(start.elapsed(), size()))?;
    }
}

/// The terminal's columns and lines; those that every terminal has where it does not say.
fn size() -> (usize, usize) {
    match terminal_size::terminal_size_of(io::stdout()) {
        Some((terminal_size::Width(width), terminal_size::Height(height))) if width > 0 => {
            (width.into(), height.into())
        }
        _ => (80, 24),
    }
}

/// From the terminal's first line on; what was there before is written over.
fn show(lines: &[String]) -> Result<(), Failure> {
    let mut text = String::from("\x1b[H");
    for (number, line) in lines.iter().enumerate() {
        text.push_str(if number > 0 { "\r\n" } else { "" });
        text.push_str(line);
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}
