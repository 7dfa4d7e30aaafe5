//! A thread maintains the log's files, so that no packet waits for a disk: it prepares the next
//! segment, writes the snapshot after each switch, and removes superfluous files.

use super::directory::{StateDirectory, remove};
use super::record::{FileHeader, FileKind, RunId};
use super::segment::{MIN_SEGMENT, Segment};
use super::snapshot;
use crate::engine::State;
use oneknock_shared::knock::Timestamp;
use oneknock_shared::secret::GenerationId;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// After an error the thread tries again in this time.
const RETRY: Duration = Duration::from_secs(5);
/// At most this many segments that only the journal needs are kept, the newest.
const KEPT_FOR_JOURNAL: usize = 16;

/// The greatest timestamp of each generation in a segment.
pub(super) type Newest = HashMap<GenerationId, Timestamp>;

/// A switch to the next segment.
#[derive(Debug)]
pub(super) struct Switch {
    /// The segment that is full.
    pub retired: Segment,
    /// Of its packets.
    pub newest: Newest,
    /// The number of the segment that follows.
    pub number: u32,
    /// The state between the two.
    pub state: State,
    /// The size of the segment after that, in bytes.
    pub size: u64,
}

/// What the thread is asked for.
#[derive(Debug)]
enum Job {
    Switch(Box<Switch>),
    /// The journal has gone to its next segment.
    Cleanup,
}

/// Asks the thread to remove superfluous files.
#[derive(Debug, Clone)]
pub(super) struct CleanupHandle(Option<Sender<Job>>);

impl CleanupHandle {
    /// Asks, and never waits. A thread that has ended removes nothing.
    pub fn ask(&self) {
        let _ = self.0.as_ref().map(|jobs| jobs.send(Job::Cleanup));
    }
}

/// What the thread publishes.
#[derive(Debug, Default)]
struct Shared {
    /// The first segment that is needed: those before it may be gone.
    first: AtomicU32,
    /// The last error, until the next success.
    trouble: Mutex<Option<String>>,
}

/// The thread. Dropping it waits until the thread has done what it was asked for, and until
/// every [`CleanupHandle`] is dropped.
#[derive(Debug)]
pub(super) struct Maintenance {
    jobs: Option<Sender<Job>>,
    prepared: Receiver<Segment>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    /// Starts the thread, for a run that begins with segment `first`. `journal` holds the number
    /// of the segment that the journal reads.
    pub fn start(
        directory: StateDirectory,
        run: RunId,
        first: u32,
        journal: Arc<AtomicU32>,
    ) -> Self {
        let (jobs, asked) = channel();
        let (ready, prepared) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        shared.first.store(first, Ordering::Relaxed);
        let mut work = Work {
            directory,
            run,
            retired: BTreeMap::new(),
            current: first,
            size: MIN_SEGMENT,
            is_prepared: false,
            unsaved: None,
            journal,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::spawn(move || work.run(&asked, &ready));
        Self {
            jobs: Some(jobs),
            prepared,
            shared,
            thread: Some(thread),
        }
    }

    /// The next segment, once it is prepared.
    pub fn prepared(&self) -> Option<Segment> {
        self.prepared.try_recv().ok()
    }

    /// Hands a switch to the thread, and never waits. There is at most one in the channel: the
    /// next switch needs the segment that this one has the thread prepare.
    pub fn switched(&self, switch: Switch) -> io::Result<()> {
        let job = Job::Switch(Box::new(switch));
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the thread of the log's files has ended")),
        }
    }

    /// Makes a handle for the journal.
    pub fn cleanup(&self) -> CleanupHandle {
        CleanupHandle(self.jobs.clone())
    }

    /// The first segment that is needed: those before it may be gone.
    pub fn first(&self) -> u32 {
        self.shared.first.load(Ordering::Relaxed)
    }

    /// The last error, until the next success.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.shared.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own.
struct Work {
    directory: StateDirectory,
    run: RunId,
    /// The full segments of this run that are needed.
    retired: BTreeMap<u32, Newest>,
    current: u32,
    size: u64,
    is_prepared: bool,
    /// The state before the current segment, while it has no snapshot.
    unsaved: Option<State>,
    journal: Arc<AtomicU32>,
    shared: Arc<Shared>,
}

impl Work {
    fn run(&mut self, asked: &Receiver<Job>, ready: &SyncSender<Segment>) {
        loop {
            // Each is tried although another one fails: the last one makes room on the disk.
            let done = [self.prepare(ready), self.save(), self.clean_up()];
            let done: io::Result<()> = done.into_iter().collect();
            let trouble = done.as_ref().err().map(ToString::to_string);
            *(self.shared.trouble.lock()).unwrap_or_else(PoisonError::into_inner) = trouble;
            let job = match done {
                Ok(()) => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Err(_) => asked.recv_timeout(RETRY),
            };
            match job {
                Ok(Job::Switch(switch)) => self.switch(*switch),
                Ok(Job::Cleanup) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn switch(&mut self, switch: Switch) {
        // Nothing depends on it: the file is larger than need be.
        let _ = switch.retired.shrink();
        self.retired.insert(switch.retired.number, switch.newest);
        (self.current, self.size) = (switch.number, switch.size);
        (self.unsaved, self.is_prepared) = (Some(switch.state), false);
    }

    /// Makes the segment after the current one.
    fn prepare(&mut self, ready: &SyncSender<Segment>) -> io::Result<()> {
        if self.is_prepared {
            return Ok(());
        }
        let number = self.current + 1;
        let none = std::iter::empty();
        let next = Segment::create(&self.directory, self.run, number, self.size, none)?;
        // The channel has room for one. It is closed where the run has ended.
        let _ = ready.try_send(next);
        self.is_prepared = true;
        Ok(())
    }

    /// Writes the snapshot before the current segment. Segments all of whose packets are refused
    /// by its floors are not needed any more.
    fn save(&mut self) -> io::Result<()> {
        let Some(state) = self.unsaved.take() else {
            return Ok(());
        };
        let floors: HashMap<_, _> = state.floors.iter().copied().collect();
        let is_covered = |newest: &Newest| {
            let mut all = newest.iter();
            all.all(|(generation, at)| floors.get(generation) >= Some(at))
        };
        // The segments that are needed stand in a row, without a gap.
        let mut row = self.retired.iter();
        let needed = row.find(|(_, newest)| !is_covered(newest));
        let first = needed.map_or(self.current, |(number, _)| *number);
        let header = FileHeader {
            kind: FileKind::Snapshot,
            run: self.run,
            number: self.current,
            first,
        };
        if let Err(error) = snapshot::write(&self.directory, header, &state) {
            self.unsaved = Some(state);
            return Err(error);
        }
        self.retired.retain(|number, _| *number >= first);
        self.shared.first.store(first, Ordering::Relaxed);
        Ok(())
    }

    /// Removes all snapshots but the newest, and the segments that are not needed and that the
    /// journal has read.
    fn clean_up(&self) -> io::Result<()> {
        let files = self.directory.log_files()?;
        if let Some(&newest) = files.snapshots.last() {
            for &number in files.snapshots.range(..newest) {
                remove(&self.directory.snapshot(number))?;
            }
        }
        let first = self.shared.first.load(Ordering::Relaxed);
        let journal = self.journal.load(Ordering::Relaxed);
        let superfluous = files.segments.range(..first).rev();
        for (kept, &number) in superfluous.enumerate() {
            if number < journal || kept >= KEPT_FOR_JOURNAL {
                remove(&self.directory.segment(number))?;
            }
        }
        Ok(())
    }
}
