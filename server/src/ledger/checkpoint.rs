//! What takes the disk milliseconds, done by a thread of its own: no knock waits for it, but
//! for the rest of a log that is moved while thousands a second are committed.

use super::connect::connect;
use super::{FILE, store};
use rusqlite::Connection;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the thread is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// What was committed is on disk. The log stays as it is: after one that was moved as a
    /// whole, the next commit begins it anew, and syncs that.
    Sync,
    /// The log is moved into the database, since it has grown long.
    Move,
}

/// For so long the lock of those who write is waited for; it is held for a moment only.
const LOCK_WITHIN: Duration = Duration::from_millis(20);

/// Moves the log. Where more is committed all the while it never comes to an end, the log
/// never begins anew, and at last a commit moves all of it ([`super::connect::LONG_LOG`]): so
/// the rest, which is little by then, is moved while nobody commits.
fn is_moved(database: &Connection) -> bool {
    let moved = store::checkpoint(database, "PASSIVE");
    moved.is_ok_and(|all| all || store::checkpoint(database, "FULL").is_ok())
}

/// The thread. Dropping it waits for what it is about.
#[derive(Debug)]
pub struct Checkpoints {
    ask: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. Where it cannot work the log is moved by a commit, once it is
    /// long ([`super::connect::LONG_LOG`]): slower, never wrong.
    pub fn start(folder: &Path) -> Self {
        let (ask, asked) = sync_channel(1);
        let path = folder.join(FILE);
        let log = folder.join(format!("{FILE}-wal"));
        let thread = std::thread::spawn(move || {
            let mut database: Option<Connection> = None;
            for job in asked {
                if job == Job::Sync {
                    // SQLite holds no lock on the log, which closing it would let go.
                    let _ = File::open(&log).and_then(|log| log.sync_data());
                    continue;
                }
                if database.is_none() {
                    database = connect(&path).ok();
                    let patient = |db: &Connection| db.busy_timeout(LOCK_WITHIN).is_ok();
                    database = database.filter(patient);
                }
                if !database.as_ref().is_some_and(is_moved) {
                    database = None;
                }
            }
        });
        Self {
            ask: Some(ask),
            thread: Some(thread),
        }
    }

    /// Asks for a job; never waits. Whether it will be done: not where another one waits, or
    /// the thread has ended.
    pub fn ask(&self, job: Job) -> bool {
        self.ask
            .as_ref()
            .is_some_and(|ask| ask.try_send(job).is_ok())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
