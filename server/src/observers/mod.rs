//! Who reads events: the log, the counters, the memory of rejections, and those who watch.
//! An event is handed to all of them at one place, [`Observers::on`].

mod budget;
mod counters;
mod lines;
mod log;
mod rejections;
mod unknown;
pub mod writer;

pub use counters::Counters;
pub use log::EventLog;
pub use rejections::RejectionMemory;
pub use unknown::UnknownSelectors;
pub use writer::{Level, flush, say, write};

use crate::control::watch::{WatchEvent, WatchMessage};
use crate::engine::{Event, Now};

/// All observers but the journal, which is the store's.
#[derive(Debug, Default)]
pub struct Observers {
    /// Datagrams by outcome.
    pub counters: Counters,
    /// The last rejected packets.
    pub rejections: RejectionMemory,
    /// The last packets of no known key.
    pub unknown: UnknownSelectors,
    log: EventLog,
}

impl Observers {
    /// Those of a process that is not the daemon: nothing is logged.
    #[must_use]
    pub fn without_log() -> Self {
        Self {
            log: EventLog::off(),
            ..Self::default()
        }
    }

    /// Takes note of an event. Returns what those who watch are told of it.
    pub fn on(&mut self, now: Now, event: &Event) -> Option<WatchMessage> {
        self.counters.on(event);
        self.log.on(now, event);
        let told = WatchEvent::of(now, event)?;
        self.rejections.note(&told);
        Some(WatchMessage::Event(told))
    }

    /// To be called about once a second.
    pub fn tick(&mut self, now: Now) {
        self.log.tick(now);
    }
}
