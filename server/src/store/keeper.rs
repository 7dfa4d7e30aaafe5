//! What the log's files need and no packet waits for, done by a thread: it prepares the next
//! segment, writes the snapshot after a switch to it, and removes what that makes superfluous.

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

/// What the disk refused is tried again after this time.
const RETRY: Duration = Duration::from_secs(5);
/// Segments that only the journal still needs: so many are kept for it, the newest.
const KEPT_FOR_JOURNAL: usize = 16;

/// The greatest timestamp of each generation in a segment.
pub(super) type Newest = HashMap<GenerationId, Timestamp>;

/// A switch to the next segment.
#[derive(Debug)]
pub(super) struct Switch {
    /// The segment that the log was in until then, and what it holds.
    pub retired: Segment,
    pub newest: Newest,
    /// The number of the one that it is in now.
    pub number: u32,
    /// The state between the two.
    pub state: State,
    /// How large the next segment is to be, in bytes.
    pub size: u64,
}

#[derive(Debug)]
enum Job {
    Switch(Box<Switch>),
    /// The journal has read on.
    Tidy,
}

/// Asks the keeper to look whether files can be removed.
#[derive(Debug, Clone)]
pub(super) struct Tidier(Option<Sender<Job>>);

impl Tidier {
    /// Asks; never waits. A thread that has ended removes nothing.
    pub fn ask(&self) {
        let _ = self.0.as_ref().map(|jobs| jobs.send(Job::Tidy));
    }
}

/// What the thread tells.
#[derive(Debug, Default)]
struct Shared {
    /// Every segment before this one may be gone.
    first: AtomicU32,
    /// What the disk refuses.
    trouble: Mutex<Option<String>>,
}

/// The thread. Dropping it waits for what it is doing, and for every [`Tidier`] to be dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    jobs: Option<Sender<Job>>,
    prepared: Receiver<Segment>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread for a run whose first segment this is. `journal` is the segment that
    /// the journal reads next.
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

    /// Hands on a switch. The next one comes only after the segment that this one asks for.
    pub fn switched(&self, switch: Switch) -> io::Result<()> {
        let job = Job::Switch(Box::new(switch));
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the thread of the log's files has ended")),
        }
    }

    /// What asks for superfluous files to be removed.
    pub fn tidier(&self) -> Tidier {
        Tidier(self.jobs.clone())
    }

    /// Every segment before this one may be gone.
    pub fn first(&self) -> u32 {
        self.shared.first.load(Ordering::Relaxed)
    }

    /// What the disk refuses, and is tried again.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.shared.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Work {
    directory: StateDirectory,
    run: RunId,
    /// The segments that are full, and what they hold.
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
            let done = self.prepare(ready).and_then(|()| self.save());
            let done = done.and_then(|()| self.tidy());
            let trouble = done.as_ref().err().map(ToString::to_string);
            *(self.shared.trouble.lock()).unwrap_or_else(PoisonError::into_inner) = trouble;
            let job = match done {
                Ok(()) => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Err(_) => asked.recv_timeout(RETRY),
            };
            match job {
                Ok(Job::Switch(switch)) => self.switch(*switch),
                Ok(Job::Tidy) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn switch(&mut self, switch: Switch) {
        // Nothing depends on it: without it the file is larger than it need be.
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
        // There is room for one, and nobody waits for it who is gone.
        let _ = ready.try_send(next);
        self.is_prepared = true;
        Ok(())
    }

    /// Writes the snapshot before the current segment. From then on the segments are not
    /// needed all of whose packets its floors refuse.
    fn save(&mut self) -> io::Result<()> {
        let Some(state) = self.unsaved.take() else {
            return Ok(());
        };
        let floors: HashMap<_, _> = state.floors.iter().copied().collect();
        let is_covered = |newest: &Newest| {
            let mut all = newest.iter();
            all.all(|(generation, at)| floors.get(generation) >= Some(at))
        };
        // In a row: a gap in it would be damage.
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

    /// Removes what the newest snapshot has made superfluous and the journal has read.
    fn tidy(&self) -> io::Result<()> {
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
