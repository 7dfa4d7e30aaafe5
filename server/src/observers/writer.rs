//! The log itself: whole lines to standard error, by a thread of its own that nobody waits
//! for.
//!
//! Under systemd's journal each line begins with its severity (`sd-daemon(3)`); elsewhere
//! with the program's name.

use crate::config::one_line;
use std::fmt::Display;
use std::io::{self, Write};
use std::iter;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// How bad a line is, by the numbers of RFC 5424, section 6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something does not work.
    Error = 3,
    /// Something may not work, or will not.
    Warning = 4,
    /// Somebody should look at it when there is time: a rejected packet.
    Notice = 5,
    /// What is to be expected.
    Info = 6,
}

/// Lines that wait for a slow reader. When as many wait, further ones are dropped and
/// counted: a log that nobody reads must not hold the daemon up.
const QUEUE: usize = 1024;
/// So many more than one are written together.
const BATCH: usize = 63;

enum Entry {
    Line(Level, String),
    /// Everything before it is written: say so.
    Flush(SyncSender<()>),
}

static WRITER: LazyLock<SyncSender<Entry>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel(QUEUE);
    // systemd names the stream that it has made for the journal.
    let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    std::thread::spawn(move || write_all(&receiver, is_journal));
    sender
});

/// Lines dropped since the last one that was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Whole lines, as many as wait, by one call each time.
fn write_all(entries: &Receiver<Entry>, is_journal: bool) {
    for first in entries {
        let mut text = Vec::new();
        let mut flushed = Vec::new();
        for entry in iter::once(first).chain(entries.try_iter().take(BATCH)) {
            match entry {
                Entry::Line(level, line) => {
                    let dropped = DROPPED.swap(0, Ordering::Relaxed);
                    if dropped > 0 {
                        let line = format!("dropped lines={dropped}");
                        put(&mut text, is_journal, Level::Warning, &line);
                    }
                    put(&mut text, is_journal, level, &line);
                }
                Entry::Flush(done) => flushed.push(done),
            }
        }
        // Where standard error is closed there is nowhere to say so.
        let _ = io::stderr().write_all(&text);
        for done in flushed {
            let _ = done.send(());
        }
    }
}

fn put(text: &mut Vec<u8>, is_journal: bool, level: Level, line: &str) {
    // A Vec takes whatever is written to it.
    let _ = if is_journal {
        writeln!(text, "<{}>{line}", level as u8)
    } else {
        writeln!(text, "oneknockd: {line}")
    };
}

/// Writes one line: an event, its `key=value` fields, and never more than one line. It never
/// waits.
pub fn write(level: Level, line: impl Display) {
    let line = one_line(&line.to_string());
    if WRITER.try_send(Entry::Line(level, line)).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes a line whose event is told by a sentence: `event msg="sentence"`.
pub fn say(level: Level, event: &str, sentence: impl Display) {
    let sentence = sentence
        .to_string()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    write(level, format_args!("{event} msg=\"{sentence}\""));
}

/// Waits until what was logged is written, a second at most.
pub fn flush() {
    let (done, written) = sync_channel(1);
    if WRITER.try_send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_severity_in_the_journal_and_a_name_elsewhere() {
        let mut text = Vec::new();
        put(&mut text, true, Level::Warning, "reloaded keys=1");
        put(&mut text, false, Level::Info, "reloaded keys=1");
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "<4>reloaded keys=1\noneknockd: reloaded keys=1\n");
    }
}
