//! Log lines: one an event, `key=value`, for journald, fail2ban and people.
//!
//! `address=` stands only where a source is the key holder's own; a source that may be
//! forged is `unproven=`, so that no filter bans an address for what a thief sent.
//! What anybody can cause without end is limited: a few lines a minute, then a count.

use crate::clock::date;
use crate::config::one_line;
use crate::gate::{Accepted, Held, Place, Refused, Verdict};
use oneknock_shared::name::KeyName;
use std::fmt::Display;
use std::io::{self, Write};
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Lines about refused and ignored packets in a minute.
const LINES: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// Lines that wait for a slow reader. When as many wait, further ones are lost and
/// counted: a log that nobody reads must not hold the daemon up.
const WAITING: usize = 1024;
/// So many more than one are written together.
const AT_ONCE: usize = 63;

enum Entry {
    Line(String),
    /// Everything before it is written: say so.
    Flush(SyncSender<()>),
}

static WRITER: LazyLock<SyncSender<Entry>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::spawn(move || write_all(&receiver));
    sender
});

/// Lines lost since the last one that was written.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Whole lines, as many as wait, by one call each time.
fn write_all(entries: &Receiver<Entry>) {
    for first in entries {
        let mut text = Vec::new();
        let mut flushed = Vec::new();
        for entry in iter::once(first).chain(entries.try_iter().take(AT_ONCE)) {
            match entry {
                Entry::Line(line) => {
                    let lost = LOST.swap(0, Ordering::Relaxed);
                    if lost > 0 {
                        let _ = writeln!(text, "oneknockd: lines lost before this one: {lost}");
                    }
                    // A Vec takes whatever is written to it.
                    let _ = writeln!(text, "oneknockd: {line}");
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

/// Writes one line to standard error, by a thread of its own: never waits.
pub fn line(text: impl Display) {
    let text = one_line(&text.to_string());
    if WRITER.try_send(Entry::Line(text)).is_err() {
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until what was logged is written, a second at most.
pub fn flush() {
    let (done, written) = sync_channel(1);
    if WRITER.try_send(Entry::Flush(done)).is_ok() {
        let _ = written.recv_timeout(Duration::from_secs(1));
    }
}

/// Writes the lines of verdicts, within the limit.
#[derive(Debug, Default)]
pub struct Log {
    since: Duration,
    lines: u32,
    suppressed: u64,
}

impl Log {
    /// What the line for a refused or ignored packet is now, if there is to be one.
    #[must_use]
    pub fn refusal(&mut self, now: Duration, verdict: &Verdict) -> Option<String> {
        let text = match verdict {
            Verdict::Ignored { key, source, why } => {
                let apart = match why.ahead() {
                    Some(ahead) if ahead > 0 => format!(" ahead={ahead}"),
                    Some(ahead) => format!(" behind={}", ahead.unsigned_abs()),
                    None => String::new(),
                };
                let word = why.word();
                format!("ignored unproven={source} key={key} reason={word}{apart}")
            }
            Verdict::Refused(refused) => refused_text(refused),
            Verdict::Junk(_) | Verdict::Accepted(_) => return None,
        };
        if now.saturating_sub(self.since) >= MINUTE {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines == LINES {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(match std::mem::take(&mut self.suppressed) {
            0 => text,
            more => format!("{text} unlogged={more}"),
        })
    }
}

fn refused_text(refused: &Refused) -> String {
    let Refused {
        key,
        source,
        service,
        proven,
        why,
    } = refused;
    let source_is = if *proven { "address" } else { "unproven" };
    let service = service.map_or("all".to_owned(), |s| s.to_string());
    format!(
        "refused {source_is}={source} key={key} service={service} reason={}",
        why.word()
    )
}

/// The lines of an accepted packet whose changes are made.
#[must_use]
pub fn accepted(accepted: &Accepted) -> Vec<String> {
    let key = &accepted.key;
    let lines = accepted.told().map(|(place, time)| {
        let (address, service) = (place.address, place.service);
        match time {
            Some(time) => {
                let seconds = time.as_secs();
                format!("granted address={address} key={key} service={service} seconds={seconds}")
            }
            None => format!("closed address={address} key={key} service={service}"),
        }
    });
    let retiring = accepted.retired.iter().map(|retired| {
        let (number, newer) = (retired.number, accepted.number);
        let until = date(retired.at);
        format!("retiring key={key} generation={number} until={until} newer={newer}")
    });
    lines.chain(retiring).collect()
}

/// So many lines at the most tell what happened to many grants at once.
const MOST_TOLD: usize = 100;

/// The lines of grants that ended before their time, without anybody having asked for just
/// that: a reload or a start ended them.
#[must_use]
pub fn revoked(claims: &[(Arc<KeyName>, Place)]) -> Vec<String> {
    at_once(
        claims.len(),
        claims.iter().map(|(key, place)| {
            let (address, service) = (place.address, place.service);
            format!("revoked address={address} key={key} service={service}")
        }),
    )
}

/// The lines of grants that an earlier run made and that still have time.
#[must_use]
pub fn restored(held: &[Held]) -> Vec<String> {
    at_once(
        held.len(),
        held.iter().map(|held| {
            let (key, seconds) = (&held.key, held.left.as_secs());
            let (address, service) = (held.place.address, held.place.service);
            format!("restored address={address} key={key} service={service} seconds={seconds}")
        }),
    )
}

fn at_once(count: usize, lines: impl Iterator<Item = String>) -> Vec<String> {
    let more = count.saturating_sub(MOST_TOLD);
    let more = (more > 0).then(|| format!("and of such grants more: {more}"));
    lines.take(MOST_TOLD).chain(more).collect()
}

/// The lines of an accepted packet whose changes could not be recorded or made: the
/// machine's failure, and nobody's to be banned for.
#[must_use]
pub fn failed(accepted: &Accepted, reason: &str, why: &dyn Display) -> Vec<String> {
    let key = &accepted.key;
    let lines = accepted.asked.iter().map(|(place, _)| {
        let (address, service) = (place.address, place.service);
        format!("failed unproven={address} key={key} service={service} reason={reason}: {why}")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Ignored;
    use std::sync::Arc;

    #[test]
    fn lines_that_a_thief_can_cause_are_few_and_name_no_address_to_ban() {
        let mut log = Log::default();
        let verdict = Verdict::Ignored {
            key: Arc::new("laptop".parse().unwrap()),
            source: [192, 0, 2, 7].into(),
            why: Ignored::Replayed,
        };
        let lines = (0..1000).filter_map(|_| log.refusal(MINUTE, &verdict));
        let lines: Vec<String> = lines.collect();
        assert_eq!(lines.len(), 30);
        assert_eq!(
            lines[0],
            "ignored unproven=192.0.2.7 key=laptop reason=replayed"
        );
        assert!(lines.iter().all(|line| !line.contains("address=")));
        let later = log.refusal(2 * MINUTE, &verdict).unwrap();
        assert!(later.ends_with("unlogged=970"), "{later}");
    }
}
