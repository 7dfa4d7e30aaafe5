//! The journal: history and last use, for people, in a database. It decides nothing.
//!
//! A thread reads the spent log behind its writer, in the same files, and projects the records
//! to rows. So no packet waits for the database, a slow database loses nothing while the log is
//! there, and a lost journal is made again from the log.

mod columns;
mod cursor;
mod database;
mod projector;
mod pruning;
mod read;
mod rows;
mod worker;

pub use read::{
    ConnectionFilter, GenerationUse, HistoryRow, granted_since_boot, history, opened_targets, uses,
};

pub(super) use database::create;

use super::directory::StateDirectory;
use super::maintenance::CleanupHandle;
use crate::engine::Now;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The database's name in the state directory.
const DATABASE: &str = "journal.db";
/// All that the database is made of.
pub(super) const FILES: [&str; 3] = ["journal.db", "journal.db-wal", "journal.db-shm"];

/// What is wrong with the journal, if anything.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct JournalStatus {
    /// Why it cannot be written, until it can. The thread tries again every 5 seconds.
    pub trouble: Option<String>,
    /// What was wrong with a database that was moved aside in this run, and its new name.
    pub replaced: Option<String>,
    /// How long it has been behind the log.
    pub lag: Duration,
    /// How often it missed records, since segments were removed before it had read them: the
    /// log keeps 16 for it. Grants that are live are in the history all the same.
    pub gaps: u64,
}

/// What the thread is asked for.
#[derive(Debug)]
struct Wanted {
    /// The last record of the log that is to be read: segment * 2^32 + index.
    target: u64,
    now: Now,
    /// The target that was reached, and the time that was published with it, since boot.
    done: u64,
    done_at: Duration,
    retention: Duration,
    stop: Option<Stop>,
    /// Each with the target that it waits for.
    flushes: Vec<(u64, SyncSender<Result<(), String>>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// When the target is reached.
    Finished,
    /// After the current commit: the next start reads the rest.
    AtOnce,
}

/// What the thread shares with its owner.
#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    status: Mutex<JournalStatus>,
    /// The number of the segment that is read.
    segment: Arc<AtomicU32>,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> MutexGuard<'_, JournalStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread is started with.
#[derive(Debug)]
pub(super) struct JournalSettings {
    pub directory: StateDirectory,
    /// Why a database that is there is not trusted.
    pub untrusted: Option<String>,
    /// The id of this boot of the machine.
    pub boot: String,
    /// Whether this run is the first of this boot.
    pub first_of_boot: bool,
    /// The number of the segment that this run begins with.
    pub first_segment: u32,
    pub retention: Duration,
    pub now: Now,
}

/// The thread. Dropping it ends the thread after its current commit.
#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Starts the thread. It projects what the journal lacks of earlier runs, and then this run's
    /// records as they are published.
    pub fn start(
        settings: JournalSettings,
        segment: Arc<AtomicU32>,
        cleanup: CleanupHandle,
    ) -> Self {
        let wanted = Wanted {
            target: u64::from(settings.first_segment) << 32,
            now: settings.now,
            done: 0,
            done_at: settings.now.mono,
            retention: settings.retention,
            stop: None,
            flushes: Vec::new(),
        };
        let shared = Arc::new(Shared {
            wanted: Mutex::new(wanted),
            changed: Condvar::new(),
            status: Mutex::default(),
            segment,
        });
        let worker = worker::Worker::new(settings, Arc::clone(&shared), cleanup);
        let thread = std::thread::spawn(move || worker.run());
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Has the thread read the log up to this record; never waits for it.
    pub fn publish(&self, target: u64, now: Now) {
        let mut wanted = self.shared.wanted();
        (wanted.target, wanted.now) = (target, now);
        drop(wanted);
        self.shared.changed.notify_one();
    }

    /// Sets how long rows are kept.
    pub fn set_retention(&self, retention: Duration) {
        self.shared.wanted().retention = retention;
    }

    /// Has the thread read the log up to this record, and answer when that is done or has failed.
    pub fn flush(&self, target: u64) -> Receiver<Result<(), String>> {
        let (answer, answered) = sync_channel(1);
        let mut wanted = self.shared.wanted();
        wanted.target = target;
        wanted.flushes.push((target, answer));
        drop(wanted);
        self.shared.changed.notify_one();
        answered
    }

    /// What is wrong, if anything.
    pub fn status(&self) -> JournalStatus {
        let mut status = self.shared.status().clone();
        let wanted = self.shared.wanted();
        if wanted.done != wanted.target {
            status.lag = wanted.now.mono.saturating_sub(wanted.done_at);
        }
        status
    }

    /// Ends the thread when everything that was published is in the journal: within 5 seconds.
    pub fn finish(mut self) {
        self.stop(Stop::Finished);
    }

    fn stop(&mut self, how: Stop) {
        self.shared.wanted().stop = Some(how);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop(Stop::AtOnce);
    }
}

#[cfg(test)]
mod tests;
