//! What the service manager that started the daemon hears: that it is ready, that its loop
//! still turns, and that it ends. Without a manager, nothing.
//!
//! A thread says it, so that a manager that does not read holds nothing up; the loop has it
//! said, so that a stuck loop is found.

use sd_notify::NotifyState;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug)]
pub struct Manager {
    watchdog: Option<SyncSender<()>>,
}

impl Manager {
    /// The guard is up and the sockets are bound. Where that cannot be said it is an error:
    /// the manager would wait for it, and end the daemon in the end.
    pub fn ready() -> io::Result<Self> {
        sd_notify::notify(&[NotifyState::Ready]).map_err(|error| {
            let what = format!("the service manager cannot be told (NOTIFY_SOCKET): {error}");
            io::Error::new(error.kind(), what)
        })?;
        let wants: Option<Duration> = sd_notify::watchdog_enabled();
        Ok(Self {
            watchdog: wants.map(|_| Self::start()),
        })
    }

    fn start() -> SyncSender<()> {
        let (turns, heard) = sync_channel::<()>(1);
        std::thread::spawn(move || {
            for () in heard {
                // One that is lost is followed by the next.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        });
        turns
    }

    /// The loop turns: to be called by the loop itself.
    pub fn ping_watchdog(&self) {
        if let Some(watchdog) = &self.watchdog {
            // Where the last one is not said yet, that one will do.
            let _ = watchdog.try_send(());
        }
    }

    /// The daemon is about to end, because it was asked to.
    pub fn stopping() {
        std::thread::spawn(|| {
            // The manager sees the end itself.
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
        });
    }
}
