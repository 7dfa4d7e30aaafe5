//! Engine, store and kernel as one: what the daemon runs behind its sockets, and what
//! oneknockctl runs where no daemon does.
//!
//! Each packet goes one way: judge, append, commit, sync, publish. Nothing is taken back.

mod guard;
mod revoke;
mod settings;
mod start;

pub use revoke::{Disconnection, GuardedConnections, log_revoked};
pub use settings::ServerSettings;
pub use start::{OpenError, Opened};

use crate::clock::Clock;
use crate::config::Paths;
use crate::control::watch::WatchMessage;
use crate::engine::{Engine, Event, Junk, Now, Reason, Spend};
use crate::kernel::{BlockedConnections, Kernel, KernelError};
use crate::observers::{self, Level, Observers};
use crate::store::{SpentLog, Store, StoreError};
use std::net::IpAddr;

/// Engine, store, kernel and observers.
pub struct Server {
    /// The one place where clocks are read.
    pub clock: Clock,
    /// Where everything is.
    pub paths: Paths,
    /// What the administrator wrote.
    pub settings: ServerSettings,
    /// Judges, and knows what is open.
    pub engine: Engine,
    /// The guard.
    pub kernel: Kernel,
    /// Who reads events.
    pub observers: Observers,
    /// The spent log, and the journal that follows it.
    pub store: Store,
    /// Connections whose packets the guard drops.
    blocked: BlockedConnections,
    /// Whether the guard's prefilter lets everything of a knock's length pass: it could not be
    /// filled.
    pub prefilter_open: bool,
    /// Packets that are judged, and not appended yet.
    batch: Vec<Spend>,
    /// Why the kernel does not hold the desired state, where it does not.
    sync_error: Option<String>,
    /// What else the kernel is to hold, and may lack.
    unwritten: Unwritten,
    /// Why it lacks it, where it does.
    unwritten_error: Option<String>,
    /// Why outcomes could not be appended to the log, where they could not.
    store_error: Option<String>,
    /// What the disk refuses to the thread that keeps the log small.
    log_trouble: Option<String>,
    /// Why the journal is behind the log.
    journal_trouble: Option<String>,
    /// What the journal has lost.
    journal_loss: Option<String>,
    /// What those who watch have not been told yet.
    told: Vec<WatchMessage>,
}

/// What the kernel is to hold besides allow entries, where it could not be written: it is tried
/// again with each tick.
#[derive(Debug, Default, Clone, Copy)]
struct Unwritten {
    /// Connections whose packets the guard drops.
    blocked: bool,
    /// Default gateways that the port sequence never admits.
    gateways: bool,
}

impl Server {
    /// Judges a datagram; what passes waits for [`Server::settle`].
    pub fn datagram(&mut self, now: Now, source: IpAddr, bytes: &[u8]) {
        match self.engine.judge(now, source, bytes) {
            Ok(spend) => self.batch.push(spend),
            Err(event) => {
                if event == Event::Junk(Junk::Selector) {
                    self.observers.unknown.note(now.wall.0, source, bytes);
                }
                self.observe(now, &event);
            }
        }
    }

    /// Appends what has arrived together to the log, commits it and has the kernel told.
    /// Where the log fails nothing is granted; the packets are spent.
    pub fn settle(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let now = self.clock.now();
        let batch = std::mem::take(&mut self.batch);
        match self.store.spend(&batch, now) {
            Ok(fresh) => {
                let mut fresh = fresh.into_iter();
                let is_fresh = |_: &Spend| fresh.next() == Some(true);
                let (fresh, spent): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_fresh);
                self.engine.reject(&spent, Reason::Replayed);
                self.engine.commit(now, &fresh);
            }
            Err(error) => {
                self.engine.reject(&batch, Reason::StoreError);
                self.note_store(Err(error));
            }
        }
        self.carry_out(now);
    }

    /// Writes to the kernel what it lacks of the desired state. What fails is logged once, and
    /// tried again with the next call.
    pub fn sync(&mut self, now: Now) {
        let result = self.kernel.sync(self.engine.desired_mut(), now);
        self.note_sync(result);
    }

    fn note_sync(&mut self, result: Result<(), KernelError>) {
        note(&mut self.sync_error, "kernel-not-synced", result.err());
    }

    fn note_store(&mut self, result: Result<(), StoreError>) {
        note(&mut self.store_error, "store-failed", result.err());
    }

    /// Why the kernel does not hold the desired state, where it does not.
    #[must_use]
    pub fn sync_error(&self) -> Option<&str> {
        let errors = [&self.sync_error, &self.unwritten_error];
        errors.into_iter().find_map(|error| error.as_deref())
    }

    /// Carries out what the engine has decided: the log has it first, then the kernel, then
    /// all observers. Where the daemon is killed in between, the next start goes by the log.
    pub fn carry_out(&mut self, now: Now) {
        let result = self.carry_out_in_kernel(now);
        self.note_sync(result);
    }

    /// As [`Server::carry_out`], for a caller to whom a failure of the kernel's is told.
    fn carry_out_in_kernel(&mut self, now: Now) -> Result<(), KernelError> {
        let events: Vec<Event> = self.engine.drain_events().collect();
        self.record(now, &events);
        let result = self.kernel.sync(self.engine.desired_mut(), now);
        self.tell(now, events);
        result
    }

    /// Why the log does not hold what has happened, where it does not.
    #[must_use]
    pub fn store_error(&self) -> Option<&str> {
        self.store_error.as_deref()
    }

    /// Where that fails the grants stand; a start that does not know of them ends them.
    fn record(&mut self, now: Now, events: &[Event]) {
        if !events.is_empty() {
            let noted = self.store.note(events, now);
            self.note_store(noted);
        }
    }

    fn record_and_tell(&mut self, now: Now, events: Vec<Event>) {
        self.record(now, &events);
        self.tell(now, events);
    }

    fn tell(&mut self, now: Now, events: Vec<Event>) {
        for event in events {
            self.observe(now, &event);
            if let Event::Granted { grant, .. } = &event {
                let source = grant.target.source;
                let unblocked = self.blocked.admit(source, &mut self.kernel);
                self.note_sync(unblocked);
            }
        }
    }

    fn observe(&mut self, now: Now, event: &Event) {
        self.told.extend(self.observers.on(now, event));
    }

    /// What those who watch have not been told yet.
    pub fn take_told(&mut self) -> Vec<WatchMessage> {
        std::mem::take(&mut self.told)
    }

    /// What falls due with time. To be called about once a second.
    pub fn tick(&mut self, now: Now) {
        self.engine.tick(now);
        self.carry_out(now);
        self.blocked.forget_expired(now.mono);
        self.write_unwritten(now);
        let status = self.store.status();
        note(&mut self.log_trouble, "store-not-tidied", status.files);
        note(&mut self.journal_trouble, "journal-behind", status.journal);
        note(&mut self.journal_loss, "journal-incomplete", status.lost);
        self.observers.tick(now);
    }

    /// Has a new segment of the log made where the current one is nearly full.
    pub fn rotate_if_full(&mut self, now: Now) {
        if self.store.is_full() {
            let rotated = self.store.rotate(self.engine.snapshot(now), now);
            self.note_store(rotated);
        }
    }

    /// A clean stop: everything is on disk.
    pub fn close(mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.engine.tick(now);
        self.carry_out(now);
        self.store.close()
    }
}

/// Keeps why something fails, and logs it when that is news.
fn note(known: &mut Option<String>, event: &str, error: Option<impl ToString>) {
    let error = error.map(|error| error.to_string());
    if *known == error {
        return;
    }
    match &error {
        Some(error) => observers::say(Level::Error, event, error),
        None => observers::write(Level::Info, format_args!("{event} recovered=true")),
    }
    *known = error;
}
