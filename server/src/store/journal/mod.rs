//! The journal: what the spent log comes to, for people, in a database. It decides
//! nothing. A thread reads the log behind its writer, in the same files, and makes rows of the
//! records; so no packet waits for it, nothing that it has not read is lost while the log is
//! there, and a journal that was lost is made again from the log.

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
use super::keeper::Tidier;
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

/// How the journal is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct JournalStatus {
    /// What keeps it from being written. It is tried again; meanwhile the log keeps what it
    /// lacks, for some time.
    pub trouble: Option<String>,
    /// What was wrong with the file that was found, and what became of it.
    pub replaced: Option<String>,
    /// For how long it has not had everything that the log has; by the clock since boot, as of
    /// what was last published.
    pub lag: Duration,
    /// Segments of the log that were gone before it had read them.
    pub lost_segments: u64,
}

/// What the journal's thread is asked for.
#[derive(Debug)]
struct Wanted {
    /// The last record of the log that is to be read.
    target: u64,
    now: Now,
    /// The target that was read up to, and when that was one, since boot.
    done: u64,
    done_at: Duration,
    retention: Duration,
    stop: Option<Stop>,
    flushes: Vec<(u64, SyncSender<Result<(), String>>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// When everything was read.
    Finished,
    /// At once: the next start reads the rest.
    AtOnce,
}

/// What the thread and its owner share.
#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    status: Mutex<JournalStatus>,
    /// The segment that is read next.
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

/// What the thread has to know.
#[derive(Debug)]
pub(super) struct JournalSettings {
    pub directory: StateDirectory,
    /// Why a database that is there is not to be trusted.
    pub untrusted: Option<String>,
    /// The id of this boot of the machine.
    pub boot: String,
    /// Whether this run is the first of this boot.
    pub first_of_boot: bool,
    /// The segment that this run begins with.
    pub first_segment: u32,
    pub retention: Duration,
    pub now: Now,
}

/// The thread. Dropping it ends the thread after the commit that it is at.
#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Starts the thread. It reads what the journal lacks of earlier runs, then this run's
    /// records, as they are published.
    pub fn start(settings: JournalSettings, segment: Arc<AtomicU32>, tidier: Tidier) -> Self {
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
        let worker = worker::Worker::new(settings, Arc::clone(&shared), tidier);
        let thread = std::thread::spawn(move || worker.run());
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Has the log read up to this record.
    pub fn publish(&self, target: u64, now: Now) {
        let mut wanted = self.shared.wanted();
        (wanted.target, wanted.now) = (target, now);
        drop(wanted);
        self.shared.changed.notify_one();
    }

    /// How long rows are kept after the newest one.
    pub fn set_retention(&self, retention: Duration) {
        self.shared.wanted().retention = retention;
    }

    /// Gets an answer when everything that was published until now is in the journal: or why
    /// it is not.
    pub fn flush(&self) -> Receiver<Result<(), String>> {
        let (answer, answered) = sync_channel(1);
        let mut wanted = self.shared.wanted();
        let target = wanted.target;
        wanted.flushes.push((target, answer));
        drop(wanted);
        self.shared.changed.notify_one();
        answered
    }

    /// How it is.
    pub fn status(&self) -> JournalStatus {
        let mut status = self.shared.status().clone();
        let wanted = self.shared.wanted();
        if wanted.done != wanted.target {
            status.lag = wanted.now.mono.saturating_sub(wanted.done_at);
        }
        status
    }

    /// Ends the thread when everything that was published is in the journal, if that can be.
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
