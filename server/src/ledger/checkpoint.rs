//! What takes the disk milliseconds, done by a thread of its own: no knock waits for it.

use super::connect::connect;
use super::{FILE, store};
use rusqlite::Connection;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What the thread is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// What was committed is on disk. The log stays as it is: after one that was moved as a
    /// whole, the next commit begins it anew, and syncs that.
    Sync,
    /// The log is moved into the database, since it has grown long.
    Move,
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
                }
                let moved = database
                    .as_ref()
                    .is_some_and(|db| store::checkpoint(db, "PASSIVE").is_ok());
                if !moved {
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
