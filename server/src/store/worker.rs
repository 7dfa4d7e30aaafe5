//! A thread, so that no packet waits for a disk: it makes the next segment, removes superfluous
//! ones, and writes the journal.

use super::directory::{StateDirectory, remove};
use super::journal::{JournalError, Projector};
use super::record::SegmentHeader;
use super::segment::Segment;
use crate::engine::{Now, State};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After a failure the thread tries again in this time.
const RETRY: Duration = Duration::from_secs(5);
/// The journal is pruned this often,
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// and whenever so many records were read.
const PRUNE_AFTER: usize = 10_000;
/// At most this many segments that only the journal needs are kept, the newest.
const KEPT_FOR_JOURNAL: usize = 16;

/// What is wrong, if anything. The thread tries again every 5 seconds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// Why no segment can be made, or a superfluous one removed. The log goes on.
    pub files: Option<String>,
    /// Why the journal cannot be written.
    pub journal: Option<String>,
    /// What the journal has lost in this run: one that was damaged, or records that were removed
    /// before it had read them.
    pub lost: Option<String>,
}

/// The receiver of one answer: when everything that was noted is in the journal, or why it
/// cannot be.
type Flush = SyncSender<Result<(), String>>;

/// A segment that is to be made.
#[derive(Debug)]
pub(super) struct NextSegment {
    pub header: SegmentHeader,
    pub state: State,
    /// The room for records after the state, in bytes.
    pub size: u64,
}

/// What the thread is asked for, and what it says.
#[derive(Debug)]
struct Exchange {
    next: Option<Box<NextSegment>>,
    /// What has become of it.
    made: Option<Segment>,
    /// Something was appended to the log, at this time.
    is_appended: bool,
    now: Now,
    flushes: Vec<Flush>,
    /// The thread is to end after the current commit: the next start reads the rest.
    is_stopped: bool,
    /// What the thread says.
    status: StoreStatus,
}

/// What the thread shares with its owner.
#[derive(Debug)]
struct Shared {
    exchange: Mutex<Exchange>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, change: impl FnOnce(&mut Exchange)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }
}

/// What the thread is started with.
#[derive(Debug)]
pub(super) struct WorkerSettings {
    pub directory: StateDirectory,
    /// Of the first segment of the run. The segments before it are superfluous.
    pub header: SegmentHeader,
    /// Why a journal that is there is not trusted.
    pub untrusted: Option<String>,
    pub retention: Duration,
}

/// The thread. Dropping it ends the thread after what it is doing.
#[derive(Debug)]
pub(super) struct StoreWorker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl StoreWorker {
    /// Starts the thread. It projects what the journal lacks of earlier runs, and then this run's
    /// records as they are appended.
    pub fn start(settings: WorkerSettings) -> Self {
        let shared = Arc::new(Shared {
            exchange: Mutex::new(Exchange {
                next: None,
                made: None,
                is_appended: false,
                now: settings.header.now,
                flushes: Vec::new(),
                is_stopped: false,
                status: StoreStatus::default(),
            }),
            changed: Condvar::new(),
        });
        let mut work = Work {
            shared: Arc::clone(&shared),
            next: None,
            first: settings.header.first,
            is_tidy: false,
            retry_files: None,
            projector: None,
            is_new: false,
            retry_journal: None,
            prune_at: settings.header.now.mono,
            added: 0,
            now: settings.header.now,
            flushes: Vec::new(),
            settings,
        };
        Self {
            shared,
            thread: Some(std::thread::spawn(move || work.run())),
        }
    }

    /// Has the thread make a segment; never waits for it. It makes one at a time.
    pub fn make(&self, next: NextSegment) {
        self.shared.ask(|wanted| wanted.next = Some(Box::new(next)));
    }

    /// The segment that was asked for, once it is made.
    pub fn made(&self) -> Option<Segment> {
        self.shared.lock().made.take()
    }

    /// Has the thread read what was appended to the log; never waits for it.
    pub fn appended(&self, now: Now) {
        self.shared.ask(|wanted| {
            wanted.is_appended = true;
            wanted.now = now;
        });
    }

    /// See [`super::Store::flush_journal`].
    pub fn flush(&self) -> Receiver<Result<(), String>> {
        let (answer, answered) = sync_channel(1);
        self.shared.ask(|wanted| wanted.flushes.push(answer));
        answered
    }

    /// What is wrong, if anything.
    pub fn status(&self) -> StoreStatus {
        self.shared.lock().status.clone()
    }
}

impl Drop for StoreWorker {
    fn drop(&mut self) {
        self.shared.ask(|wanted| wanted.is_stopped = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Work {
    settings: WorkerSettings,
    shared: Arc<Shared>,
    next: Option<Box<NextSegment>>,
    /// The first segment that the log needs.
    first: u32,
    /// No superfluous segment is left.
    is_tidy: bool,
    retry_files: Option<Instant>,
    /// None before the database was opened, and after a failure.
    projector: Option<Projector>,
    /// The database was moved aside, and no other one was opened yet.
    is_new: bool,
    retry_journal: Option<Instant>,
    /// When the journal is to be pruned, since boot.
    prune_at: Duration,
    /// Records that were read since it was pruned.
    added: usize,
    now: Now,
    flushes: Vec<Flush>,
}

impl Work {
    fn run(&mut self) {
        while !self.take() {
            self.maintain();
            // Between two portions it is looked what else is asked for.
            if !self.write_journal() {
                self.wait();
            }
        }
    }

    /// Takes what is asked for. Returns whether that is to end.
    fn take(&mut self) -> bool {
        let mut wanted = self.shared.lock();
        self.next = wanted.next.take().or(self.next.take());
        self.flushes.append(&mut wanted.flushes);
        wanted.is_appended = false;
        self.now = wanted.now;
        wanted.is_stopped
    }

    /// Waits until the thread is asked for something; after a failure for [`RETRY`] at most.
    fn wait(&self) {
        let is_asked = |wanted: &Exchange| {
            let is_new = wanted.is_appended || wanted.next.is_some();
            is_new || wanted.is_stopped || !wanted.flushes.is_empty()
        };
        let (wanted, changed) = (self.shared.lock(), &self.shared.changed);
        if self.retry_files.or(self.retry_journal).is_some() {
            drop(changed.wait_timeout_while(wanted, RETRY, |wanted| !is_asked(wanted)));
        } else {
            drop(changed.wait_while(wanted, |wanted| !is_asked(wanted)));
        }
    }

    /// Makes the next segment, and removes superfluous ones.
    fn maintain(&mut self) {
        let is_idle = self.next.is_none() && self.is_tidy;
        if is_idle || self.retry_files.is_some_and(|at| Instant::now() < at) {
            return;
        }
        // Each is tried although the other one fails: the last one makes room on the disk.
        let done = [self.make(), self.clean_up()];
        let done: io::Result<()> = done.into_iter().collect();
        self.retry_files = done.as_ref().err().map(|_| Instant::now() + RETRY);
        self.shared.lock().status.files = done.err().map(|error| error.to_string());
    }

    fn make(&mut self) -> io::Result<()> {
        let Some(next) = &self.next else {
            return Ok(());
        };
        let directory = &self.settings.directory;
        let made = Segment::create(directory, next.header, &next.state, next.size)?;
        self.first = next.header.first;
        (self.next, self.is_tidy) = (None, false);
        self.shared.lock().made = Some(made);
        Ok(())
    }

    /// Removes the segments that the log does not need and that the journal has read.
    fn clean_up(&mut self) -> io::Result<()> {
        let directory = &self.settings.directory;
        let segments = directory.segments()?;
        let read = self.projector.as_ref().map_or(0, Projector::segment);
        for (kept, &number) in segments.range(..self.first).rev().enumerate() {
            if number < read || kept >= KEPT_FOR_JOURNAL {
                remove(&directory.segment(number))?;
            }
        }
        self.is_tidy = true;
        Ok(())
    }

    /// Writes a portion of the journal. Returns whether there is more.
    fn write_journal(&mut self) -> bool {
        let is_due = self.retry_journal.is_none_or(|at| Instant::now() >= at);
        if !is_due && self.flushes.is_empty() {
            return false;
        }
        let error = match self.try_write_journal() {
            Ok(true) => return true,
            Ok(false) => None,
            Err(error) if self.is_replaced(&error) => return true,
            Err(error) => Some(error.to_string()),
        };
        // Records that are appended meanwhile wait: else a full disk would be tried for each.
        self.retry_journal = error.as_ref().map(|_| Instant::now() + RETRY);
        self.shared.lock().status.journal.clone_from(&error);
        for answer in self.flushes.drain(..) {
            // The receiver may be gone.
            let _ = answer.send(error.clone().map_or(Ok(()), Err));
        }
        false
    }

    fn try_write_journal(&mut self) -> Result<bool, JournalError> {
        let projector = if let Some(projector) = &mut self.projector {
            projector
        } else {
            let (directory, run) = (&self.settings.directory, self.settings.header.run);
            let opened = Projector::open(directory, run, self.settings.untrusted.as_deref())?;
            (self.settings.untrusted, self.is_new) = (None, false);
            self.projector.insert(opened)
        };
        let segment = projector.segment();
        let read = projector.read_on(self.now)?;
        if std::mem::take(&mut projector.is_gap) {
            let what = "segments of the log were removed before the journal had read them";
            self.shared.lock().status.lost = Some(what.into());
        }
        if let Some(records) = read {
            self.added += records;
            self.is_tidy &= projector.segment() == segment;
            return Ok(true);
        }
        if self.now.mono < self.prune_at && self.added < PRUNE_AFTER {
            return Ok(false);
        }
        if projector.prune(self.settings.retention, self.now.wall)? {
            return Ok(true);
        }
        self.prune_at = self.now.mono.saturating_add(PRUNE_EVERY);
        self.added = 0;
        Ok(false)
    }

    /// Closes the database after a failure. A database that turns out to be damaged is moved
    /// aside, and true is returned: the next one is made from the log.
    fn is_replaced(&mut self, error: &JournalError) -> bool {
        let was_open = self.projector.take().is_some();
        if self.is_new && !was_open {
            return false;
        }
        let replaced = error.replace(&self.settings.directory);
        self.is_new = replaced.is_some();
        if self.is_new {
            self.settings.untrusted = None;
            self.shared.lock().status.lost = replaced;
        }
        self.is_new
    }
}
