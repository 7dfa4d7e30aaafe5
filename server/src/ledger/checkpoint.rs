//! Moves what was committed from the write-ahead log into the database, by a thread of
//! its own: it syncs, which takes milliseconds, and no knock waits for it.

use super::{FILE, store};
use rusqlite::Connection;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// The thread. Dropping it waits for what it is about.
#[derive(Debug)]
pub struct Checkpoints {
    ask: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. Where it cannot work the log is moved by a commit, once it is
    /// long ([`store::LONG_LOG`]): slower, never wrong.
    pub fn start(folder: &Path) -> Self {
        let (ask, asked) = sync_channel(1);
        let path = folder.join(FILE);
        let thread = std::thread::spawn(move || {
            let mut database: Option<Connection> = None;
            for () in asked {
                if database.is_none() {
                    database = store::connect(&path).ok();
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

    /// Asks for a checkpoint; never waits.
    pub fn ask(&self) {
        if let Some(ask) = &self.ask {
            // Full: one is asked for already. Closed: see `start`.
            let _ = ask.try_send(());
        }
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
