//! What a person at a terminal sees while the port is waited for: one line on standard
//! error that is written over, and taken away in the end. Without a terminal, nothing.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// What takes no longer than this needs no word.
const PATIENCE: Duration = Duration::from_millis(500);

/// The line.
#[derive(Debug)]
pub struct Progress {
    what: String,
    on_terminal: bool,
    /// How many columns of the terminal it takes.
    width: AtomicUsize,
}

impl Progress {
    /// A line that says this, and for how long already.
    #[must_use]
    pub fn new(what: String) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            what,
            on_terminal: io::stderr().is_terminal() && !is_dumb,
            width: AtomicUsize::new(0),
        }
    }

    /// No line at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            what: String::new(),
            on_terminal: false,
            width: AtomicUsize::new(0),
        }
    }

    /// Shows it while this is waited for.
    pub async fn during<T>(&self, waited_for: impl Future<Output = T>) -> T {
        if !self.on_terminal {
            return waited_for.await;
        }
        let mut waited_for = pin!(waited_for);
        let start = Instant::now();
        let mut tick = interval_at(start + PATIENCE, PATIENCE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                done = &mut waited_for => {
                    self.take_away();
                    return done;
                }
                _ = tick.tick() => self.show(start.elapsed()),
            }
        }
    }

    fn show(&self, since: Duration) {
        let line = format!("oneknock: {}, {} s", self.what, since.as_secs());
        self.take_away();
        self.width.store(line.chars().count(), Ordering::Relaxed);
        // Where standard error is closed there is nobody to tell.
        let _ = write!(io::stderr(), "{line}");
        let _ = io::stderr().flush();
    }

    /// Takes it away, so that something else can be said in its place.
    pub fn take_away(&self) {
        let width = self.width.swap(0, Ordering::Relaxed);
        if width > 0 {
            let _ = write!(io::stderr(), "\r{:width$}\r", "");
            let _ = io::stderr().flush();
        }
    }
}
