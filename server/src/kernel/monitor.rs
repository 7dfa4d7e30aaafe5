//! What other programs do to the guard's table, as nftables tells it: for a guard that the
//! kernel cannot keep to the daemon alone.
//!
//! A thread of its own reads the notifications, so that the thousands of another table's
//! elements hold nothing up, and wakes the daemon only for a change of another program to
//! the guard's table. The daemon's own changes are kept from the thread by the kernel: what
//! remains of the price of each is that the kernel writes a notification.

use super::latest::Latest;
use super::notification::{ForeignChange, TransactionReader};
use super::notification_socket::{NotificationSocket, StopOnDrop, StopSignal, ThreadEvent};
use netlink_sys::protocols::NETLINK_NETFILTER;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// How long after an error a new socket is tried.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Watches the guard's table. It ends when it is dropped.
#[derive(Debug)]
pub struct Monitor {
    latest: Arc<Latest<ForeignChange>>,
    _stop: StopOnDrop,
}

impl Monitor {
    /// Starts to watch the tables of this thread's network namespace. `own_port` is the
    /// netlink port of the socket that writes the guard's table: its changes are skipped.
    ///
    /// Changes before this call are not told: the caller looks at the table after it.
    /// `PermissionDenied` without `CAP_NET_ADMIN`.
    pub fn start(own_port: u32) -> io::Result<Self> {
        let socket = open(own_port)?;
        let (stop_on_drop, stop) = StopSignal::new()?;
        let latest = Arc::new(Latest::new());
        let thread = MonitorThread {
            own_port,
            stop,
            latest: Arc::clone(&latest),
        };
        thread::Builder::new()
            .name("nftables".into())
            .spawn(move || thread.run(socket))?;
        Ok(Self {
            latest,
            _stop: stop_on_drop,
        })
    }

    /// Waits until another program has changed the guard's table, or may have. Several
    /// changes since the last call are told as one. A wait that is dropped loses nothing.
    /// There may be one waiter at a time.
    pub async fn changed(&self) -> ForeignChange {
        self.latest.wait().await
    }

    /// What [`Monitor::changed`] would give at once.
    #[must_use]
    pub fn take_changed(&self) -> Option<ForeignChange> {
        self.latest.take()
    }
}

fn open(own_port: u32) -> io::Result<NotificationSocket> {
    NotificationSocket::open(NETLINK_NETFILTER, &[GROUP], Some(own_port))
}

struct MonitorThread {
    own_port: u32,
    stop: StopSignal,
    latest: Arc<Latest<ForeignChange>>,
}

impl MonitorThread {
    /// Reads until the thread is to stop. After an error it goes on with a new socket, and
    /// tells the daemon each time to look.
    fn run(&self, socket: NotificationSocket) {
        let mut socket = Ok(socket);
        loop {
            match socket.and_then(|socket| self.read(socket)) {
                Ok(()) => return,
                Err(error) => self.publish(ForeignChange::unknown(Some(error.to_string()))),
            }
            if !matches!(self.stop.sleep(RETRY_AFTER), Ok(ThreadEvent::TimedOut)) {
                return;
            }
            socket = open(self.own_port);
            if socket.is_ok() {
                self.publish(ForeignChange::unknown(None));
            }
        }
    }

    fn read(&self, mut socket: NotificationSocket) -> io::Result<()> {
        let mut reader = TransactionReader::new(self.own_port);
        while socket.wait(&self.stop, None)? != ThreadEvent::Stop {
            let is_lost = socket.drain(|datagram| reader.read(datagram, |c| self.publish(c)))?;
            if is_lost {
                self.publish(ForeignChange::unknown(None));
            }
        }
        Ok(())
    }

    fn publish(&self, change: ForeignChange) {
        self.latest.update(|earlier| change.after(earlier));
    }
}
